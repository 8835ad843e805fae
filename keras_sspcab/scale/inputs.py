"""Which images are meant: globs, folders and files, each image once."""

import glob
import os
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_sspcab.data import scan_image_folder
from keras_sspcab.data.file_system import (
    enumerate_names,
    is_folder,
    is_utf8,
    reach,
    scheme_of,
    standardize_path,
)


def list_inputs(inputs: Iterable[Any]) -> list[str]:
    """Lists the files that patterns, folders and paths stand for.

    What a folder holds is chosen by the extension, at any depth; what a pattern
    matches counts whatever its name is. A path that exists is no pattern, so
    that brackets may be part of a name.

    Args:
        inputs: Patterns with `*`, `?`, `[...]` and, where files are local, `**`
            for any depth; folders; or files. Local, or behind a URL that
            TensorFlow reads (`gs://`, and others with tensorflow-io).

    Returns:
        Absolute paths and URLs, sorted, each once. Links are not followed: a
        file under two names is two inputs.

    Raises:
        ValueError: If one of the inputs stands for no file, or a name is not
            UTF-8.

    Example:
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "a.png").touch()
    ...     [os.path.basename(path) for path in list_inputs([folder])]
    ['a.png']
    """
    paths: set[str] = set()
    for item in inputs:
        path = standardize_path(item, "inputs")
        matches = _match_remote(path) if scheme_of(path) else _match(path)
        if not matches:
            raise ValueError(
                f"There is no file that matches {path!r}. Give a file, a "
                "folder, or a pattern such as 'images/**/*.png' in quotes"
            )
        paths.update(matches)
    broken = [path for path in sorted(paths) if not is_utf8(path)]
    if broken:
        raise ValueError(
            "Names of files must be UTF-8. Received: "
            f"{enumerate_names(map(ascii, broken))}. Rename them."
        )
    return sorted(paths)


def _match(path: str) -> list[str]:
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return [s.path for s in scan_image_folder(path, layout="plain").train]
    if os.path.lexists(path):
        return [path]
    matches = glob.glob(path, recursive=True)
    return [match for match in matches if not os.path.isdir(match)]


def _match_remote(url: str) -> list[str]:
    if not glob.has_magic(url):
        if is_folder(url):
            return [
                s.path for s in scan_image_folder(url, layout="plain").train
            ]
        # Whether the file is there shows when it is read.
        return [url]
    if "**" in url:
        raise ValueError(
            f"Behind a URL, `**` is not known. Received: {url!r}. Give the "
            "folder, to take all images in it at any depth"
        )
    return reach(url, lambda: tf.io.gfile.glob(url))
