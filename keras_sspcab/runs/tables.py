"""Reading and writing of the tables and texts that an evaluation leaves."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras_sspcab.runs import files
from keras_sspcab.runs.folder import RunFolder

#: What writes the files.
EVALUATE = "keras-sspcab evaluate"

#: By column, the attribute of a row and how its text is read. Columns that end
#: in `_file` hold paths relative to the table.
Columns = dict[str, tuple[str, Callable[[str], Any]]]

# What other programs that write such tables may leave out.
_OPTIONAL = {"raw_score", "mask_path", "map_file", "mask_file"}


def parse_number(text: str) -> float:
    """Reads a finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    return value


def parse_label(text: str) -> int | None:
    """Reads 0 or 1; None where the cell is empty."""
    label = int(text) if text else None
    if label not in (None, 0, 1):
        raise ValueError(f"must be 0, 1 or empty, not {label}")
    return label


def parse_flag(text: str) -> bool:
    """Reads whether something is so."""
    flags = {"1": True, "0": False, "true": True, "false": False}
    if text.lower() not in flags:
        raise ValueError(f"must be 0 or 1, not {text!r}")
    return flags[text.lower()]


def parse_position(text: str) -> int:
    """Reads a number of a frame, from 0."""
    if int(text) < 0:
        raise ValueError(f"must be at least 0, not {text}")
    return int(text)


def parse_name(text: str) -> str:
    """Reads a name, which must be there."""
    if not text:
        raise ValueError("the name is missing")
    return text


def parse_optional_number(text: str) -> float | None:
    """Reads a finite number; None where the cell is empty."""
    return parse_number(text) if text else None


def parse_optional_path(text: str) -> str | None:
    """Reads a path; None where the cell is empty."""
    return text or None


def write_rows(
    folder: str, name: str, columns: Columns, rows: Iterable[Any]
) -> None:
    """Writes a CSV file of the attributes of rows."""

    def cell(row: Any, column: str) -> Any:
        value = getattr(row, columns[column][0])
        if column.endswith("_file") and value is not None:
            return os.path.relpath(value, folder).replace(os.sep, "/")
        return int(value) if isinstance(value, bool) else value

    files.write_csv(
        os.path.join(folder, name),
        list(columns),
        ({column: cell(row, column) for column in columns} for row in rows),
    )


def broken(path: str, problem: str, run: RunFolder | None = None) -> ValueError:
    """Returns the error for a file that cannot be what was written."""
    command = EVALUATE if run is None else f"{EVALUATE} {run.path}"
    return ValueError(f"{path} is broken: {problem}. Write it with `{command}`")


def read_json(path: str, run: RunFolder) -> Any:
    """Returns the content of a JSON file."""
    with open(path, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise broken(path, f"no valid JSON: {error}", run) from error


def read_rows(
    path: str, columns: Columns, run: RunFolder
) -> Iterator[dict[str, Any]]:
    """Yields the attributes of each row of a CSV file."""
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            missing = {*columns} - _OPTIONAL - {*(reader.fieldnames or ())}
            if missing:
                names = ", ".join(sorted(missing))
                raise broken(path, f"no column {names}", run)
            for row in reader:
                values = {}
                for column, (attribute, parse) in columns.items():
                    try:
                        value = parse(row.get(column) or "")
                    except ValueError as error:
                        place = f"line {reader.line_num}, {column}"
                        raise broken(path, f"{place}: {error}", run) from error
                    if column.endswith("_file") and value is not None:
                        value = os.path.join(folder, value)
                        if column == "map_file" and not os.path.exists(value):
                            value = None
                    values[attribute] = value
                yield values
        except (csv.Error, UnicodeDecodeError) as error:
            place = f"after line {reader.line_num}"
            raise broken(path, f"{place}: {error}", run) from error
