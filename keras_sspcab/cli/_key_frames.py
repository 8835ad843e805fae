"""The frames of each test video that tell most, for the report."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._maps import save_map
from keras_sspcab.runs import files

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

# The most instructive first, and whether its largest score tells most.
_OUTCOMES = {
    "missed": False,
    "false_alarm": True,
    "found": True,
    "passed": True,
    "flagged": True,
    "unflagged": True,
}
_BY_LABEL = {
    (1, False): "missed",
    (0, True): "false_alarm",
    (1, True): "found",
    (0, False): "passed",
    (None, True): "flagged",
    (None, False): "unflagged",
}
_PER_VIDEO = 2


@dataclasses.dataclass(frozen=True)
class _Candidate:
    frame: int
    label: int | None
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
        outcome = _BY_LABEL[label, bool(outputs["is_anomalous"])]
        score = float(outputs["anomaly_score"])
        best = self._best.setdefault(video, {})
        before = best.get(outcome)
        if before is None or (
            score > before.score if _OUTCOMES[outcome] else score < before.score
        ):
            best[outcome] = _Candidate(
                scored.frame, label, score, outputs["anomaly_map"].copy()
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

        outcomes = [name for name in _OUTCOMES if name in best][:_PER_VIDEO]
        positions = sorted({best[name].frame for name in outcomes})
        pictures = read_frames(video, positions)
        masks: dict[int, np.ndarray] = {}
        if video.masks is not None:
            for position, pixels in enumerate(iterate_masks(video)):
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
                    "is_anomalous": int(
                        outcome in ("false_alarm", "found", "flagged")
                    ),
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
