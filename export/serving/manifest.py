"""Checksums of all files of a version."""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from keras_sspcab.runs.files import sha256_of

#: Name of the file. `sha256sum --check MANIFEST.sha256` reads it, too.
MANIFEST_NAME = "MANIFEST.sha256"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SHOWN = 5


class ManifestError(ValueError):
    """The files of a version are not those that were packaged.

    Attributes:
        path: Folder of the version.
        problems: One line for each file that is wrong.
    """

    def __init__(self, path: pathlib.Path, problems: list[str]) -> None:
        shown = problems[:_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        super().__init__(
            f"The version in {os.fspath(path)!r} is not what was packaged: "
            f"{'; '.join(shown)}. Copy it again or package the model again."
        )
        self.path = path
        self.problems = problems


def write_manifest(path: Any) -> pathlib.Path:
    """Writes the checksums of all files in a folder into that folder.

    Args:
        path: Folder of a version, complete.

    Returns:
        The file.
    """
    folder = pathlib.Path(path)
    lines = [
        f"{_digest(folder / name)}  {name}\n" for name in sorted(_files(folder))
    ]
    file = folder / MANIFEST_NAME
    file.write_text("".join(lines), encoding="utf-8", newline="\n")
    return file


def verify_version(path: Any) -> None:
    """Checks that a version holds the files that were packaged, and no others.

    Args:
        path: Folder of the version.

    Raises:
        ManifestError: If a file differs, is missing or is extra, or if there is
            no list of checksums. The message names the files.
    """
    folder = pathlib.Path(path)
    expected = _read(folder)
    present = set(_files(folder))
    problems = [
        f"{name} is missing" for name in sorted(set(expected) - present)
    ]
    problems += [f"{name} is extra" for name in sorted(present - set(expected))]
    problems += [
        f"{name} differs"
        for name in sorted(present & set(expected))
        if _digest(folder / name) != expected[name]
    ]
    if problems:
        raise ManifestError(folder, problems)


def _read(folder: pathlib.Path) -> dict[str, str]:
    file = folder / MANIFEST_NAME
    if not file.is_file():
        raise ManifestError(folder, [f"{MANIFEST_NAME} is missing"])
    expected = {}
    text = file.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ManifestError(
                folder, [f"line {number} of {MANIFEST_NAME} is no checksum"]
            )
        expected[match[2]] = match[1]
    if not expected:
        raise ManifestError(folder, [f"{MANIFEST_NAME} is empty"])
    return expected


def _files(folder: pathlib.Path) -> Iterator[str]:
    """Names of all files below a folder, but for the manifest itself."""
    for parent, folders, names in os.walk(folder):
        # A link to a folder is not followed: what lies behind it can change.
        links = [n for n in folders if os.path.islink(os.path.join(parent, n))]
        for name in (*names, *links):
            relative = pathlib.Path(parent, name).relative_to(folder).as_posix()
            if relative != MANIFEST_NAME:
                yield relative


def _digest(file: pathlib.Path) -> str:
    return "a link to a folder" if file.is_dir() else sha256_of(file)
