"""Checksums of models and of lists of inputs."""

import hashlib
import os
import pathlib
from collections.abc import Iterable

from keras_sspcab.runs.files import sha256_of

# Files beside a SavedModel that do not change what it computes.
_BESIDE = ("parity.json", "MANIFEST.sha256", "assets.extra")


def checksum_of_model(path: str) -> str:
    """Returns the SHA-256 of a model.

    Args:
        path: A file, of which it is the checksum that `sha256sum` prints; or
            the folder of a SavedModel, of which it is that of the lines that
            `sha256sum` prints for its files, sorted by name.
    """
    if os.path.isfile(path):
        return sha256_of(path)
    folder = pathlib.Path(path)
    names = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file()
    )
    return checksum_of_lines(
        f"{sha256_of(folder / name)}  {name}"
        for name in names
        if name.split("/")[0] not in _BESIDE
    )


def checksum_of_lines(lines: Iterable[str]) -> str:
    """Returns the SHA-256 of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()
