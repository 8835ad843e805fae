"""Files that are either complete or not there at all."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yields a temporary path that becomes `path` if the block succeeds.

    The temporary file lies in the same folder and has the same suffix (some
    writers look at it). If the block fails, the file that was there stays.
    """
    folder, name = os.path.split(os.path.abspath(path))
    stem, suffix = os.path.splitext(name)
    # Processes of several machines can write to one folder.
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = os.path.join(folder, f".{stem}.{unique}.tmp{suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            # Without it the new name can reach the disk before the content.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def replacing_folder(path: str) -> Iterator[str]:
    """Yields an empty folder that takes the place of `path` on success."""
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = os.path.join(folder, f".{name}.{unique}.tmp")
    previous = os.path.join(folder, f".{name}.{unique}.old")
    os.makedirs(temporary)
    try:
        yield temporary
        if os.path.isdir(path):
            os.rename(path, previous)
        os.rename(temporary, path)
    except BaseException:
        if os.path.isdir(previous) and not os.path.lexists(path):
            os.rename(previous, path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def write_text(path: str, text: str) -> None:
    """Writes a text file, all of it or nothing."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(text)


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file, all of it or nothing; NaN is refused."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def write_csv(
    path: str, columns: Sequence[str], rows: Iterable[dict[str, Any]]
) -> None:
    """Writes a CSV file, all of it or nothing; missing values stay empty."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def sha256_of(path: "str | os.PathLike[str]") -> str:
    """Returns the checksum of a file, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
