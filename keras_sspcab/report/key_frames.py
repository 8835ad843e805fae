"""The frames of videos that are worth a look."""

import dataclasses
import os
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from keras_sspcab.report import run_files
from keras_sspcab.runs.outcomes import OUTCOMES

_COLUMNS = (
    "video",
    "frame",
    "label",
    "outcome",
    "anomaly_score",
    "is_anomalous",
    "image_file",
)


@dataclasses.dataclass(frozen=True)
class KeyFrame:
    """One row of `predictions/key_frames.csv`: a frame worth a look.

    Attributes:
        video: Name of its video.
        frame: Its number there, from 0.
        label: 1 if it shows something abnormal, 0 if not, None if unknown.
        score: Streaming score.
        is_anomalous: Whether it reached the threshold.
        path: The frame as an image file.
        mask_path: Ground truth, or None.
        map_path: Anomaly map (`.npy`), or None if there is none.
        run_path: Folder of the run, named in errors.
    """

    video: str
    frame: int
    label: int | None
    score: float
    is_anomalous: bool
    path: str
    mask_path: str | None
    map_path: str | None
    run_path: str

    @property
    def is_right(self) -> bool | None:
        """Whether the verdict is that of the ground truth, if there is one."""
        return None if self.label is None else self.label == self.is_anomalous

    def load_map(self) -> np.ndarray | None:
        """Returns the anomaly map `(height, width)` in float32, or None."""
        if self.map_path is None:
            return None
        command = run_files.evaluate_command(self.run_path)
        return run_files.load_map(self.map_path, command)


def read_key_frames(
    path: str, run_path: str, scored: Mapping[str, Collection[int]]
) -> Iterator[KeyFrame]:
    """Yields the rows of `predictions/key_frames.csv`.

    Args:
        path: The file.
        run_path: Folder of the run.
        scored: Which frames of each video `scores.csv` holds.

    Raises:
        ValueError: If a row is broken, or does not fit the scores.
    """
    command = run_files.evaluate_command(run_path)
    for line, row in run_files.read_rows(path, _COLUMNS, command):
        try:
            key_frame = _key_frame(row, os.path.dirname(path), run_path)
            outcome = OUTCOMES[key_frame.label, key_frame.is_anomalous]
            if row["outcome"] != outcome:
                raise ValueError(
                    f"the outcome is {row['outcome']!r}, where label and "
                    f"is_anomalous make it {outcome!r}"
                )
            if key_frame.frame not in scored.get(key_frame.video, ()):
                raise ValueError(
                    f"frame {key_frame.frame} of video {key_frame.video!r} is "
                    "not in scores.csv"
                )
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise run_files.broken(
                path, f"line {line}: {error}", command
            ) from error
        yield key_frame


def _key_frame(row: dict[str, str], folder: str, run_path: str) -> KeyFrame:
    mask_file = row.get("mask_file")
    return KeyFrame(
        video=row["video"],
        frame=run_files.parse_frame(row),
        label=run_files.parse_label(row),
        score=run_files.parse_score(row),
        is_anomalous=run_files.parse_verdict(row),
        path=os.path.join(folder, row["image_file"]),
        mask_path=os.path.join(folder, mask_file) if mask_file else None,
        map_path=run_files.find_map(row, folder),
        run_path=run_path,
    )
