"""Where a repository keeps what is not yet, or no longer, in it."""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

# Beside `models`: the same file system, and no server looks there.
STAGING = ".staging"
_LOCK = ".lock"


@contextlib.contextmanager
def writing(directory: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time write to a repository, and tidies it.

    The lock ends with the process, however it ends. So what lies in the staging
    folder when a process has the lock was left there by one that was killed.
    Where the system knows no such locks nothing is locked, and nothing removed.

    Raises:
        ValueError: If another process is writing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / _LOCK, "a") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"Another process is writing to {os.fspath(directory)!r}. "
                    "Wait until it has finished."
                ) from error
            shutil.rmtree(directory / STAGING, ignore_errors=True)
        yield


@contextlib.contextmanager
def staging_folder(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder in a repository, which is removed at the end."""
    # Not by `tempfile`: a server that runs as another user must be able to
    # read what becomes of this folder.
    folder = directory / STAGING / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def move_into_place(staged: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a complete folder its name, in one step and for good."""
    for parent, _, names in os.walk(staged):
        for name in names:
            _sync(os.path.join(parent, name))
        _sync(parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(staged, target)
    _sync(target.parent)


def remove_folder(directory: pathlib.Path, folder: pathlib.Path) -> None:
    """Removes a folder of a repository; nobody sees half of it."""
    with staging_folder(directory) as staged:
        os.rename(folder, staged / folder.name)


def _sync(path: str | os.PathLike[str]) -> None:
    """Brings a file or folder to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder, where these cannot be opened
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
