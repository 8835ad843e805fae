"""Folders of versions, and checksums of all files in them."""

import os
import pathlib
import re
from collections.abc import Iterator

from keras_sspcab.files import sha256_of

#: Name of the file. `sha256sum --check MANIFEST.sha256` reads it, too.
MANIFEST_NAME = "MANIFEST.sha256"

#: Versions travel as 64-bit integers.
MAX_VERSION = 2**63 - 1

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SHOWN = 5


def is_version(name: str) -> bool:
    """Says whether a name is that of a version: a number."""
    return name.isascii() and name.isdigit()


def find_versions(path: pathlib.Path) -> dict[int, pathlib.Path]:
    """Returns the folders of versions in a model's folder, by number.

    Names that are no number are passed over, as by TensorFlow Serving: they
    are versions that are still being written.
    """
    if not path.is_dir():
        return {}
    return {
        int(entry.name): entry
        for entry in path.iterdir()
        if is_version(entry.name)
        and int(entry.name) <= MAX_VERSION
        and entry.is_dir()
    }


def write_manifest(folder: pathlib.Path) -> None:
    """Writes the checksums of all files in a folder into that folder."""
    lines = [
        f"{_digest(folder / name)}  {name}\n" for name in sorted(_files(folder))
    ]
    file = folder / MANIFEST_NAME
    file.write_text("".join(lines), encoding="utf-8", newline="\n")


def verify_version(path: str | os.PathLike[str]) -> None:
    """Raises an error unless a version holds exactly what was packaged.

    It names the files that differ, are missing or are extra.
    """
    folder = pathlib.Path(path)
    if problems := list(_problems(folder)):
        shown = problems[:_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        raise ValueError(
            f"The version in {os.fspath(folder)!r} is not what was packaged: "
            f"{'; '.join(shown)}. Copy it again or package the model again."
        )


def make_readable(path: pathlib.Path) -> None:
    """Gives all users the permission to read a file or folder.

    Servers run as a user of their own, and the umask may be strict.
    """
    mode = path.stat().st_mode
    readable = mode | (0o555 if path.is_dir() else 0o444)
    if readable != mode:
        path.chmod(readable)


def _problems(folder: pathlib.Path) -> Iterator[str]:
    file = folder / MANIFEST_NAME
    if not file.is_file():
        yield f"{MANIFEST_NAME} is missing"
        return
    expected = {}
    text = file.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            yield f"line {number} of {MANIFEST_NAME} is no checksum"
            return
        expected[match[2]] = match[1]
    if not expected:
        yield f"{MANIFEST_NAME} is empty"
        return
    present = set(_files(folder))
    for name in sorted(set(expected) - present):
        yield f"{name} is missing"
    for name in sorted(present - set(expected)):
        yield f"{name} is extra"
    for name in sorted(present & set(expected)):
        if _digest(folder / name) != expected[name]:
            yield f"{name} differs"


def _files(folder: pathlib.Path) -> Iterator[str]:
    """Yields the names of all files below a folder but the manifest itself."""
    for parent, folders, names in os.walk(folder):
        # A link to a folder is not followed: what lies behind it can change.
        links = [n for n in folders if os.path.islink(os.path.join(parent, n))]
        for name in (*names, *links):
            relative = pathlib.Path(parent, name).relative_to(folder).as_posix()
            if relative != MANIFEST_NAME:
                yield relative


def _digest(file: pathlib.Path) -> str:
    return "a link to a folder" if file.is_dir() else sha256_of(file)
