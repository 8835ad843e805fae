"""The files that an evaluation leaves in a run folder: their only writer.

All lie in `predictions/`, but for `metrics.json`:

    scores.csv            one row for each test image or scored frame of video
    maps/000000.npy       anomaly maps of images, in half precision; where
                          parts are aligned, 000000-regions.npy as well
    curves.json           ROC, precision-recall and PRO curves
    key_frames.csv        of videos: the frames that are worth a look, with
    key_frames/           their pictures, anomaly maps and masks
    detections/, tracks/  of videos: regions, see `keras_sspcab.metrics`

Runs of earlier versions have no `curves.json`. What is read raises a ValueError
where a file is missing or broken: it names the file and the command that writes
it.
"""

import csv
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from keras_sspcab import files
from keras_sspcab.metrics import Curve
from keras_sspcab.runs.folder import RunFolder

_EVALUATE = "keras-sspcab evaluate"
_ADVICE = f"Write it again with `{_EVALUATE}`"

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

Number = TypeVar("Number", int, float)


def intervals(
    marked: Iterable[tuple[Number, Any]],
) -> list[tuple[Number, Number]]:
    """Returns first and last number of each stretch of marked ones."""
    stretches = []
    for is_inside, group in itertools.groupby(
        marked, key=lambda pair: bool(pair[1])
    ):
        numbers = [number for number, _ in group]
        if is_inside:
            stretches.append((numbers[0], numbers[-1]))
    return stretches


# === Rows ===

