"""Tables of boxes, in memory and as published in text files.

A table is a dict from column name to array, one row a box: a detection, or a
box of a track of the ground truth. Coordinates are in pixels, and both ends
belong to the box: `x_min=0, x_max=9` is 10 pixels wide.

On disk each video has a file of its own, its name without `.txt` the video's,
with `%2F` for `/`: comma-separated numbers without a header, in the columns
below but for `video`.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
DETECTION_COLUMNS = ("video", "frame", *BOX_COLUMNS, "score")
TRACK_COLUMNS = ("video", "track", "frame", *BOX_COLUMNS)

Table = dict[str, np.ndarray]
PathLike = str | os.PathLike[str]

_SUFFIX = ".txt"
# Of the names of videos in folders of folders.
_SLASH = "%2F"


def read_detections(folder: PathLike) -> Table:
    """Reads a folder of detections, one text file a video.

    Its files `VIDEO.txt`, of lines `frame, x_min, y_min, x_max, y_max, score`,
    are read in the order of their names; empty ones are fine.

    Returns:
        The table; a ValueError names file and line where one is broken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_detections([(7, 0, 10, 10, 29, 29, 0.5)], folder)
        ...     read_detections(folder)["score"]
        array([0.5])
    """
    return _read_folder(folder, DETECTION_COLUMNS)


def read_tracks(folder: PathLike) -> Table:
    """Reads a folder of ground-truth tracks, one text file a video.

    Its files `VIDEO.txt`, of lines `track, frame, x_min, y_min, x_max, y_max`,
    are read in the order of their names. Videos without anomalies may have
    none; a track has one box in a frame.

    Returns:
        The table; errors are those of `read_detections`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tracks([(7, 3, 0, 10, 10, 29, 29)], folder)
        ...     read_tracks(folder)["track"]
        array([3.])
    """
    return _read_folder(folder, TRACK_COLUMNS)


def write_detections(
    detections: Any, folder: PathLike, videos: Iterable[str] = ()
) -> None:
    """Writes detections as `read_detections` reads them, losing no digit.

    Reading puts the videos in the order of their files' names; it decides about
    equal scores in different videos.

    Args:
        detections: As for `rbdc_tbdc`.
        folder: Path of the folder to create. One that is there must be empty.
        videos: Names of videos that get a file even if it is empty.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_detections([], folder, videos=["01"])
        ...     os.listdir(folder)
        ['01.txt']
    """
    table = standardize_table(detections, "detections", DETECTION_COLUMNS)
    _write_folder(table, folder, videos)


def write_tracks(tracks: Any, folder: PathLike) -> None:
    """Writes tracks as `read_tracks` reads them, losing no digit.

    Tracks are those of `rbdc_tbdc`; folder and errors as in `write_detections`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tracks([(7, 3, 0, 10, 10, 29, 29)], folder)
        ...     os.listdir(folder)
        ['7.txt']
    """
    table = standardize_table(tracks, "tracks", TRACK_COLUMNS)
    _write_folder(table, folder, ())


def standardize_table(
    values: Any, name: str, columns: tuple[str, ...]
) -> Table:
    """Returns a checked table with the columns in their order, in float64.

    `values` has columns by name (a dict of arrays, a structured array, a data
    frame), or is an array `(n, len(columns))` of numbers.
    """
    table = {}
    for column, array in _split(values, name, columns).items():
        label = f"{name}[{column!r}]"
        if array.ndim != 1:
            raise ValueError(
                "A column must be one-dimensional. "
                f"Received: {label} of shape {array.shape}"
            )
        convert = _videos if column == "video" else _numbers
        table[column] = convert(array, label)
    lengths = {column: array.size for column, array in table.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"The columns of `{name}` must be of one length. "
            f"Received: lengths {lengths}"
        )
    if fault := _find_fault(table):
        row, problem = fault
        raise ValueError(
            f"Each row of `{name}` must be a proper box. "
            f"Received: {name} with {problem} in row {row}"
        )
    return table


def _split(values: Any, name: str, columns: tuple[str, ...]) -> Table:
    message = (
        f"The `{name}` argument must have the columns {', '.join(columns)}. "
        f"Received: {name}"
    )
    if isinstance(values, np.ndarray | list | tuple):
        array = np.asarray(values)
        if array.dtype.names is None:
            if array.size == 0:
                array = np.empty((0, len(columns)))
            if array.ndim != 2 or array.shape[1] != len(columns):
                raise ValueError(f"{message} of shape {array.shape}")
            return dict(zip(columns, array.T, strict=True))
    table, missing = {}, []
    for column in columns:
        try:
            table[column] = np.asarray(values[column])
        except (KeyError, ValueError):
            missing.append(column)
    if missing:
        raise ValueError(f"{message} without {', '.join(missing)}")
    return table


def _numbers(array: np.ndarray, label: str) -> np.ndarray:
    try:
        # Data frames keep columns with missing values as objects.
        if array.dtype.kind not in "iufO" and array.size:
            raise TypeError
        return array.astype("float64")
    except (TypeError, ValueError):
        raise ValueError(
            "All columns but `video` must hold numbers. "
            f"Received: {label} of dtype {array.dtype}"
        ) from None


def _videos(array: np.ndarray, label: str) -> np.ndarray:
    kind = array.dtype.kind
    # A missing name in a data frame must not become a video "nan".
    if kind in "UT" or (
        kind == "O" and all(isinstance(name, str) for name in array)
    ):
        return array.astype(str)
    try:
        numbers = array.astype("float64")
        if np.array_equal(numbers, np.trunc(numbers)):
            return numbers
    except (TypeError, ValueError):
        pass
    raise ValueError(
        "The `video` column must hold names or whole numbers. "
        f"Received: {label} of dtype {array.dtype} with the first value "
        f"{array.item(0)!r}"
    )


def _find_fault(table: Table) -> tuple[int, str] | None:
    """Returns the first row that is no proper box and what is wrong with it.

    The column `"video"` may be absent where all rows are of one video.
    """
    numbers = {name: table[name] for name in table if name != "video"}
    faults = [
        (~np.isfinite(array), f"{name} not finite")
        for name, array in numbers.items()
    ]
    faults += [
        (numbers[name] != np.trunc(numbers[name]), f"{name} no whole number")
        for name in ("frame", "track")
        if name in numbers
    ]
    for axis in "xy":
        low, high = table[f"{axis}_min"], table[f"{axis}_max"]
        with np.errstate(invalid="ignore"):
            # Both ends belong to a box; a scaled one may be below a pixel wide.
            is_empty = high - low + 1 <= 0
        faults.append((is_empty, f"{axis}_max below {axis}_min"))
    if "track" in table:
        keys = [
            table[name].tolist()
            for name in ("video", "track", "frame")
            if name in table
        ]
        first_rows: dict[tuple, int] = {}
        repeats = [
            first_rows.setdefault(key, row) != row
            for row, key in enumerate(zip(*keys, strict=True))
        ]
        faults.append(
            (np.array(repeats, bool), "a second box of a track in a frame")
        )
    rows = [(int(np.argmax(bad)), what) for bad, what in faults if bad.any()]
    if not rows:
        return None
    row, what = min(rows, key=lambda fault: fault[0])
    values = [f"{name}={array[row]:.6g}" for name, array in numbers.items()]
    return row, f"{what} ({', '.join(values)})"


def _read_folder(folder: PathLike, columns: tuple[str, ...]) -> Table:
    folder = os.fspath(folder)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [name for name in names if name.endswith(_SUFFIX)]
    if not names:
        raise ValueError(
            f"There must be text files, one a video. Received: {folder}, "
            f"without any file named *{_SUFFIX}"
        )
    paths = [os.path.join(folder, name) for name in names]
    parts = [_read_file(path, columns[1:]) for path in paths]
    videos = [name.removesuffix(_SUFFIX).replace(_SLASH, "/") for name in names]
    return {
        "video": np.repeat(videos, [len(part) for part in parts]),
        **dict(zip(columns[1:], np.concatenate(parts).T, strict=True)),
    }


def _read_file(path: str, columns: tuple[str, ...]) -> np.ndarray:
    rows, line_numbers = [], []
    # Bytes that are no text end up in the error about their line.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(map(str.strip, file), 1):
            if not line:
                continue
            try:
                row = [float(text) for text in line.split(",")]
            except ValueError:
                row = []
            if len(row) != len(columns):
                raise ValueError(
                    f"A line must hold the {len(columns)} numbers "
                    f"{', '.join(columns)}, separated by commas. "
                    f"Received: {line!r} in {path}, line {number}"
                )
            rows.append(row)
            line_numbers.append(number)
    values = np.array(rows, "float64").reshape(-1, len(columns))
    if fault := _find_fault(dict(zip(columns, values.T, strict=True))):
        row_number, problem = fault
        raise ValueError(
            "Each line must be a proper box. Received: "
            f"{problem} in {path}, line {line_numbers[row_number]}"
        )
    return values


def _write_folder(
    table: Table, folder: PathLike, videos: Iterable[str]
) -> None:
    from keras_sspcab.files import replacing_folder

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
    lines: dict[str, list[str]] = {name: [] for name in (*videos, *names)}
    paths = {name: f"{name.replace('/', _SLASH)}{_SUFFIX}" for name in lines}
    for name, path in paths.items():
        if not name or os.path.basename(path) != path or "\0" in name:
            raise ValueError(
                "A video's name becomes the name of its file. "
                f"Received: video={name!r}. Rename it."
            )
    columns = [
        _shortest(array) for name, array in table.items() if name != "video"
    ]
    for code, row in zip(codes, zip(*columns, strict=True), strict=True):
        lines[str(names[code])].append(",".join(map(repr, row)) + "\n")
    with replacing_folder(folder) as temporary:
        for name, content in lines.items():
            path = os.path.join(temporary, paths[name])
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(content)


def _shortest(array: np.ndarray) -> list[int] | list[float]:
    """Returns whole numbers without a decimal point, if all of them are."""
    is_whole = np.all((array == np.trunc(array)) & (np.abs(array) < 2**53))
    return (array.astype("int64") if is_whole else array).tolist()
