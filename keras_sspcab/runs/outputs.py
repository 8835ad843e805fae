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

import csv
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from keras_sspcab.metrics import Curve
from keras_sspcab.runs import files
from keras_sspcab.runs.folder import RunFolder

__all__ = [
    "OUTCOMES",
    "FrameScore",
    "ImageScore",
    "KeyFrame",
    "read_curves",
    "read_frame_scores",
    "read_image_scores",
    "read_key_frames",
    "read_map",
    "read_metrics",
    "write_curves",
    "write_frame_scores",
    "write_image_scores",
    "write_key_frames",
    "write_map",
]

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

_EVALUATE = "keras-sspcab evaluate"
_FLAGS = {"1": True, "0": False, "true": True, "false": False}

_IMAGE_COLUMNS = (
    *("path", "label", "defect", "anomaly_score", "is_anomalous"),
    *("raw_score", "mask_path", "map_file"),
)
_FRAME_COLUMNS = (
    *("video", "frame", "label", "anomaly_score", "is_anomalous"),
    *("raw_score", "video_score"),
)
_KEY_FRAME_COLUMNS = (
    *("video", "frame", "label", "outcome", "anomaly_score", "is_anomalous"),
    *("image_file", "map_file", "mask_file"),
)
# What other programs that write such files may leave out.
_OPTIONAL = {"raw_score", "mask_path", "map_file", "mask_file"}

Row = TypeVar("Row")


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
    _write_rows(
        folder,
        "scores.csv",
        _IMAGE_COLUMNS,
        (
            {
                **_common_cells(row),
                "path": row.path,
                "defect": row.defect,
                "raw_score": row.raw_score,
                "mask_path": row.mask_path,
                "map_file": _relative(row.map_path, folder),
            }
            for row in rows
        ),
    )


def write_frame_scores(folder: str, rows: Iterable[FrameScore]) -> None:
    """Writes `scores.csv` of the frames of videos.

    Args:
        folder: The folder of predictions.
        rows: One for each scored frame, by video and in order.
    """
    _write_rows(
        folder,
        "scores.csv",
        _FRAME_COLUMNS,
        (
            {
                **_common_cells(row),
                "video": row.video,
                "frame": row.frame,
                "raw_score": row.raw_score,
                "video_score": row.video_score,
            }
            for row in rows
        ),
    )


def write_key_frames(folder: str, rows: Iterable[KeyFrame]) -> None:
    """Writes `key_frames.csv`.

    Args:
        folder: The folder of predictions; pictures, maps and masks lie in it.
        rows: The key frames, in the order in which they are shown.
    """
    _write_rows(
        folder,
        "key_frames.csv",
        _KEY_FRAME_COLUMNS,
        (
            {
                **_common_cells(row),
                "video": row.video,
                "frame": row.frame,
                "outcome": row.outcome,
                "image_file": _relative(row.path, folder),
                "map_file": _relative(row.map_path, folder),
                "mask_file": _relative(row.mask_path, folder),
            }
            for row in rows
        ),
    )


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


def _write_rows(
    folder: str,
    name: str,
    columns: tuple[str, ...],
    rows: Iterable[dict[str, Any]],
) -> None:
    files.write_csv(os.path.join(folder, name), columns, rows)


def _common_cells(row: ImageScore | FrameScore | KeyFrame) -> dict[str, Any]:
    return {
        "label": row.label,
        "anomaly_score": row.score,
        "is_anomalous": int(row.is_anomalous),
    }


def _relative(path: str | None, folder: str) -> str | None:
    if path is None:
        return None
    return os.path.relpath(path, folder).replace(os.sep, "/")


# === Reading ===


def read_metrics(run: RunFolder) -> dict[str, Any]:
    """Returns the content of `metrics.json`.

    Raises:
        ValueError: If the file is missing or broken. The message names the
            file and the command that writes it, here as for all files below.
    """
    path = run.require("metrics.json", _command(run))
    metrics = _read_json(path, run)
    if not isinstance(metrics, dict):
        raise _broken(path, "expected one object of metrics", run)
    return metrics


def read_image_scores(run: RunFolder) -> list[ImageScore]:
    """Returns the rows of `scores.csv` of a run that was evaluated on images.

    Raises:
        ValueError: If the file is missing, broken, or not that of the metrics.
    """
    path = run.require("predictions/scores.csv", _command(run))

    def parse(row: dict[str, str]) -> ImageScore:
        return ImageScore(
            path=row["path"],
            label=_parse_label(row),
            defect=row["defect"] or "",
            score=_parse_number(row, "anomaly_score"),
            is_anomalous=_parse_flag(row),
            raw_score=_parse_optional(row, "raw_score"),
            mask_path=row.get("mask_path") or None,
            map_path=_find_file(row, "map_file", path),
        )

    rows = list(_read_rows(path, _IMAGE_COLUMNS, run, parse))
    _check_count("images", len(rows), "num_test_images", run, path)
    return rows


