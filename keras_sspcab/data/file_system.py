"""Listing and reading files, local or behind a URL, through `tf.io.gfile`."""

import collections
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import tensorflow as tf

_Result = TypeVar("_Result")

#: How to install tensorflow-io, for messages.
INSTALL_HINT = (
    'Install it with: pip install "keras-sspcab[io]" (it works with '
    "TensorFlow 2.16 only)."
)


@functools.cache
def tensorflow_io() -> Any:
    """Returns the module `tensorflow_io`, or None where it does not work.

    Importing it registers its file systems (s3, http, hdfs, az, ...).
    """
    try:
        with warnings.catch_warnings():
            # It warns about plugins that do not fit the TensorFlow there is.
            warnings.simplefilter("ignore")
            import tensorflow_io as tfio

            # Operations are loaded at the first use of an attribute.
            tfio.image.decode_webp  # noqa: B018
            tfio.experimental.image.decode_tiff  # noqa: B018
    except (ImportError, NotImplementedError, AttributeError, OSError):
        return None
    return tfio


def standardize_path(path: Any, name: str = "root") -> str:
    """Returns a path as text; `~` is expanded, a URL stays as it is."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(
            f"The `{name}` argument must be a path or a URL. "
            f"Received: {name}={path!r}"
        )
    text = os.fspath(path)
    if not scheme_of(text):
        return os.path.normpath(os.path.expanduser(text))
    require_file_systems([text])
    return text if text.endswith("://") else text.rstrip("/")


def require_file_systems(paths: Iterable[str | None]) -> None:
    """Raises a ValueError if a path is a URL that nothing can read."""
    examples = {scheme_of(path): path for path in paths if path}
    for scheme, example in examples.items():
        if not scheme or scheme in tf.io.gfile.get_registered_schemes():
            continue
        # Importing it may bring the file system.
        tensorflow_io()
        known = sorted(s for s in tf.io.gfile.get_registered_schemes() if s)
        if scheme in known:
            continue
        raise ValueError(
            f"No file system is known for {scheme}:// URLs. Received: "
            f"{example!r}. Known: {', '.join(known)}. Others, such as s3, "
            f"http and hdfs, come with tensorflow-io. {INSTALL_HINT}"
        )


def scheme_of(path: str) -> str:
    """Returns `s3` of `s3://bucket/folder`, and an empty text of a path."""
    return path.split("://", 1)[0] if "://" in path else ""


def is_folder(path: str) -> bool:
    """Returns whether `path` is a folder that can be reached."""
    return reach(path, lambda: tf.io.gfile.isdir(path))


def require_folder(root: str, content: str = "image") -> None:
    """Raises a ValueError unless `root` is a folder (of `content`)."""
    if is_folder(root):
        return
    if reach(root, lambda: tf.io.gfile.exists(root)):
        hint = ""
        if scheme_of(root) in ("http", "https"):
            hint = " HTTP servers do not list folders: list the files yourself."
        raise ValueError(
            f"The {content} folder is a file, not a folder. "
            f"Received: root={root!r}.{hint}"
        )
    message = f"The {content} folder does not exist. Received: root={root!r}."
    parent = _parent(root)
    while parent and not is_folder(parent):
        parent = _parent(parent)
    if parent:
        message += (
            f" The nearest folder that does is {parent!r}, which holds "
            f"{describe_folder(parent)}."
        )
    raise ValueError(message)


def _parent(path: str) -> str:
    """Returns the folder around, or an empty text where there is none."""
    if scheme_of(path):
        scheme, _, rest = path.partition("://")
        folder = rest.rpartition("/")[0]
        return f"{scheme}://{folder}" if folder else ""
    folder = os.path.dirname(path)
    if folder == path:
        return ""
    return folder or "."


def join(root: str, relative: str) -> str:
    """Joins a folder and a path with forward slashes."""
    if scheme_of(root):
        return root if not relative else f"{root}/{relative}"
    return os.path.normpath(os.path.join(root, *relative.split("/")))


def list_files(root: str) -> list[str]:
    """Lists the files below a folder, at any depth, hidden ones left out.

    Sorted, relative to `root`, with forward slashes.
    """

    def collect() -> list[str]:
        files = []
        for folder, names in _walk(root):
            inside = folder[len(root) :].replace(os.sep, "/").strip("/")
            files += [f"{inside}/{name}".lstrip("/") for name in names]
        return sorted(f for f in files if "/." not in f"/{f}")

    files = reach(root, collect)
    # The decoder takes text, not bytes, and Python marks what is not UTF-8.
    broken = [file for file in files if not is_utf8(file)]
    if broken:
        raise ValueError(
            f"Names of files must be UTF-8. Received: root={root!r} with "
            f"{enumerate_names(map(ascii, broken))}. Rename them."
        )
    return files


def is_utf8(name: str) -> bool:
    """Returns whether the name of a file can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(
    folder: str, above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, list[str]]]:
    """Yields folders and the names of the files in them.

    Links to folders are followed, but not to one that the way there came
    through: links may form a circle.
    """
    if scheme_of(folder):
        for inside, _, names in tf.io.gfile.walk(folder):
            yield inside, names
        return
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        is_folder = {entry.name: entry.is_dir() for entry in entries}
    yield folder, [name for name in is_folder if not is_folder[name]]
    for name in sorted(is_folder):
        if is_folder[name] and not name.startswith("."):
            yield from _walk(os.path.join(folder, name), above | {real})


def describe_folder(root: str) -> str:
    """Returns the content of a folder in a few words, for error messages."""

    def look() -> str:
        names = sorted(n.rstrip("/") for n in tf.io.gfile.listdir(root))
        folders = [n for n in names if tf.io.gfile.isdir(join(root, n))]
        files = sorted({*names} - {*folders})
        parts = [f"the folders {enumerate_names(folders)}"] if folders else []
        if files:
            parts.append(f"{len(files)} files ({count_extensions(files)})")
        return " and ".join(parts) or "nothing"

    return reach(root, look)


def count_extensions(names: Iterable[str]) -> str:
    """Counts names by extension, such as `3 .txt, 1 without extension`."""
    counts = collections.Counter(
        os.path.splitext(name)[1].lower() or "without extension"
        for name in names
    )
    return ", ".join(
        f"{n} {extension}" for extension, n in counts.most_common()
    )


def enumerate_names(names: Iterable[str], limit: int = 10) -> str:
    """Joins names by commas; says how many follow after `limit` of them."""
    names = list(names)
    text = ", ".join(names[:limit])
    num_left = len(names) - limit
    return text if num_left <= 0 else f"{text} and {num_left} more"


def reach(path: str, action: Callable[[], _Result]) -> _Result:
    """Runs `action`; an error of the file system names `path`."""
    try:
        return action()
    except (tf.errors.OpError, OSError) as error:
        reason = error.message if hasattr(error, "message") else error
        raise ValueError(f"Cannot read {path!r}: {reason}") from error
