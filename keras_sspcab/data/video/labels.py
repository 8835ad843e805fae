"""Frame labels in the formats that data sets of videos use."""

import os
import re
from typing import Any

import numpy as np

from keras_sspcab.data.video.folder import LabelSource
from keras_sspcab.data.video.mat_files import load_mat
from keras_sspcab.data.video.per_frame import load_array

#: Extensions of files with labels, in any case.
LABEL_EXTENSIONS = (".npy", ".txt", ".csv", ".mat", ".m")

# In UCSD's scripts: TestVideoFile{end+1}.gt_frame = [1:40 77:120];
_UCSD_LINE = re.compile(r"gt_frame\s*=\s*(\[[^\]]*\][^;\n]*|[^;\n]*)")

# The columns of text, in lower case. Programs that write tables number the rows
# in a column without a name, and call one without a name 0.
_FRAME_NAMES = ("frame", "frame_id", "index", "unnamed: 0", "")
_LABEL_NAMES = (
    *("label", "labels", "gt", "ground_truth", "anomaly", "is_anomaly"),
    *("anomalous", "is_anomalous", "abnormal", "is_abnormal", "0"),
)
_WORDS = {"true": 1, "yes": 1, "false": 0, "no": 0}


def read_labels(source: LabelSource, num_frames: int) -> np.ndarray:
    """Reads the labels of the frames of one video.

    | file | content |
    |---|---|
    | `.npy` | one number a frame: 0 normal, 1 abnormal |
    | `.txt`, `.csv` | one number, or True or False, a frame, between lines, semicolons, tabs, commas or spaces; or columns with a header: `label`; `frame` and `label`; `start` and `end` |
    | `.mat` | one number a frame; or intervals `(2, n)`, in a cell for each video if there are several (`gt`) |
    | `.m` | UCSD's script: intervals after `gt_frame =` |

    Columns `frame` and `label` list all frames, from 0 or from 1 on, and need
    no header then. Frames of `start` and `end` count from 0, those of `.mat`
    and `.m` from 1, as in MATLAB. The end of an interval belongs to it.

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
    # MATLAB's [] is of no interval, as its zeros(2, 0).
    is_vector = 0 < values.size == max(values.shape) != 2
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
    # Without comments; lines may go on after dots.
    text = re.sub(r"\.\.\..*\n", " ", re.sub("%.*", "", _read(path)))
    videos = []
    for given in _UCSD_LINE.findall(text):
        inner = re.sub(r"^\[(.*)\]\s*$", r"\1", given, flags=re.DOTALL)
        parts = re.sub(r"\s*:\s*", ":", inner).replace(",", " ").split()
        if wrong := [p for p in parts if not re.fullmatch(r"\d+(:\d+)?", p)]:
            raise ValueError(
                "Intervals must be numbers such as [1:40 77:120]. Received: "
                f"{wrong[0]!r} in {given!r} in {path!r}"
            )
        # A single number is an interval of one frame.
        ends = [list(map(int, part.split(":"))) for part in parts]
        videos.append(
            np.array([[e[0], e[-1]] for e in ends], "int64").reshape(-1, 2)
        )
    if not videos:
        raise ValueError(
            "There must be lines such as gt_frame = [1:40 77:120]; "
            f"Received: none in {path!r}"
        )
    return videos


def _read_text(path: str) -> np.ndarray:
    """Returns labels `(n,)`, or intervals `(n, 2)` of columns start and end."""
    lines = {
        number: line.rstrip(" \t,;")
        for number, line in enumerate(_read(path).splitlines(), 1)
        # Comments as NumPy writes them.
        if line.strip(" \t,;") and not line.lstrip().startswith("#")
    }
    content = "".join(lines.values())
    separator = next((c for c in ";\t," if c in content), None)
    rows = {
        number: [cell.strip(' "') for cell in line.split(separator)]
        for number, line in lines.items()
    }

    def fault(line: int, what: str) -> ValueError:
        return ValueError(
            f"Cannot read the labels {path!r}, line {line}: {what}. There must "
            "be one number (0 normal, 1 abnormal), or True or False, a frame; "
            "or columns with a header: label; frame and label; or start and end"
        )

    header: list[str] = []
    first = min(rows, default=0)
    if rows and any(
        _value(cell) is None and (cell == "" or re.search("[A-Za-z]", cell))
        for cell in rows[first]
    ):
        header = [cell.lower() for cell in rows.pop(first)]
    for line, row in rows.items():
        if header and len(row) != len(header):
            raise fault(line, f"{len(row)} cells in {len(header)} columns")
        if wrong := [cell for cell in row if _value(cell) is None]:
            raise fault(line, f"{wrong[0][:40]!r} is no number")
    values = np.array([_value(cell) for row in rows.values() for cell in row])
    if not header:
        if {len(row) for row in rows.values()} != {2}:
            return values
        counts = values[::2] - np.arange(len(rows))
        # Intervals cannot be such.
        if len(rows) < 3 or {*counts} not in ({0.0}, {1.0}):
            raise fault(first, "two columns without a header")
        header = ["frame", "label"]
    table = values.reshape(len(rows), len(header)).T.astype("float64")
    columns = dict(zip(header, table, strict=True))
    others = sorted(columns.keys() - {*_FRAME_NAMES})
    if others == ["end", "start"]:
        return np.stack([columns["start"], columns["end"]], axis=1)
    if len(columns) < len(header) or others not in [[n] for n in _LABEL_NAMES]:
        raise fault(first, f"columns {', '.join(map(repr, header))}")
    labels = columns[others[0]]
    if not (names := [name for name in _FRAME_NAMES if name in columns]):
        return labels
    order = np.argsort(columns[names[0]], kind="stable")
    frames = columns[names[0]][order]
    start = int(frames.size > 0 and frames[0] == 1)
    wrong_frames = np.flatnonzero(frames != start + np.arange(frames.size))
    if wrong_frames.size:
        raise ValueError(
            f"The column {names[0]!r} must count all frames from 0 or 1. "
            f"Received: {path!r}, where frame {start + wrong_frames[0]} is "
            "missing or listed twice"
        )
    return labels[order]


def _value(cell: str) -> float | None:
    """Returns a number or a word as a number; None for others."""
    try:
        return float(_WORDS.get(cell.lower(), cell))
    except ValueError:
        return None


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
