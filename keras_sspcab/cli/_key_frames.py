"""The frames of each test video that tell most, for the report."""

import dataclasses
import itertools
import os
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._maps import save_map
from keras_sspcab.runs import files
from keras_sspcab.runs.outcomes import OUTCOMES

if TYPE_CHECKING:
    import numpy as np

    from keras_sspcab.applications import ScoredFrame
    from keras_sspcab.data.video import Video

COLUMNS = (
    "video",
    "frame",
    "label",
    "outcome",
    "anomaly_score",
    "is_anomalous",
    "image_file",
    "map_file",
    "mask_file",
)

_PER_VIDEO = 2


@dataclasses.dataclass(frozen=True)
class _Candidate:
    frame: int
    label: int | None
    is_anomalous: bool
    score: float
    anomaly_map: "np.ndarray"


class KeyFrames:
    """Remembers candidates while videos are scored, then writes the chosen.

    Args:
        folder: The folder `predictions` of a run.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._best: dict[Video, dict[str, _Candidate]] = {}

    def consider(
        self, video: "Video", scored: "ScoredFrame", label: int | None
    ) -> None:
        """Keeps a frame if it tells more than those of its video so far."""
        outputs = scored.outputs
        candidate = _Candidate(
            scored.frame,
            label,
            bool(outputs["is_anomalous"]),
            float(outputs["anomaly_score"]),
            outputs["anomaly_map"],
        )
        outcome = OUTCOMES[label, candidate.is_anomalous]
        best = self._best.setdefault(video, {})
        before = best.get(outcome)
        # Of those that were missed, the one furthest below the threshold.
        sign = -1 if outcome == "missed" else 1
        if before is None or sign * candidate.score > sign * before.score:
            # Of a view, the whole batch would be kept.
            best[outcome] = dataclasses.replace(
                candidate, anomaly_map=candidate.anomaly_map.copy()
            )

    def write(self) -> None:
        """Writes pictures, maps, masks and `key_frames.csv`."""
        os.makedirs(os.path.join(self._folder, "key_frames"))
        rows = [
            row
            for number, (video, best) in enumerate(self._best.items())
            for row in self._write_video(number, video, best)
        ]
        path = os.path.join(self._folder, "key_frames.csv")
        files.write_csv(path, COLUMNS, rows)

    def _write_video(
        self, number: int, video: "Video", best: dict[str, _Candidate]
    ) -> list[dict[str, Any]]:
        from keras_sspcab.data.video import iterate_masks, read_frames

        # The most instructive ones come first.
        outcomes = [name for name in OUTCOMES.values() if name in best]
        outcomes = outcomes[:_PER_VIDEO]
        positions = sorted({best[name].frame for name in outcomes})
        pictures = read_frames(video, positions)
        masks: dict[int, np.ndarray] = {}
        if video.masks is not None:
            found = itertools.islice(iterate_masks(video), positions[-1] + 1)
            for position, pixels in enumerate(found):
                if position in positions:
                    masks[position] = pixels
        rows = []
        for outcome in outcomes:
            chosen = best[outcome]
            stem = f"key_frames/{number:04d}-{chosen.frame:06d}"
            mask = masks.get(chosen.frame)
            has_mask = mask is not None and bool(mask.any())
            self._save(f"{stem}.png", pictures[chosen.frame])
            self._save(f"{stem}.npy", chosen.anomaly_map)
            if mask is not None and has_mask:
                self._save(f"{stem}-mask.png", mask.astype("uint8") * 255)
            rows.append(
                {
                    "video": video.name,
                    "frame": chosen.frame,
                    "label": "" if chosen.label is None else chosen.label,
                    "outcome": outcome,
                    "anomaly_score": chosen.score,
                    "is_anomalous": int(chosen.is_anomalous),
                    "image_file": f"{stem}.png",
                    "map_file": f"{stem}.npy",
                    "mask_file": f"{stem}-mask.png" if has_mask else "",
                }
            )
        return rows

    def _save(self, name: str, array: "np.ndarray") -> None:
        from PIL import Image

        path = os.path.join(self._folder, name)
        if name.endswith(".npy"):
            save_map(path, array)
        else:
            Image.fromarray(array).save(path)
