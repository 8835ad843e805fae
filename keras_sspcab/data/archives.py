"""Reads archives that others have made, and trusts no name in them."""

import contextlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(EOFError, NotImplementedError, RuntimeError),
)


def unpack(
    path: str, folder: str, place: Callable[[str], str | None]
) -> list[str]:
    """Writes files of an archive into a folder; returns the names of all.

    Args:
        path: A zip or tar file, compressed or not.
        folder: A folder that exists.
        place: Gives the place in the folder that a file gets, from its name
            with forward slashes; None leaves it out.

    Raises:
        ValueError: If the archive is broken, or a name leads out of the folder.
    """
    names = []
    with _telling_broken(path):
        for name, file in _iterate_files(path):
            names.append(name)
            target = place(name)
            if target is None:
                continue
            written = os.path.join(folder, *_parts(target, path))
            os.makedirs(os.path.dirname(written), exist_ok=True)
            with open(written, "wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
    return names


def read_member(path: str, end: str) -> tuple[str, bytes]:
    """Returns name and content of the file in an archive whose path ends so."""
    with _telling_broken(path):
        for name, file in _iterate_files(path):
            if f"/{name}".endswith(f"/{end}"):
                return name, file.read()
    raise ValueError(f"The archive {path} holds no {end}")


@contextlib.contextmanager
def _telling_broken(path: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"The archive {path} is broken: {reason}. Remove it, and give the "
            "command again"
        ) from error


def _iterate_files(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields names and contents of files; links and the like are left out."""
    files = _iterate_zip if zipfile.is_zipfile(path) else _iterate_tar
    for name, file in files(path):
        yield "/".join(_parts(name, path)), file


def _iterate_zip(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if stat.S_ISLNK(member.external_attr >> 16) or member.is_dir():
                continue
            with archive.open(member) as file:
                yield member.filename, file


def _iterate_tar(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None:
                yield member.name, file


def _parts(name: str, path: str) -> list[str]:
    """Returns the folders of a name in an archive, and that of the file."""
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    is_absolute = re.match(r"/|[A-Za-z]:", slashed)
    if not parts or is_absolute or ".." in parts:
        raise ValueError(
            f"The archive {path} is not to be trusted: it holds {name!r}, "
            "which leads out of the folder that it is unpacked in. Nothing of "
            "it was kept"
        )
    return parts
