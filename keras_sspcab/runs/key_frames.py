"""The frames of each test video that are worth a look, for the report."""

import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_sspcab.data.video import Video, iterate_masks, read_frames
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.runs.outputs import (
    OUTCOMES,
    KeyFrame,
    write_key_frames,
    write_map,
)

_PER_VIDEO = 2


class _Candidate(NamedTuple):
    frame: int
    label: int | None
    is_anomalous: bool
    score: float
    anomaly_map: np.ndarray


class KeyFrames:
    """Remembers candidates while videos are scored, then writes the chosen.

    Args:
        folder: The folder `predictions` of a run.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._best: dict[Video, dict[str, _Candidate]] = {}

    def consider(
        self, video: Video, scored: ScoredFrame, label: int | None
    ) -> None:
        """Keeps a frame if it tells more than those of its video so far."""
        outputs = scored.outputs
        is_anomalous = bool(outputs["is_anomalous"])
        score = float(outputs["anomaly_score"])
        outcome = OUTCOMES[label, is_anomalous]
        best = self._best.setdefault(video, {})
        before = best.get(outcome)
        # Of those that were missed, the one furthest below the threshold.
        sign = -1 if outcome == "missed" else 1
        if before is None or sign * score > sign * before.score:
            # Of a view, the whole batch would be kept.
            anomaly_map = outputs["anomaly_map"].copy()
            best[outcome] = _Candidate(
                scored.frame, label, is_anomalous, score, anomaly_map
            )

    def write(self) -> None:
        """Writes pictures, maps, masks and the table of key frames."""
        os.makedirs(os.path.join(self._folder, "key_frames"))
        rows = [
            row
            for number, (video, best) in enumerate(self._best.items())
            for row in self._write_video(number, video, best)
        ]
        write_key_frames(self._folder, rows)

    def _write_video(
        self, number: int, video: Video, best: dict[str, _Candidate]
    ) -> Iterator[KeyFrame]:
        # The most instructive ones come first.
        outcomes = [name for name in OUTCOMES.values() if name in best]
        chosen = [best[name] for name in outcomes[:_PER_VIDEO]]
        positions = sorted({candidate.frame for candidate in chosen})
        pictures = read_frames(video, positions)
        masks: dict[int, np.ndarray] = {}
        if video.masks is not None:
            first_ones = itertools.islice(
                iterate_masks(video), positions[-1] + 1
            )
            masks = {i: m for i, m in enumerate(first_ones) if i in positions}
        for frame, label, is_anomalous, score, anomaly_map in chosen:
            stem = f"{self._folder}/key_frames/{number:04d}-{frame:06d}"
            mask = masks.get(frame)
            has_mask = mask is not None and bool(mask.any())
            Image.fromarray(pictures[frame]).save(f"{stem}.png")
            write_map(f"{stem}.npy", anomaly_map)
            if mask is not None and has_mask:
                pixels = mask.astype("uint8") * 255
                Image.fromarray(pixels).save(f"{stem}-mask.png")
            yield KeyFrame(
                video.name,
                frame,
                label,
                score,
                is_anomalous,
                path=f"{stem}.png",
                mask_path=f"{stem}-mask.png" if has_mask else None,
                map_path=f"{stem}.npy",
            )
