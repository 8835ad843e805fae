"""Frame labels in the formats that data sets of videos use."""

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import io as scipy_io

from keras_sspcab.data.video.folder import LabelSource
from keras_sspcab.data.video.per_frame import load_array

#: Extensions of files with labels, in any case.
LABEL_EXTENSIONS = (".npy", ".txt", ".csv", ".mat", ".m")

# A line of UCSD's scripts: TestVideoFile{end+1}.gt_frame = [1:40 77:120];
_UCSD_LINE = re.compile(r"gt_frame\s*=\s*\[([^\]]*)\]")


def read_labels(source: LabelSource, num_frames: int) -> np.ndarray:
    """Reads the labels of the frames of one video.

    | file | content |
    |---|---|
    | `.npy` | one number a frame: 0 normal, 1 abnormal |
    | `.txt`, `.csv` | one number a frame, separated by lines, commas or spaces; or with a header `label`, `frame,label` or `start,end` |
    | `.mat` | one number a frame; or intervals `(2, n)`, in a cell for each video if there are several (`gt`) |
    | `.m` | UCSD's script: intervals after `gt_frame =` |

    Frames of `frame,label` and `start,end` count from 0, those of `.mat` and
    `.m` from 1, as in MATLAB. The end of an interval belongs to it.

    Returns:
        uint8 array `(num_frames,)` of 0 and 1.
    """  # noqa: E501
    path = source.path
    extension = os.path.splitext(path)[1].lower()
    first = 0
    # Intervals are arrays (n, 2), labels (n,).
    if source.entry is not None or extension == ".m":
        values, first = _entry_of(path, source.entry), 1
    elif extension == ".npy":
        values = read_vector(path)
    elif extension in (".txt", ".csv"):
        values = _read_text(path)
    elif extension == ".mat":
        values, first = _read_mat(path), 1
    else:
        raise ValueError(
            "Labels must be in a file with one of the extensions "
            f"{' '.join(LABEL_EXTENSIONS)}. Received: {path!r}"
        )
    if values.ndim == 2:
        return _label_intervals(values, num_frames, path, first)
    if source.offset is not None:
        values = values[source.offset : source.offset + num_frames]
    if values.shape != (num_frames,):
        raise ValueError(
            f"There must be one label a frame. Received: {values.size} labels "
            f"in {path!r} for a video of {num_frames} frames"
        )
    wrong = np.flatnonzero(~np.isin(values, (0, 1)))
    if wrong.size:
        raise ValueError(
            "A label must be 0 (normal) or 1 (abnormal). Received: "
            f"{values[wrong[0]]} at frame {wrong[0]} in {path!r}"
        )
    return values.astype("uint8")


def read_interval_lists(path: str) -> list[np.ndarray]:
    """Reads the intervals of several videos from a `.mat` or `.m` file.

    They are `(n, 2)` for each video: first and last abnormal frames, from 1.
    """
    if path.lower().endswith(".m"):
        return _parse_script(path)
    cells = load_mat(path).get("gt")
    if cells is None or cells.dtype != object:
        raise ValueError(
            "A file with the intervals of several videos must hold the cell "
            f"`gt`. Received: {path!r}"
        )
    return [_pairs(cell, path) for cell in cells.ravel()]


def read_vector(path: str) -> np.ndarray:
    """Reads an `.npy` file with one number a frame, of any shape."""
    values = load_array(path, "labels")
    if values.size != max(values.shape, default=1):
        raise ValueError(
            "Frame labels must be one number a frame. Received: an array of "
            f"shape {values.shape} in {path!r}"
        )
    return np.array(values).ravel()


def load_mat(path: str) -> dict[str, Any]:
    """Returns the variables of a MATLAB file."""
    content = _read_matlab(scipy_io.loadmat, path)
    return {k: v for k, v in content.items() if not k.startswith("__")}


def mat_names(path: str) -> list[str]:
    """Returns the names of the variables of a MATLAB file."""
    return [name for name, _, _ in _read_matlab(scipy_io.whosmat, path)]


def _read_matlab(read: Callable[[str], Any], path: str) -> Any:
    try:
        return read(path)
    except NotImplementedError as error:
        raise ValueError(
            f"{path!r} is a MATLAB file of version 7.3. Save it again in "
            "MATLAB with the option '-v7'."
        ) from error
    except Exception as error:
        # Broken files raise many types.
        raise ValueError(f"Cannot read {path!r}: {error}") from error


