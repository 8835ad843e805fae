"""Tables of boxes: detections, and tracks of the ground truth.

A table is a dict from column name to array, one row a box. Coordinates are in
pixels, and both ends belong to the box: `x_min=0, x_max=9` is 10 pixels wide.
"""

from typing import Any

import numpy as np

BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
DETECTION_COLUMNS = ("video", "frame", *BOX_COLUMNS, "score")
TRACK_COLUMNS = ("video", "track", "frame", *BOX_COLUMNS)

Table = dict[str, np.ndarray]


def standardize_table(
    values: Any, name: str, columns: tuple[str, ...]
) -> Table:
    """Returns a checked table with the columns in their order.

    Args:
        values: Anything with columns by name (a dict of arrays, a structured
            array, a data frame), or an array `(n, len(columns))` of numbers.
        name: The argument's name, for the error.
        columns: Names of the columns. All but `"video"` become float64;
            `"video"` holds names or whole numbers.

    Raises:
        ValueError: If a column is missing, if columns differ in length, or if
            a row is no proper box. The error names the row, counted from 0.
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
    fault = find_fault(table)
    if fault:
        row, problem = fault
        raise ValueError(
            f"Each row of `{name}` must be a proper box. "
            f"Received: {name} with {problem} in row {row}"
        )
    return table


def _split(values: Any, name: str, columns: tuple[str, ...]) -> Table:
    names = _column_names(values)
    if names is None:
        array = np.asarray(values)
        if array.size == 0:
            array = np.empty((0, len(columns)))
        if array.ndim != 2 or array.shape[1] != len(columns):
            raise ValueError(
                f"The `{name}` argument must have the columns "
                f"{', '.join(columns)}. Received: {name} of shape "
                f"{array.shape}"
            )
        return dict(zip(columns, array.T, strict=True))
    missing = [column for column in columns if column not in names]
    if missing:
        raise ValueError(
            f"The `{name}` argument must have the columns "
            f"{', '.join(columns)}. Received: {name} without "
            f"{', '.join(missing)}"
        )
    return {column: np.asarray(values[column]) for column in columns}


def _column_names(values: Any) -> list[str] | None:
    """Returns the columns of a dict, structured array or data frame."""
    if isinstance(values, np.ndarray):
        return None if values.dtype.names is None else list(values.dtype.names)
    if hasattr(values, "keys"):
        return list(values.keys())
    for attribute in ("column_names", "columns"):
        if hasattr(values, attribute):
            return list(getattr(values, attribute))
    return None


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
    if array.dtype.kind == "O" and array.size:
        # Sorting objects is slow, and a missing name is no video.
        kinds = set(map(type, array.tolist()))
        if all(issubclass(kind, str) for kind in kinds):
            return array.astype(str)
        if all(issubclass(kind, int | np.integer) for kind in kinds):
            return array.astype("float64")
    if array.dtype.kind in "UT":
        return array.astype(str)
    if array.size == 0:
        return np.empty(0)
    if array.dtype.kind in "iuf":
        numbers = array.astype("float64")
        if np.array_equal(numbers, np.trunc(numbers)):
            return numbers
    raise ValueError(
        "The `video` column must hold names or whole numbers. "
        f"Received: {label} of dtype {array.dtype} with the first value "
        f"{array.item(0)!r}"
    )


def find_fault(table: Table) -> tuple[int, str] | None:
    """Returns the first row that is no proper box and what is wrong with it.

    Args:
        table: Columns of equal length, float64 but for `"video"`, which may be
            absent where all rows are of one video.
    """
    numbers = {name: table[name] for name in table if name != "video"}
    faults = [
        (~np.isfinite(array), f"{name} not finite")
        for name, array in numbers.items()
    ]
    faults += [
        (array != np.trunc(array), f"{name} no whole number")
        for name, array in numbers.items()
        if name in ("frame", "track")
    ]
    for axis in "xy":
        low, high = table[f"{axis}_min"], table[f"{axis}_max"]
        with np.errstate(invalid="ignore"):
            # Both ends belong to a box; a scaled one may be below a pixel wide.
            is_empty = high - low + 1 <= 0
        faults.append((is_empty, f"{axis}_max below {axis}_min"))
    if "track" in table:
        key = [
            table[name] for name in ("video", "track", "frame") if name in table
        ]
        faults.append((_repeats(*key), "a second box of a track in a frame"))
    rows = [(int(np.argmax(bad)), what) for bad, what in faults if bad.any()]
    if not rows:
        return None
    row, what = min(rows, key=lambda fault: fault[0])
    values = [f"{name}={array[row]:.6g}" for name, array in numbers.items()]
    return row, f"{what} ({', '.join(values)})"


def _repeats(*columns: np.ndarray) -> np.ndarray:
    """Returns which rows repeat an earlier one in all of the columns."""
    repeated = np.zeros(columns[0].size, dtype=bool)
    # The sort is stable: of equal rows, the first one comes first.
    order = np.lexsort(columns)
    equal = np.ones(max(order.size - 1, 0), dtype=bool)
    for column in columns:
        equal &= column[order[1:]] == column[order[:-1]]
    repeated[order[1:][equal]] = True
    return repeated