_NONE_IF_EMPTY = BeforeValidator(lambda cell: None if cell == "" else cell)
_Name = Annotated[str, Field(min_length=1)]
_Position = Annotated[int, Field(ge=0)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_OptionalNumber = Annotated[_Number | None, _NONE_IF_EMPTY]
_OptionalPath = Annotated[str | None, _NONE_IF_EMPTY]
# 1 abnormal, 0 normal, None unknown.
_Label = Annotated[Annotated[int, Field(ge=0, le=1)] | None, _NONE_IF_EMPTY]


# What other programs that write such tables may leave out.
_OPTIONAL = {"raw_score", "mask_path", "map_file", "mask_file"}


class _Row:
    """A row of a table: fields in the order of its columns."""

    #: The table, in the folder of predictions.
    file = "scores.csv"
    #: Columns that are called otherwise than the field. Those that end in
    #: `_file` hold paths relative to the table.
    names: ClassVar = {"score": "anomaly_score", "map_path": "map_file"}
    map_path: str | None

    @classmethod
    def columns(cls) -> dict[str, str]:
        """Returns the names of the fields by those of the columns."""
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        return {cls.names.get(f.name, f.name): f.name for f in fields}

    def load_map(self) -> np.ndarray | None:
        """Returns the anomaly map `(height, width)` in float32, or None."""
        return None if self.map_path is None else read_map(self.map_path)


@dataclasses.dataclass(frozen=True)
class ImageScore(_Row):
    """The scores of one test image.

    Scores are in standard deviations above the mean of normal images, raw ones
    as they were before calibration. `defect` is `"good"` for normal images and
    may be empty; the paths are those of the image, the ground truth and the
    anomaly map.
    """

    path: _Name
    label: _Label
    defect: str
    score: _Number
    is_anomalous: bool
    raw_score: _OptionalNumber = None
    mask_path: _OptionalPath = None
    map_path: _OptionalPath = None

    def load_regions(self) -> np.ndarray | None:
        """Returns which pixels of the map count, bool, or None for all."""
        path = None if self.map_path is None else _regions_path(self.map_path)
        if path is None or not os.path.exists(path):
            return None
        return np.asarray(np.load(path, allow_pickle=False), bool)


@dataclasses.dataclass(frozen=True)
class FrameScore(_Row):
    """The scores of one frame of a video, which counts from 0.

    `score` and `raw_score` are streaming scores; `video_score` is normalized
    and smoothed over the whole video.
    """

    video: _Name
    frame: _Position
    label: _Label
    score: _Number
    is_anomalous: bool
    raw_score: _OptionalNumber
    video_score: _Number


@dataclasses.dataclass(frozen=True)
class KeyFrame(_Row):
    """A frame that is worth a look, as a picture.

    `outcome` is what became of it, one of the values of `OUTCOMES`.
    """

    file = "key_frames.csv"
    names: ClassVar = {
        **_Row.names,
        "path": "image_file",
        "mask_path": "mask_file",
    }

    video: _Name
    frame: _Position
    label: _Label
    outcome: str = dataclasses.field(init=False)
    score: _Number
    is_anomalous: bool
    path: _Name
    map_path: _OptionalPath
    mask_path: _OptionalPath

    def __post_init__(self) -> None:
        outcome = OUTCOMES[self.label, self.is_anomalous]
        object.__setattr__(self, "outcome", outcome)


# === Writing, into the folder of predictions ===


def write_map(path: str, anomaly_map: np.ndarray) -> None:
    """Writes a map `(height, width)` as `.npy`, clipped to half precision."""
    limit = np.finfo("float16").max
    np.save(path, np.clip(anomaly_map, -limit, limit).astype("float16"))


def write_regions(map_path: str, counted: np.ndarray) -> None:
    """Writes which pixels of a map count, beside it."""
    np.save(_regions_path(map_path), np.asarray(counted, bool))


def _regions_path(map_path: str) -> str:
    return f"{os.path.splitext(map_path)[0]}-regions.npy"


def write_rows(folder: str, kind: type[_Row], rows: Iterable[_Row]) -> None:
    """Writes the table of a kind of rows; frames by video and in order."""

    def cell(row: _Row, column: str, name: str) -> Any:
        value = getattr(row, name)
        if column.endswith("_file") and value is not None:
            return os.path.relpath(value, folder).replace(os.sep, "/")
        return int(value) if isinstance(value, bool) else value

    columns = kind.columns()
    files.write_csv(
        os.path.join(folder, kind.file),
        list(columns),
        (
            {
                column: cell(row, column, name)
                for column, name in columns.items()
            }
            for row in rows
        ),
    )


def write_curves(folder: str, curves: Mapping[str, Curve]) -> None:
    """Writes `curves.json`; see `read_curves`."""
    points = {
        name: {"x": curve.x.tolist(), "y": curve.y.tolist()}
        for name, curve in curves.items()
    }
    text = json.dumps(points, allow_nan=False)
    files.write_text(os.path.join(folder, "curves.json"), text + "\n")


# === Reading ===


def read_metrics(run: RunFolder) -> dict[str, Any]:
    """Returns the content of `metrics.json`."""
    path = run.require("metrics.json", f"{_EVALUATE} {run.path}")
    return files.read_json(path, _ADVICE)


def read_image_scores(run: RunFolder) -> list[ImageScore]:
    """Returns the rows of `scores.csv` of a run evaluated on images."""
    path = _scores_of(run)
    rows: list[ImageScore] = list(_read_rows(path, ImageScore))
    _check_count("images", len(rows), read_metrics(run), path)
    return rows


def read_frame_scores(run: RunFolder) -> dict[str, list[FrameScore]]:
    """Returns the rows of `scores.csv`, in order, by the names of videos."""
    path = _scores_of(run)
    frames: dict[str, list[FrameScore]] = {}
    for row in _read_rows(path, FrameScore):
        before = frames.setdefault(row.video, [])
        if row.video != next(reversed(frames)):
            problem = f"video {row.video!r} is not in one piece"
            raise _broken(path, problem)
        if before and row.frame <= before[-1].frame:
            raise _broken(
                path,
                f"frame {row.frame} of {row.video!r} follows frame "
                f"{before[-1].frame}",
            )
        before.append(row)
    metrics = read_metrics(run)
    total = sum(map(len, frames.values()))
    _check_count("frames of all videos", total, metrics, path)
    for name, of_video in (metrics.get("per_video") or {}).items():
        count = len(frames.get(name, ()))
        _check_count(f"frames of {name}", count, of_video, path)
    return frames


def read_key_frames(run: RunFolder) -> list[KeyFrame] | None:
    """Returns the rows of `key_frames.csv`; None if there is no such file."""
    path = run.file("predictions/key_frames.csv")
    if not os.path.exists(path):
        return None
    return list(_read_rows(path, KeyFrame))


def read_curves(run: RunFolder) -> dict[str, Curve] | None:
    """Returns the curves of `curves.json`; None in runs that have none.

    Each is there only where it is defined. Of images `image_roc`,
    `image_precision_recall`, `pixel_roc`, `pixel_precision_recall` and `pro`;
    of videos `frame_roc` and `frame_precision_recall` of the scores of whole
    videos, `streaming_roc` and `streaming_precision_recall`.
    """
    path = run.file("predictions/curves.json")
    if not os.path.exists(path):
        return None
    curves = files.read_json(path, _ADVICE)
    try:
        return {
            name: Curve(*np.array([points["x"], points["y"]], "float64"))
            for name, points in curves.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path, f"{error!r}") from error


def read_map(path: str) -> np.ndarray:
    """Returns an anomaly map `(height, width)` in float32."""
    try:
        values = np.asarray(np.load(path, allow_pickle=False), "float32")
    except FileNotFoundError:
        raise
    except Exception as error:  # what is broken raises errors of all kinds
        raise _broken(path, str(error)) from error
    if values.ndim != 2 or not np.isfinite(values).all():
        problem = "expected finite values of shape (height, width)"
        raise _broken(path, f"{problem}, got shape {values.shape}")
    return values


def _scores_of(run: RunFolder) -> str:
    return run.require("predictions/scores.csv", f"{_EVALUATE} {run.path}")


def _read_rows(path: str, kind: type[_Row]) -> Iterator[Any]:
    with open(path, "rb") as file:
        # The last number could be a shorter one otherwise.
        if not file.read().endswith(b"\n"):
            raise _broken(path, "it was cut off")
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            missing = (
                {*kind.columns()} - _OPTIONAL - {*(reader.fieldnames or ())}
            )
            if missing:
                names = ", ".join(sorted(missing))
                raise _broken(path, f"no column {names}")
            for cells in reader:
                yield _parse_row(kind, cells, path, reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            place = f"after line {reader.line_num}"
            raise _broken(path, f"{place}: {error}") from error


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _parse_row(
    kind: type[_Row], cells: Mapping[str, str], path: str, line: int
) -> Any:
    values, columns = {}, kind.columns()
    # What has too many cells, or too few, was cut off or run together.
    if None in cells or None in cells.values():
        raise _broken(path, f"line {line} has another number of cells")
    for column, name in columns.items():
        value = cells.get(column) or ""
        if column.endswith("_file") and value:
            value = os.path.join(os.path.dirname(path), value)
            if column == "map_file" and not os.path.exists(value):
                value = ""
        values[name] = value
    try:
        # Classes are hashed as such.
        row = _adapter(kind).validate_python(values)  # type: ignore[arg-type]
    except ValidationError as error:
        (field, *_), text = error.errors()[0]["loc"], error.errors()[0]["msg"]
        (column,) = (c for c, name in columns.items() if name == field)
        raise _broken(path, f"line {line}, {column}: {text}") from error
    if "outcome" in values and values["outcome"] != row.outcome:
        raise _broken(
            path,
            f"line {line}, outcome: {values['outcome']!r}, where label and "
            f"is_anomalous make it {row.outcome!r}",
        )
    return row


def _broken(path: str, problem: str) -> ValueError:
    return ValueError(f"{path} is broken: {problem}. {_ADVICE}")


def _check_count(
    what: str, count: int, metrics: dict[str, Any], path: str
) -> None:
    key = "num_test_images" if what == "images" else "num_scored_frames"
    expected = metrics.get(key, count)
    if expected != count:
        problem = f"{count} {what}, where metrics.json counts {expected}"
        raise _broken(path, problem)
