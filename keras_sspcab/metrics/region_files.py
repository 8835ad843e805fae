"""Text files of detections and tracks: one a video, as they are published.

Comma-separated numbers without a header. A file of detections has the columns
`frame, x_min, y_min, x_max, y_max, score`, one of tracks
`track, frame, x_min, y_min, x_max, y_max`. The file's name without `.txt` is
the video's name.
"""

import bisect
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_sspcab.metrics.region_tables import (
    DETECTION_COLUMNS,
    TRACK_COLUMNS,
    Table,
    find_fault,
    standardize_table,
)
from keras_sspcab.runs.files import replacing_folder

SUFFIX = ".txt"


def read_detections(folder: str | os.PathLike[str]) -> Table:
    """Reads a folder of detections, one text file a video.

    Args:
        folder: Path of the folder. Its files `VIDEO.txt` are read in the order
            of their names; empty ones are fine.

    Returns:
        Dict of arrays `(n,)`: `video` (names), `frame`, `x_min`, `y_min`,
        `x_max`, `y_max` and `score` (float64).

    Raises:
        ValueError: If the folder holds no text file, or if a line is not as
            described. The error names file and line.
    """
    return _read_folder(folder, DETECTION_COLUMNS)


def read_tracks(folder: str | os.PathLike[str]) -> Table:
    """Reads a folder of ground-truth tracks, one text file a video.

    Args:
        folder: Path of the folder. Its files `VIDEO.txt` are read in the order
            of their names. Videos without anomalies may have none.

    Returns:
        Dict of arrays `(n,)`: `video` (names), `track`, `frame`, `x_min`,
        `y_min`, `x_max` and `y_max` (float64).

    Raises:
        ValueError: If the folder holds no text file, if a line is not as
            described, or if a track has two boxes in a frame. The error names
            file and line.
    """
    return _read_folder(folder, TRACK_COLUMNS)


def write_detections(
    detections: Any,
    folder: str | os.PathLike[str],
    videos: Iterable[str] = (),
) -> None:
    """Writes detections as `read_detections` reads them, losing no digit.

    Reading puts the videos in the order of their files' names; it decides about
    equal scores in different videos.

    Args:
        detections: As for `rbdc_tbdc`.
        folder: Path of the folder to create. One that is there must be empty.
        videos: Names of videos that get a file even if it is empty.

    Raises:
        ValueError: If the folder is not empty, if a video's name is no file
            name, or if the detections are not as described.
    """
    table = standardize_table(detections, "detections", DETECTION_COLUMNS)
    _write_folder(table, folder, videos)


def write_tracks(tracks: Any, folder: str | os.PathLike[str]) -> None:
    """Writes tracks as `read_tracks` reads them, losing no digit.

    Args:
        tracks: As for `rbdc_tbdc`.
        folder: Path of the folder to create. One that is there must be empty.

    Raises:
        ValueError: If the folder is not empty, if a video's name is no file
            name, or if the tracks are not as described.
    """
    table = standardize_table(tracks, "tracks", TRACK_COLUMNS)
    _write_folder(table, folder, ())


def _read_folder(
    folder: str | os.PathLike[str], columns: tuple[str, ...]
) -> Table:
    folder = os.fspath(folder)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [name for name in names if name.endswith(SUFFIX)]
    if not names:
        raise ValueError(
            f"There must be text files, one a video. Received: {folder}, "
            f"without any file named *{SUFFIX}"
        )
    paths = [os.path.join(folder, name) for name in names]
    parts = [_read_file(path, columns[1:]) for path in paths]
    videos = [name.removesuffix(SUFFIX) for name in names]
    return {
        "video": np.repeat(videos, [len(part) for part in parts]),
        **dict(zip(columns[1:], np.concatenate(parts).T, strict=True)),
    }


def _read_file(path: str, columns: tuple[str, ...]) -> np.ndarray:
    # Bytes that are no text end up in the error about their line.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = [line.strip() for line in file]
    numbers = [number for number, line in enumerate(lines, 1) if line]
    rows = [line for line in lines if line]
    if not rows:
        return np.empty((0, len(columns)))
    values = _parse(rows, len(columns))
    if values is None:
        # The first row that makes the rows up to it unreadable.
        row = bisect.bisect_left(
            range(1, len(rows)),
            True,
            key=lambda end: _parse(rows[:end], len(columns)) is None,
        )
        raise ValueError(
            f"A line must hold the {len(columns)} numbers "
            f"{', '.join(columns)}, separated by commas. "
            f"Received: {rows[row]!r} in {path}, line {numbers[row]}"
        )
    table = dict(zip(columns, values.T, strict=True))
    fault = find_fault(table)
    if fault:
        row, problem = fault
        raise ValueError(
            "Each line must be a proper box. "
            f"Received: {problem} in {path}, line {numbers[row]}"
        )
    return values


def _parse(rows: list[str], num_columns: int) -> np.ndarray | None:
    try:
        values = np.loadtxt(rows, delimiter=",", comments=None, ndmin=2)
    except ValueError:
        return None
    return values if values.shape[1] == num_columns else None


def _write_folder(
    table: Table, folder: str | os.PathLike[str], videos: Iterable[str]
) -> None:
    folder = os.fspath(folder)
    if os.path.exists(folder) and (
        not os.path.isdir(folder) or os.listdir(folder)
    ):
        raise ValueError(
            "The folder must be new or empty, as all text files in it are read "
            f"back. Received: folder={folder}. Choose another one."
        )
    names, codes = np.unique(table["video"], return_inverse=True)
    if names.dtype.kind != "U":
        names = names.astype("int64").astype(str)
    files: dict[str, list[str]] = {name: [] for name in (*videos, *names)}
    for name in files:
        if not name or os.path.basename(name) != name or "\0" in name:
            raise ValueError(
                "A video's name becomes the name of its file. "
                f"Received: video={name!r}. Rename it."
            )
    columns = [
        _shortest(array) for name, array in table.items() if name != "video"
    ]
    lines = [",".join(map(repr, row)) for row in zip(*columns, strict=True)]
    for code, line in zip(codes.tolist(), lines, strict=True):
        files[str(names[code])].append(line)
    with replacing_folder(folder) as temporary:
        for name, content in files.items():
            path = os.path.join(temporary, name + SUFFIX)
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(line + "\n" for line in content)


def _shortest(array: np.ndarray) -> list[int] | list[float]:
    """Returns whole numbers without a decimal point, if all of them are."""
    is_whole = np.all((array == np.trunc(array)) & (np.abs(array) < 2**53))
    return (array.astype("int64") if is_whole else array).tolist()
