"""Which images are meant: globs, folders and files, each image once."""

import glob
import os
from collections.abc import Iterable
from typing import Any

from keras_sspcab.data import scan_image_folder
from keras_sspcab.data.file_system import (
    enumerate_names,
    has_pattern,
    is_folder,
    is_utf8,
    match_urls,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.scanning import is_image


def list_inputs(inputs: Iterable[Any], known: Iterable[str] = ()) -> list[str]:
    """Lists absolute paths and URLs, sorted, each once.

    What a folder holds is chosen by the extension, at any depth; what a pattern
    matches counts whatever its name is. A path that exists is no pattern, so
    that brackets may be part of a name. Links are not followed.

    `known` are those of an earlier call. Files among them that have vanished
    since are listed as well, if there are no new ones.
    """
    known, paths = {*known}, set()
    for item in inputs:
        path = standardize_path(item, "inputs")
        matches = _match_remote(path) if scheme_of(path) else _match(path)
        if not matches and os.path.abspath(path) in known:
            matches = [os.path.abspath(path)]
        if not matches:
            raise ValueError(
                f"There is no file that matches {path!r}. Give a file, a "
                "folder, or a pattern such as 'images/**/*.png' in quotes"
                + _explain_brackets(path)
            )
        paths.update(matches)
    if paths <= known:
        paths |= {
            path
            for path in known - paths
            if not scheme_of(path) and not os.path.lexists(path)
        }
    broken = [path for path in sorted(paths) if not is_utf8(path)]
    if broken:
        raise ValueError(
            "Names of files must be UTF-8. Received: "
            f"{enumerate_names(map(ascii, broken))}. Rename them."
        )
    return sorted(paths)


def _explain_brackets(path: str) -> str:
    if "[" not in path:
        return ""
    return (
        ". Brackets are part of the pattern: they stand for one of the "
        f"characters in them. For the brackets themselves, write "
        f"{path.replace('[', '[[]')!r}"
    )


def _images_in(folder: str) -> list[str]:
    return [s.path for s in scan_image_folder(folder, layout="plain").train]


def _match(path: str) -> list[str]:
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return _images_in(path)
    if os.path.lexists(path):
        return [path]
    matches = glob.glob(path, recursive=True)
    return [match for match in matches if not os.path.isdir(match)]


def _match_remote(url: str) -> list[str]:
    if has_pattern(url):
        return match_urls(url)
    # Whether a file is there shows when it is read.
    return _images_in(url) if not is_image(url) and is_folder(url) else [url]
