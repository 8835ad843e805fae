"""Frame labels in the formats that data sets of videos use."""

import csv
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import io as scipy_io

from keras_sspcab.data.video.folder import LabelSource

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

    Args:
        source: Where the labels are.
        num_frames: Frames of the video.

    Returns:
        uint8 array `(num_frames,)` of 0 and 1.

    Raises:
        ValueError: If the file cannot be read, or does not hold labels for
            `num_frames` frames.
    """  # noqa: E501
    if source.entry is not None:
        intervals = read_interval_lists(source.path)
        if source.entry >= len(intervals):
            raise ValueError(
                f"{source.path!r} lists {len(intervals)} videos, but number "
                f"{source.entry + 1} is asked for."
            )
        return _from_intervals(
            intervals[source.entry], num_frames, source.path, first=1
        )
    readers = {
        "npy": _read_npy,
        "txt": _read_text,
        "csv": _read_text,
        "mat": _read_mat,
        "m": _read_script,
    }
    extension = source.path.rpartition(".")[2].lower()
    if extension not in readers:
        raise ValueError(
            "Labels must be in a file with one of the extensions "
            f"{' '.join(LABEL_EXTENSIONS)}. Received: {source.path!r}"
        )
    labels = readers[extension](source.path, num_frames)
    if source.offset is not None:
        labels = labels[source.offset : source.offset + num_frames]
    if labels.shape != (num_frames,):
        raise ValueError(
            f"There must be one label a frame. Received: {labels.size} labels "
            f"in {source.path!r} for a video of {num_frames} frames"
        )
    return _standardize(labels, source.path)


def read_interval_lists(path: str) -> list[np.ndarray]:
    """Reads the intervals of abnormal frames of several videos.

    Args:
        path: A `.mat` file with the cell `gt`, as Liu et al. publish it, or a
            `.m` file of UCSD.

    Returns:
        An integer array `(n, 2)` for each video: first and last frames, from 1.

    Raises:
        ValueError: If the file is of another kind.
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
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"Cannot read the labels {path!r}: {error}") from error
    if values.size != max(values.shape, default=1):
        raise ValueError(
            "Frame labels must be one number a frame. Received: an array of "
            f"shape {values.shape} in {path!r}"
        )
    return values.ravel()


def load_mat(path: str) -> dict[str, Any]:
    """Returns the variables of a MATLAB file.

    Raises:
        ValueError: If it cannot be read.
    """
    content = _read_matlab(scipy_io.loadmat, path)
    return {k: v for k, v in content.items() if not k.startswith("__")}


def mat_names(path: str) -> list[str]:
    """Returns the names of the variables of a MATLAB file.

    Raises:
        ValueError: If it cannot be read.
    """
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


# === Formats ===


def _read_npy(path: str, num_frames: int) -> np.ndarray:
    return read_vector(path)


def _read_mat(path: str, num_frames: int) -> np.ndarray:
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
    values = next(iter(arrays.values()))
    is_vector = values.size == max(values.shape)
    if is_vector and values.size != 2:
        return values.ravel()
    return _from_intervals(_pairs(values, path), num_frames, path, first=1)


def _read_script(path: str, num_frames: int) -> np.ndarray:
    intervals = _parse_script(path)
    if len(intervals) != 1:
        raise ValueError(
            f"{path!r} lists {len(intervals)} videos: say which one by "
            "LabelSource(path, entry=...)."
        )
    return _from_intervals(intervals[0], num_frames, path, first=1)


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


def _read_text(path: str, num_frames: int) -> np.ndarray:
    lines = [line.strip() for line in _read(path).splitlines()]
    rows = [line for line in lines if line]
    if rows and re.search("[A-Za-z]", rows[0]):
        return _read_table(path, rows, num_frames)
    numbers = [
        text for row in rows for text in re.split(r"[,;\s]+", row) if text
    ]
    if {len(re.findall(r"[^,;\s]+", row)) for row in rows} == {2}:
        raise ValueError(
            f"Two columns need a header: `frame,label` or `start,end`. "
            f"Received: {rows[0]!r} in {path!r}"
        )
    return _to_numbers(numbers, path)


def _read_table(path: str, rows: list[str], num_frames: int) -> np.ndarray:
    lines = list(csv.reader(rows))
    header = tuple(name.strip().lower() for name in lines[0])
    body = lines[1:]
    if any(len(line) != len(header) for line in body):
        raise ValueError(
            f"Each line must have the columns {','.join(header)}. Received: "
            f"{path!r} with another number of them"
        )
    values = _to_numbers([text for line in body for text in line], path)
    columns = values.reshape(len(body), len(header))
    if header == ("label",):
        return columns[:, 0]
    if header == ("start", "end"):
        return _from_intervals(columns, num_frames, path, first=0)
    if header == ("frame", "label"):
        order = np.argsort(columns[:, 0], kind="stable")
        frames = columns[order, 0]
        if not np.array_equal(frames, np.arange(len(frames))):
            raise ValueError(
                "The column `frame` must count all frames from 0. Received: "
                f"{path!r}, where frame {_first_gap(frames)} is missing or "
                "listed twice"
            )
        return columns[order, 1]
    raise ValueError(
        "The header must be `label`, `frame,label` or `start,end`. "
        f"Received: {rows[0]!r} in {path!r}"
    )


# === Checks ===


def _standardize(labels: np.ndarray, path: str) -> np.ndarray:
    wrong = ~np.isin(labels, (0, 1))
    if wrong.any():
        frame = int(np.argmax(wrong))
        raise ValueError(
            "A label must be 0 (normal) or 1 (abnormal). Received: "
            f"{labels[frame]} at frame {frame} in {path!r}"
        )
    return labels.astype("uint8")


def _from_intervals(
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


def _pairs(values: Any, path: str) -> np.ndarray:
    """Starts and ends, one pair a row, from MATLAB's `(2, n)`."""
    values = np.asarray(values)
    if not values.size:
        return np.empty((0, 2), "int64")
    if values.ndim != 2 or 2 not in values.shape:
        raise ValueError(
            "Intervals must be an array (2, n) of starts and ends. Received: "
            f"shape {values.shape} in {path!r}"
        )
    return values.T if values.shape[0] == 2 else values


def _to_numbers(texts: list[str], path: str) -> np.ndarray:
    try:
        return np.array([float(text) for text in texts])
    except ValueError as error:
        raise ValueError(f"Cannot read the labels {path!r}: {error}") from error


def _first_gap(frames: np.ndarray) -> int:
    gaps = frames != np.arange(len(frames))
    return int(np.argmax(gaps))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Cannot read {path!r}: {error}") from error
