"""Folders of versions, as TensorFlow Serving knows them."""

import pathlib

#: Versions travel as 64-bit integers.
MAX_VERSION = 2**63 - 1


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
