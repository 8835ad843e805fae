"""Files that are either complete or not there at all."""

import contextlib
import csv
import datetime
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutOfSpaceError(OSError):
    """A disk is full; the message names the file and says what to do."""


def shorten(name: str, num_bytes: int = 150) -> str:
    """Returns the beginning of a name, as much as fits in so many bytes.

    File systems take names of 255 bytes; temporary ones are longer by 22.

    Example:
    >>> shorten("零零零", 7)
    '零零'
    """
    return name.encode("utf-8", "replace")[:num_bytes].decode("utf-8", "ignore")


def temporary_path(path: "str | os.PathLike[str]", kind: str = "tmp") -> str:
    """Returns a path beside another that nobody else takes.

    The name is hidden and ends in the same suffix (some writers look at it);
    `keras_sspcab.locks` removes what killed processes leave there.
    """
    folder, name = os.path.split(os.path.abspath(path))
    stem, suffix = os.path.splitext(name)
    # Not by the number of the process: in containers all of them are 1.
    unique = uuid.uuid4().hex[:16]
    return os.path.join(folder, f".{stem}.{unique}.{kind}{suffix}")


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yields a temporary path that becomes `path` if the block succeeds.

    If the block fails, the file that was there stays. A full disk raises an
    `OutOfSpaceError`.
    """
    temporary = temporary_path(path)
    try:
        with telling_full_disks(path):
            yield temporary
            with open(temporary, "rb+") as file:
                # Without it the new name can reach the disk before the content.
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def replacing_folder(path: str) -> Iterator[str]:
    """Yields an empty folder that takes the place of `path` on success."""
    temporary = temporary_path(path)
    os.makedirs(temporary)
    try:
        with telling_full_disks(path):
            yield temporary
            with set_aside(path):
                os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def set_aside(path: str) -> Iterator[None]:
    """Removes a file or folder, and puts it back if the `with` block fails.

    If the process is killed within the block, a folder comes back later, see
    `keras_sspcab.locks`; a file does not.
    """
    is_folder = os.path.isdir(path)
    previous = temporary_path(path, "old" if is_folder else "tmp")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, previous)
    try:
        yield
    except BaseException:
        if os.path.lexists(previous) and not os.path.lexists(path):
            os.rename(previous, path)
        raise
    if is_folder:
        shutil.rmtree(previous, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(previous)


@contextlib.contextmanager
def telling_full_disks(path: str) -> Iterator[None]:
    """Names the file and what to do, where a writer has found no space."""
    try:
        yield
    except OutOfSpaceError:
        raise
    except Exception as error:
        if not _is_of_full_disk(error):
            raise
        free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
        raise OutOfSpaceError(
            f"There is no space to write {path} ({free / 1e6:,.1f} MB are "
            f"free): {str(error).strip()}. What was there is kept. Make room, "
            "then give the command again, or continue with --resume"
        ) from error


def _is_of_full_disk(error: Exception) -> bool:
    if getattr(error, "errno", None) in _NO_SPACE:
        return True
    # HDF5, TensorFlow and NumPy have errors of their own; NumPy's says only
    # how much less was written.
    text = str(error)
    return any(os.strerror(number) in text for number in _NO_SPACE) or (
        "requested and" in text and text.endswith("written")
    )


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


def read_json(path: str, advice: str) -> dict[str, Any]:
    """Reads one JSON object; the error names the file and gives the advice."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is broken: no valid JSON: {error}. {advice}"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is broken: expected one object. {advice}")
    return value


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


def now() -> str:
    """Returns the time, to the second, with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
