"""One process at a time works on a folder."""

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Sequence

from keras_sspcab.files import now

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Name of the file that is locked.
LOCK = ".lock"

# As `files.temporary_path` names them, and as earlier versions did: by process.
_LEFTOVER = re.compile(
    r"\.(.+)\.(?:[0-9a-f]{16}|\d+|\d+-[0-9a-f]{8})\.(tmp|old)(\.[^.]+)?"
)
# What Windows locks cannot be read: far behind the text.
_LOCKED_BYTE = 2**30
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextlib.contextmanager
def folder_lock(
    folder: "str | os.PathLike[str]",
    wait_seconds: float = 0.0,
    command: Sequence[str] | None = None,
    is_deep: bool = True,
) -> Iterator[bool]:
    """Keeps other processes off a folder, and removes what killed ones left.

    The system gives the lock back when its holder ends, however it ends: there
    are no stale ones. A folder that does not exist is made, and is gone again
    if nothing was put into it. Yields whether it is locked: one that cannot be
    written to is not, nor one in a file system that knows no locks.

    A ValueError says who holds the lock, if another still does after some
    seconds. `command` is what runs, to tell others; by default that of this
    process. If `is_deep`, leftovers are looked for in folders within, too, but
    for those that have locks of their own.
    """
    folder = os.path.abspath(folder)
    path, made = os.path.join(folder, LOCK), _missing_folders(folder)
    deadline = time.monotonic() + wait_seconds
    descriptor = None
    try:
        while descriptor is None:
            # Whoever has made it may take it away again, at any moment.
            _make_folder(folder)
            if os.path.exists(folder) and not os.access(folder, os.W_OK):
                break
            try:
                descriptor = _acquire(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                warnings.warn(
                    f"The file system of {folder} has no locks: give one "
                    "command at a time that writes there",
                    stacklevel=4,
                )
                break
            if descriptor is None and time.monotonic() >= deadline:
                raise ValueError(_describe_holder(folder, path))
            if descriptor is None:
                time.sleep(0.05)
        if descriptor is not None:
            _sign(descriptor, command)
            remove_leftovers(folder, is_deep)
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # While it is locked: afterwards it may be another's. A system that
            # keeps open files keeps this one, which does no harm.
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(descriptor)
        with contextlib.suppress(OSError):
            for empty in made:
                os.rmdir(empty)


def _missing_folders(folder: str) -> list[str]:
    """Returns a folder and those around it that do not exist yet."""
    missing, path = [], folder
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:
        # Or it was there, and is gone by now. A link may lead nowhere.
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise


def _acquire(path: str) -> int | None:
    """Returns the descriptor of the locked file; None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it may have removed the file in between.
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _sign(descriptor: int, command: Sequence[str] | None) -> None:
    """Writes down who holds the lock."""
    if command is None:
        command = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
    holder = {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "since": now(),
        "command": shlex.join(command),
    }
    # On a full disk the lock holds all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(holder).encode())


def _describe_holder(folder: str, path: str) -> str:
    who = "another process"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(path, encoding="utf-8") as file:
            holder = json.load(file)
        who = (
            f"process {holder['process']} on {holder['machine']} since "
            f"{holder['since']}: {holder['command']}"
        )
    return (
        f"{folder} is in use by {who}. Wait until it has ended, stop it, or "
        "choose another folder"
    )


def is_leftover(name: str) -> bool:
    """Whether a killed process may have left a file or folder of this name."""
    return name == LOCK or _LEFTOVER.fullmatch(name) is not None


def remove_leftovers(folder: str, is_deep: bool = True) -> None:
    """Removes what killed processes have left in a folder that is locked.

    A folder whose successor had not come into its place is put back.
    """
    for current, folders, names in os.walk(folder):
        if current != folder and LOCK in names:
            folders.clear()
            continue
        for name in [*names, *folders]:
            path, match = os.path.join(current, name), _LEFTOVER.fullmatch(name)
            if match is None:
                continue
            if name in folders:
                folders.remove(name)
            stem, kind, suffix = match.groups(default="")
            successor = os.path.join(current, f"{stem}{suffix}")
            with contextlib.suppress(OSError):
                if kind == "old" and not os.path.lexists(successor):
                    os.rename(path, successor)
                elif os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
        if not is_deep:
            return
