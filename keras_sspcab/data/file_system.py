"""Listing and reading files: local ones, and through fsspec those of URLs."""

import collections
import contextlib
import functools
import glob
import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_WEB = ("http", "https")

# Previews that Synology stores beside images.
_PREVIEWS = "@eaDir"


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
        if scheme and (refusal := _refusal(scheme)):
            raise ValueError(
                f"No file system is known for {scheme}:// URLs. Received: "
                f"{example!r}. They are read by fsspec and its plugins: "
                f"{refusal.rstrip('.')}. Install it with: pip install "
                '"keras-sspcab[io]".'
            )


@functools.cache
def _refusal(scheme: str) -> str:
    """Returns why fsspec does not read such URLs; empty if it does."""
    try:
        importlib.import_module("fsspec").get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        return str(error)
    return ""


def _remote(path: str) -> tuple[Any, str]:
    """Returns the file system of a URL, None for others, and the path in it."""
    if not scheme_of(path):
        return None, path
    require_file_systems([path])
    core = importlib.import_module("fsspec.core")
    return reach(path, lambda: core.url_to_fs(path))


def scheme_of(path: str) -> str:
    """Returns `s3` of `s3://bucket/folder`, and an empty text of a path."""
    return path.split("://", 1)[0] if "://" in path else ""


def is_folder(path: str) -> bool:
    """Returns whether `path` is a folder that can be reached."""
    system, inside = _remote(path)
    look = os.path.isdir if system is None else system.isdir
    return reach(path, lambda: look(inside))


def _exists(path: str) -> bool:
    system, inside = _remote(path)
    look = os.path.exists if system is None else system.exists
    return reach(path, lambda: look(inside))


def require_case(root: str, files: Iterable[str], names: Iterable[str]) -> None:
    """Raises a ValueError if a folder has one of the names but for its case.

    Names are those of folders at the top, or in one of these: `train/good`.
    """
    right = {name.lower(): name for name in names}
    parts = [file.split("/")[:-1] for file in files]
    folders = {"/".join(each[:depth]) for each in parts for depth in (1, 2)}
    for folder in sorted(folders):
        name = right.get(folder.lower(), folder)
        if folder != name:
            raise ValueError(
                "Case counts in the names of folders. Received: "
                f"root={root!r} with {folder}. Rename {folder} to {name}."
            )


def require_folder(root: str, content: str = "image") -> None:
    """Raises a ValueError unless `root` is a folder (of `content`)."""
    if is_folder(root):
        return
    if _exists(root):
        hint = ""
        if scheme_of(root) in _WEB:
            hint = (
                " A web server lists a folder only where it shows an index "
                "page with links to the files: name the files yourself."
            )
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

    So are the previews in folders `@eaDir`. Sorted, relative to `root`, with
    forward slashes.
    """
    system, top = _remote(root)

    def collect() -> list[str]:
        files = []
        if system is not None:
            files = [f.removeprefix(top).strip("/") for f in system.find(top)]
        else:
            for folder, names in _walk(root):
                inside = folder[len(root) :].replace(os.sep, "/").strip("/")
                files += [f"{inside}/{name}".lstrip("/") for name in names]
        return sorted(
            f for f in files if not any(map(_is_hidden, f.split("/")))
        )

    files = reach(root, collect)
    require_utf8(files, f"root={root!r} with ")
    return files


def require_utf8(names: Iterable[str], where: str = "") -> None:
    """Raises a ValueError unless names of files can be written as UTF-8.

    The decoder takes text, not bytes, and Python marks what is not UTF-8.
    """
    broken = []
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            broken.append(ascii(name))
    if broken:
        raise ValueError(
            f"Names of files must be UTF-8. Received: {where}"
            f"{enumerate_names(broken)}. Rename them."
        )


def _walk(
    folder: str, above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, list[str]]]:
    """Yields folders and the names of the files in them.

    Links are followed, but not to a folder that the way there came through.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        is_folder = {entry.name: entry.is_dir() for entry in entries}
    yield folder, [name for name in is_folder if not is_folder[name]]
    for name in sorted(is_folder):
        if is_folder[name] and not _is_hidden(name):
            yield from _walk(os.path.join(folder, name), above | {real})


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == _PREVIEWS


def describe_folder(root: str) -> str:
    """Returns the content of a folder in a few words, for error messages."""
    system, inside = _remote(root)

    def look() -> str:
        if system is None:
            with os.scandir(root) as entries:
                found = {entry.name: entry.is_dir() for entry in entries}
        else:
            # All at once: on the web, one by one means to read them.
            found = {
                entry["name"].rstrip("/").rsplit("/", 1)[-1]: _is_folder(entry)
                for entry in system.ls(inside, detail=True)
            }
        folders = sorted(name for name in found if found[name])
        files = sorted(name for name in found if not found[name])
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
    except Exception as error:
        # Those who read URLs raise what they like.
        if not isinstance(error, OSError) and not scheme_of(path):
            raise
        raise ValueError(f"Cannot read {path!r}: {_reason(error)}") from error


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Adds what cannot be used to a ValueError that the block raises."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Cannot use {what}: {error}") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text) or type(error).__name__


# === Reading ===


def read_bytes(path: str) -> bytes:
    """Returns the content of a file; a ValueError says why there is none."""
    system, inside = _remote(path)
    try:
        if system is not None:
            return system.cat_file(inside)
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ValueError("the file does not exist") from None
    except Exception as error:
        if isinstance(error, IsADirectoryError):
            raise ValueError("a folder, not a file") from error
        raise ValueError(f"cannot be read: {_reason(error)}") from error


def match_urls(pattern: str) -> list[str]:
    """Lists the files that a URL with `*`, `?` or `[...]` matches."""
    system, inside = _remote(pattern)
    # What fsspec leaves out of a path, such as `s3://`.
    base = pattern.removesuffix(inside.lstrip("/"))
    found = reach(pattern, lambda: system.glob(inside, detail=True))
    return [
        base + name.lstrip("/")
        for name, entry in found.items()
        if not _is_folder(entry)
    ]


def _is_folder(entry: dict[str, Any]) -> bool:
    return entry["type"] == "directory"


def has_pattern(url: str) -> bool:
    """Returns whether a URL is a pattern; on the web, `?` begins a query."""
    is_web = scheme_of(url) in _WEB
    return glob.has_magic(url.replace("?", "") if is_web else url)


def identify(path: str) -> tuple[Any, ...]:
    """Returns what tells that a file has changed: its size, its time, ...

    On the web, where servers need not say when a file has changed, those that
    do not are asked for its content.
    """
    system, inside = _remote(path)
    if scheme_of(path) in _WEB:
        # fsspec takes files on the web for ones that never change.
        info = reach(path, lambda: system.info(inside))
        stamps = info.get("ETag"), info.get("Last-Modified")
        if any(stamps):
            return path, info.get("size"), *stamps
        content = reach(path, lambda: system.cat_file(inside))
        return path, hashlib.sha256(content).hexdigest()
    if system is not None:
        return path, reach(path, lambda: system.ukey(inside))
    try:
        local = os.stat(path)
    except OSError as error:
        raise ValueError(f"Cannot read {path!r}: {error.strerror}") from error
    return os.path.realpath(path), local.st_size, local.st_mtime_ns