def read_frame_scores(run: RunFolder) -> dict[str, list[FrameScore]]:
    """Returns the rows of `scores.csv` of a run that was evaluated on videos.

    Returns:
        The scored frames of each video by its name, in the order of the file.

    Raises:
        ValueError: If the file is missing, broken, or not that of the metrics.
    """
    path = run.require("predictions/scores.csv", _command(run))
    frames: dict[str, list[FrameScore]] = {}

    def parse(row: dict[str, str]) -> FrameScore:
        score = FrameScore(
            video=row["video"],
            frame=_parse_frame(row),
            label=_parse_label(row),
            score=_parse_number(row, "anomaly_score"),
            is_anomalous=_parse_flag(row),
            raw_score=_parse_optional(row, "raw_score"),
            video_score=_parse_number(row, "video_score"),
        )
        if not score.video:
            raise ValueError("the video has no name")
        if score.video not in frames:
            frames[score.video] = []
        elif score.video != next(reversed(frames)):
            raise ValueError(f"video {score.video!r} is not in one piece")
        elif score.frame <= (last := frames[score.video][-1].frame):
            raise ValueError(f"frame {score.frame} follows frame {last}")
        frames[score.video].append(score)
        return score

    count = sum(1 for _ in _read_rows(path, _FRAME_COLUMNS, run, parse))
    _check_count("frames of all videos", count, "num_scored_frames", run, path)
    for name, metrics in (read_metrics(run).get("per_video") or {}).items():
        count = len(frames.get(name, ()))
        if metrics.get("num_scored_frames", count) != count:
            expected = metrics["num_scored_frames"]
            raise _miscounted(f"frames of {name}", count, expected, run, path)
    return frames


def read_key_frames(run: RunFolder) -> list[KeyFrame] | None:
    """Returns the rows of `key_frames.csv`; None if there is no such file.

    Raises:
        ValueError: If the file is broken, or contradicts itself.
    """
    path = run.file("predictions/key_frames.csv")
    if not os.path.exists(path):
        return None

    def parse(row: dict[str, str]) -> KeyFrame:
        mask = row.get("mask_file")
        folder = os.path.dirname(path)
        key_frame = KeyFrame(
            video=row["video"],
            frame=_parse_frame(row),
            label=_parse_label(row),
            score=_parse_number(row, "anomaly_score"),
            is_anomalous=_parse_flag(row),
            path=os.path.join(folder, row["image_file"]),
            mask_path=os.path.join(folder, mask) if mask else None,
            map_path=_find_file(row, "map_file", path),
        )
        if row["outcome"] != key_frame.outcome:
            raise ValueError(
                f"the outcome is {row['outcome']!r}, where label and "
                f"is_anomalous make it {key_frame.outcome!r}"
            )
        return key_frame

    return list(_read_rows(path, _KEY_FRAME_COLUMNS, run, parse))


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
            for name, points in _read_json(path, run).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise _broken(path, f"{error!r}", run) from error


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
        raise _broken(path, str(error)) from error
    if values.ndim != 2 or not np.isfinite(values).all():
        problem = "expected finite values of shape (height, width)"
        raise _broken(path, f"{problem}, got shape {values.shape}")
    return values.astype("float32")


def _command(run: RunFolder) -> str:
    return f"{_EVALUATE} {run.path}"


def _broken(
    path: str, problem: str, run: RunFolder | None = None
) -> ValueError:
    command = _EVALUATE if run is None else _command(run)
    return ValueError(f"{path} is broken: {problem}. Write it with `{command}`")


def _read_json(path: str, run: RunFolder) -> Any:
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise _broken(path, f"no valid JSON: {error}", run) from error


def _read_rows(
    path: str,
    columns: tuple[str, ...],
    run: RunFolder,
    parse: Callable[[dict[str, str]], Row],
) -> Iterator[Row]:
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            missing = {*columns} - _OPTIONAL - {*(reader.fieldnames or ())}
            if missing:
                names = ", ".join(sorted(missing))
                raise _broken(path, f"no column {names}", run)
            for row in reader:
                try:
                    parsed = parse(row)
                except (AttributeError, KeyError, TypeError, ValueError) as e:
                    place = f"line {reader.line_num}"
                    raise _broken(path, f"{place}: {e}", run) from e
                yield parsed
        except (csv.Error, UnicodeDecodeError) as error:
            place = f"after line {reader.line_num}"
            raise _broken(path, f"{place}: {error}", run) from error


def _check_count(
    what: str, count: int, key: str, run: RunFolder, path: str
) -> None:
    expected = read_metrics(run).get(key, count)
    if expected != count:
        raise _miscounted(what, count, expected, run, path)


def _miscounted(
    what: str, count: int, expected: int, run: RunFolder, path: str
) -> ValueError:
    problem = f"{count} {what}, where metrics.json counts {expected}"
    return _broken(path, problem, run)


def _parse_number(row: dict[str, str], column: str) -> float:
    value = float(row[column])
    if not math.isfinite(value):
        raise ValueError(f"the {column} is {value}")
    return value


def _parse_optional(row: dict[str, str], column: str) -> float | None:
    return _parse_number(row, column) if row.get(column) else None


def _parse_label(row: dict[str, str]) -> int | None:
    label = int(row["label"]) if row["label"] else None
    if label not in (None, 0, 1):
        raise ValueError(f"the label must be 0, 1 or empty, not {label}")
    return label


def _parse_flag(row: dict[str, str]) -> bool:
    flag = _FLAGS.get(row["is_anomalous"].lower())
    if flag is None:
        raise ValueError(
            f"is_anomalous must be 0 or 1, not {row['is_anomalous']!r}"
        )
    return flag


def _parse_frame(row: dict[str, str]) -> int:
    frame = int(row["frame"])
    if frame < 0:
        raise ValueError(f"the frame is {frame}")
    return frame


def _find_file(row: dict[str, str], column: str, csv_path: str) -> str | None:
    """Returns the path of a file beside the table, None if it is not there."""
    name = row.get(column)
    path = os.path.join(os.path.dirname(csv_path), name) if name else ""
    return path if os.path.exists(path) else None
