"""The files that an evaluation leaves in a run folder: their only writer.

All lie in `predictions/`, but for `metrics.json`:

    scores.csv            one row for each test image or scored frame of video
    maps/000000.npy       anomaly maps of images, in half precision
    curves.json           ROC, precision-recall and PRO curves
    key_frames.csv        of videos: the frames that are worth a look, with
    key_frames/           their pictures, anomaly maps and masks
    detections/, tracks/  of videos: regions, see `keras_sspcab.metrics`

Runs of earlier versions have no `curves.json`.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_sspcab.metrics import Curve
from keras_sspcab.runs import files, tables
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.tables import Columns

#: Outcomes by label (1 abnormal, 0 normal, None unknown) and whether the image
#: or frame was flagged; the most instructive first.
OUTCOMES: dict[tuple[int | None, bool], str] = {
    (1, False): "missed",
    (0, True): "false_alarm",
    (1, True): "found",
    (0, False): "passed",
    (None, True): "flagged",
    (None, False): "unflagged",
}


@dataclasses.dataclass(frozen=True)
class ImageScore:
    """The scores of one test image: a row of `scores.csv`.

    Attributes:
        path: The image file.
        label: 1 for a defect, 0 for normal, None if unknown.
        defect: Kind of defect; `"good"` for normal images, may be empty.
        score: Anomaly score, in standard deviations above the mean of normal
            images.
        is_anomalous: Whether the score reached the threshold.
        raw_score: The score before calibration, or None.
        mask_path: Image file of the ground truth, or None.
        map_path: File of the anomaly map, or None.
    """

    path: str
    label: int | None
    defect: str
    score: float
    is_anomalous: bool
    raw_score: float | None = None
    mask_path: str | None = None
    map_path: str | None = None

    def load_map(self) -> np.ndarray | None:
        """Returns the anomaly map `(height, width)` in float32, or None."""
        return None if self.map_path is None else read_map(self.map_path)


@dataclasses.dataclass(frozen=True)
class FrameScore:
    """The scores of one frame of a video: a row of `scores.csv`.

    Attributes:
        video: Name of the video.
        frame: Position in the video, from 0.
        label: 1 if the frame shows something abnormal, 0 if not, None if
            unknown.
        score: Streaming anomaly score, in standard deviations above the mean of
            normal frames.
        is_anomalous: Whether that score reached the threshold.
        raw_score: The streaming score before calibration, or None.
        video_score: The score after normalization and smoothing over the whole
            video.
    """

    video: str
    frame: int
    label: int | None
    score: float
    is_anomalous: bool
    raw_score: float | None
    video_score: float


@dataclasses.dataclass(frozen=True)
class KeyFrame:
    """A frame that is worth a look: a row of `key_frames.csv`.

    Attributes:
        video: Name of the video.
        frame: Position in the video, from 0.
        label: 1 if the frame shows something abnormal, 0 if not, None if
            unknown.
        score: Streaming anomaly score.
        is_anomalous: Whether the score reached the threshold.
        path: The frame as an image file.
        mask_path: Image file of the ground truth, or None.
        map_path: File of the anomaly map, or None.
    """

    video: str
    frame: int
    label: int | None
    score: float
    is_anomalous: bool
    path: str
    mask_path: str | None
    map_path: str | None

    @property
    def outcome(self) -> str:
        """What became of the frame: one of the values of `OUTCOMES`."""
        return OUTCOMES[self.label, self.is_anomalous]

    def load_map(self) -> np.ndarray | None:
        """Returns the anomaly map `(height, width)` in float32, or None."""
        return None if self.map_path is None else read_map(self.map_path)


_SCORES: Columns = {
    "label": ("label", tables.parse_label),
    "anomaly_score": ("score", tables.parse_number),
    "is_anomalous": ("is_anomalous", tables.parse_flag),
}
_IMAGE_COLUMNS: Columns = {
    "path": ("path", tables.parse_name),
    "label": _SCORES["label"],
    "defect": ("defect", str),
    **_SCORES,
    "raw_score": ("raw_score", tables.parse_optional_number),
    "mask_path": ("mask_path", tables.parse_optional_path),
    "map_file": ("map_path", tables.parse_optional_path),
}
_FRAME_COLUMNS: Columns = {
    "video": ("video", tables.parse_name),
    "frame": ("frame", tables.parse_position),
    **_SCORES,
    "raw_score": ("raw_score", tables.parse_optional_number),
    "video_score": ("video_score", tables.parse_number),
}
_KEY_FRAME_COLUMNS: Columns = {
    "video": ("video", tables.parse_name),
    "frame": ("frame", tables.parse_position),
    "label": _SCORES["label"],
    "outcome": ("outcome", str),
    **_SCORES,
    "image_file": ("path", tables.parse_name),
    "map_file": ("map_path", tables.parse_optional_path),
    "mask_file": ("mask_path", tables.parse_optional_path),
}


# === Writing ===


def write_map(path: str, anomaly_map: np.ndarray) -> None:
    """Writes an anomaly map `(height, width)` in half precision.

    Args:
        path: A file ending in `.npy`.
        anomaly_map: The map. Values beyond the range of half precision are
            clipped.
    """
    limit = np.finfo("float16").max
    np.save(path, np.clip(anomaly_map, -limit, limit).astype("float16"))


def write_image_scores(folder: str, rows: Iterable[ImageScore]) -> None:
    """Writes `scores.csv` of images.

    Args:
        folder: The folder of predictions; the maps lie in it.
        rows: One for each image.
    """
    tables.write_rows(folder, "scores.csv", _IMAGE_COLUMNS, rows)


def write_frame_scores(folder: str, rows: Iterable[FrameScore]) -> None:
    """Writes `scores.csv` of the frames of videos.

    Args:
        folder: The folder of predictions.
        rows: One for each scored frame, by video and in order.
    """
    tables.write_rows(folder, "scores.csv", _FRAME_COLUMNS, rows)


def write_key_frames(folder: str, rows: Iterable[KeyFrame]) -> None:
    """Writes `key_frames.csv`.

    Args:
        folder: The folder of predictions; pictures, maps and masks lie in it.
        rows: The key frames, in the order in which they are shown.
    """
    tables.write_rows(folder, "key_frames.csv", _KEY_FRAME_COLUMNS, rows)


def write_curves(folder: str, curves: Mapping[str, Curve]) -> None:
    """Writes `curves.json`; see `read_curves`.

    Args:
        folder: The folder of predictions.
        curves: Curves by name.
    """
    points = {
        name: {"x": curve.x.tolist(), "y": curve.y.tolist()}
        for name, curve in curves.items()
    }
    text = json.dumps(points, allow_nan=False)
    files.write_text(os.path.join(folder, "curves.json"), text + "\n")


# === Reading ===


def read_metrics(run: RunFolder) -> dict[str, Any]:
    """Returns the content of `metrics.json`.

    Raises:
        ValueError: If the file is missing or broken. The message names the
            file and the command that writes it, here as for all files below.
    """
    path = run.require("metrics.json", f"{tables.EVALUATE} {run.path}")
    metrics = tables.read_json(path, run)
    if not isinstance(metrics, dict):
        raise tables.broken(path, "expected one object of metrics", run)
    return metrics


def read_image_scores(run: RunFolder) -> list[ImageScore]:
    """Returns the rows of `scores.csv` of a run that was evaluated on images.

    Raises:
        ValueError: If the file is missing, broken, or not that of the metrics.
    """
    path = run.require(
        "predictions/scores.csv", f"{tables.EVALUATE} {run.path}"
    )
    rows = [
        ImageScore(**values)
        for values in tables.read_rows(path, _IMAGE_COLUMNS, run)
    ]
    _check_count("images", len(rows), read_metrics(run), run, path)
    return rows


def read_frame_scores(run: RunFolder) -> dict[str, list[FrameScore]]:
    """Returns the rows of `scores.csv` of a run that was evaluated on videos.

    Returns:
        The scored frames of each video by its name, in the order of the file.

    Raises:
        ValueError: If the file is missing, broken, or not that of the metrics.
    """
    path = run.require(
        "predictions/scores.csv", f"{tables.EVALUATE} {run.path}"
    )
    frames: dict[str, list[FrameScore]] = {}
    for values in tables.read_rows(path, _FRAME_COLUMNS, run):
        row = FrameScore(**values)
        before = frames.setdefault(row.video, [])
        if row.video != next(reversed(frames)):
            problem = f"video {row.video!r} is not in one piece"
            raise tables.broken(path, problem, run)
        if before and row.frame <= before[-1].frame:
            raise tables.broken(
                path,
                f"frame {row.frame} of {row.video!r} follows frame "
                f"{before[-1].frame}",
                run,
            )
        before.append(row)
    metrics = read_metrics(run)
    total = sum(map(len, frames.values()))
    _check_count("frames of all videos", total, metrics, run, path)
    for name, of_video in (metrics.get("per_video") or {}).items():
        count = len(frames.get(name, ()))
        _check_count(f"frames of {name}", count, of_video, run, path)
    return frames


def read_key_frames(run: RunFolder) -> list[KeyFrame] | None:
    """Returns the rows of `key_frames.csv`; None if there is no such file.

    Raises:
        ValueError: If the file is broken, or contradicts itself.
    """
    path = run.file("predictions/key_frames.csv")
    if not os.path.exists(path):
        return None
    rows = []
    for values in tables.read_rows(path, _KEY_FRAME_COLUMNS, run):
        outcome = values.pop("outcome")
        rows.append(KeyFrame(**values))
        if outcome != rows[-1].outcome:
            raise tables.broken(
                path,
                f"frame {rows[-1].frame} of {rows[-1].video!r}: the outcome is "
                f"{outcome!r}, where label and is_anomalous make it "
                f"{rows[-1].outcome!r}",
                run,
            )
    return rows


def read_curves(run: RunFolder) -> dict[str, Curve] | None:
    """Returns the curves of `curves.json`; None in runs that have none.

    Returns:
        Curves by name, each only where it is defined. Of images `image_roc`,
        `image_precision_recall`, `pixel_roc`, `pixel_precision_recall` and
        `pro`. Of videos `frame_roc` and `frame_precision_recall` of the scores
        of whole videos, `streaming_roc` and `streaming_precision_recall`.

    Raises:
        ValueError: If the file is broken.
    """
    path = run.file("predictions/curves.json")
    if not os.path.exists(path):
        return None
    try:
        return {
            name: Curve(*(np.array(points[axis], "float64") for axis in "xy"))
            for name, points in tables.read_json(path, run).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise tables.broken(path, f"{error!r}", run) from error


def read_map(path: str) -> np.ndarray:
    """Returns an anomaly map `(height, width)` in float32.

    Args:
        path: A file that `write_map` has written.

    Raises:
        ValueError: If the file is broken.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise tables.broken(path, str(error)) from error
    if values.ndim != 2 or not np.isfinite(values).all():
        problem = "expected finite values of shape (height, width)"
        raise tables.broken(path, f"{problem}, got shape {values.shape}")
    return values.astype("float32")


def _check_count(
    what: str, count: int, metrics: dict[str, Any], run: RunFolder, path: str
) -> None:
    key = "num_test_images" if what == "images" else "num_scored_frames"
    expected = metrics.get(key, count)
    if expected != count:
        problem = f"{count} {what}, where metrics.json counts {expected}"
        raise tables.broken(path, problem, run)