def _entry_of(path: str, entry: int | None) -> np.ndarray:
    intervals = read_interval_lists(path)
    if entry is None and len(intervals) == 1:
        entry = 0
    if entry is None or entry >= len(intervals):
        raise ValueError(
            f"There must be intervals of the video in {path!r}, which lists "
            f"{len(intervals)} videos from 0 on. Received: entry={entry}. Say "
            "which one by LabelSource(path, entry=...)."
        )
    return intervals[entry]


def _read_mat(path: str) -> np.ndarray:
    arrays = {
        name: value
        for name, value in load_mat(path).items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    }
    if len(arrays) != 1:
        raise ValueError(
            "A file with the labels of one video must hold a single array. "
            f"Received: {sorted(arrays)} in {path!r}"
        )
    (values,) = arrays.values()
    is_vector = values.size == max(values.shape) != 2
    return values.ravel() if is_vector else _pairs(values, path)


def _pairs(values: Any, path: str) -> np.ndarray:
    """Returns starts and ends, one pair a row, from MATLAB's `(2, n)`."""
    values = np.asarray(values)
    if not values.size:
        return np.empty((0, 2), "int64")
    if values.ndim != 2 or 2 not in values.shape:
        raise ValueError(
            "Intervals must be an array (2, n) of starts and ends. Received: "
            f"shape {values.shape} in {path!r}"
        )
    return values.T if values.shape[0] == 2 else values


def _parse_script(path: str) -> list[np.ndarray]:
    videos = []
    for text in _UCSD_LINE.findall(_read(path)):
        pairs = [
            [int(number) for number in part.split(":")]
            for part in re.findall(r"\d+(?:\s*:\s*\d+)?", text)
        ]
        # A single number is an interval of one frame.
        videos.append(
            np.array([[p[0], p[-1]] for p in pairs], "int64").reshape(-1, 2)
        )
    if not videos:
        raise ValueError(
            "There must be lines such as gt_frame = [1:40 77:120]; "
            f"Received: none in {path!r}"
        )
    return videos


def _read_text(path: str) -> np.ndarray:
    """Reads numbers, or the columns `label`, `frame,label` or `start,end`."""
    lines = _read(path).splitlines()
    cells = (re.findall(r"[^,;\s\"]+", line) for line in lines)
    rows = [row for row in cells if row]
    header: tuple[str, ...] = ()
    if rows and re.search("[A-Za-z]", "".join(rows[0])):
        header = tuple(cell.lower() for cell in rows.pop(0))
    widths = {len(row) for row in rows}
    try:
        values = np.array([float(cell) for row in rows for cell in row])
    except ValueError as error:
        raise ValueError(f"Cannot read the labels {path!r}: {error}") from error
    if not header and widths != {2}:
        return values
    if header not in (("label",), ("frame", "label"), ("start", "end")):
        raise ValueError(
            "The header must be `label`, `frame,label` or `start,end`; one "
            "column needs none. "
            f"Received: {','.join(header) or 'none'!r} in {path!r}"
        )
    if widths - {len(header)}:
        raise ValueError(
            f"Each line must have the columns {','.join(header)}. Received: "
            f"{path!r} with another number of them"
        )
    values = values.reshape(len(rows), len(header))
    if header != ("frame", "label"):
        return values if len(header) == 2 else values[:, 0]
    values = values[np.argsort(values[:, 0], kind="stable")]
    is_wrong = values[:, 0] != np.arange(len(values))
    if is_wrong.any():
        raise ValueError(
            "The column `frame` must count all frames from 0. Received: "
            f"{path!r}, where frame {int(np.argmax(is_wrong))} is missing or "
            "listed twice"
        )
    return values[:, 1]


def _label_intervals(
    pairs: np.ndarray, num_frames: int, path: str, first: int
) -> np.ndarray:
    """Labels frames in intervals, which count from `first`."""
    labels = np.zeros(num_frames, "uint8")
    for start, end in pairs:
        last = num_frames - 1 + first
        if start % 1 or end % 1 or not first <= start <= end <= last:
            raise ValueError(
                "An interval of abnormal frames must lie within the video, "
                f"whose frames count from {first} to {last}. Received: "
                f"{start:g} to {end:g} in {path!r}"
            )
        labels[int(start) - first : int(end) - first + 1] = 1
    return labels


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Cannot read {path!r}: {error}") from error
