"""The frames of each test video that are worth a look, for the report."""

import dataclasses
import itertools
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image

from keras_sspcab.data.video import Video, iterate_masks, read_frames
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.runs.outputs import (
    OUTCOMES,
    KeyFrame,
    write_map,
    write_rows,
)

_PER_VIDEO = 2

# By outcome, a frame and its anomaly map.
_Best = dict[str, tuple[KeyFrame, np.ndarray]]


class KeyFrames:
    """Remembers candidates while videos are scored, then writes the chosen.

    Args:
        folder: The folder `predictions` of a run.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._best: dict[Video, _Best] = {}

    def consider(
        self, video: Video, scored: ScoredFrame, label: int | None
    ) -> None:
        """Keeps a frame if it tells more than those of its video so far."""
        best = self._best.setdefault(video, {})
        number = len(self._best) - 1
        stem = f"{self._folder}/key_frames/{number:04d}-{scored.frame:06d}"
        row = KeyFrame(
            video.name,
            scored.frame,
            label,
            float(scored.outputs["anomaly_score"]),
            bool(scored.outputs["is_anomalous"]),
            path=f"{stem}.png",
            mask_path=f"{stem}-mask.png",
            map_path=f"{stem}.npy",
        )
        # Of those that were missed, the one furthest below the threshold.
        sign = -1 if row.outcome == "missed" else 1
        before = best.get(row.outcome)
        if before is None or sign * row.score > sign * before[0].score:
            # Of a view, the whole batch would be kept.
            best[row.outcome] = row, scored.outputs["anomaly_map"].copy()

    def write(self) -> None:
        """Writes pictures, maps, masks and the table of key frames."""
        os.makedirs(os.path.join(self._folder, "key_frames"))
        rows = [
            row
            for video, best in self._best.items()
            for row in _write_video(video, best)
        ]
        write_rows(self._folder, KeyFrame, rows)


def _write_video(video: Video, best: _Best) -> Iterator[KeyFrame]:
    # The most instructive ones come first.
    outcomes = [name for name in OUTCOMES.values() if name in best]
    chosen = [best[name] for name in outcomes[:_PER_VIDEO]]
    positions = sorted({row.frame for row, _ in chosen})
    pictures = read_frames(video, positions)
    masks: dict[int, np.ndarray] = {}
    if video.masks is not None:
        first_ones = itertools.islice(iterate_masks(video), positions[-1] + 1)
        masks = {i: m for i, m in enumerate(first_ones) if i in positions}
    for row, anomaly_map in chosen:
        Image.fromarray(pictures[row.frame]).save(row.path)
        write_map(str(row.map_path), anomaly_map)
        mask = masks.get(row.frame)
        if mask is None or not mask.any():
            yield dataclasses.replace(row, mask_path=None)
        else:
            pixels = mask.astype("uint8") * 255
            Image.fromarray(pixels).save(str(row.mask_path))
            yield row
