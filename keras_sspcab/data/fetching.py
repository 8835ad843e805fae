"""Downloads files over HTTP, and goes on where that was stopped."""

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from typing import Any

from keras_sspcab.files import OutOfSpaceError, telling_full_disks
from keras_sspcab.progress import Progress

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60.0
# In a row, in which not a byte has come.
_MAX_FAILURES = 5
# Answers after which it may be different a little later.
_BUSY = (408, 425, 429, 500, 502, 503, 504)
# An archive and what is unpacked from it, in sizes of the archive.
_ROOM = 2.5


def fetch(url: str, path: str, progress: Progress) -> None:
    """Downloads a file, or what is missing of it if a part is there.

    A connection that breaks is made again. A ValueError says what the server
    has answered; an OutOfSpaceError, before it begins, how much room is needed
    to download and unpack.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(
            "The `url` argument must begin with http:// or https://. "
            f"Received: url={url!r}"
        )
    failures = 0
    while True:
        done = _size_of(path)
        try:
            if _fetch_rest(url, path, done, progress):
                return
            reason = "the connection broke"
        except OutOfSpaceError:
            raise
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # All is there.
            reason = f"the server answers {error.code} {error.reason}"
            if error.code not in _BUSY:
                raise ValueError(f"Cannot download {url}: {reason}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error)
        failures = 0 if _size_of(path) > done else failures + 1
        if failures == _MAX_FAILURES:
            kept = f" What has come is kept in {path}" if done else ""
            raise ValueError(
                f"Cannot download {url}: {reason}, {failures} times.{kept} "
                "Give the command again later"
            )
        time.sleep(2.0**failures)


def _fetch_rest(url: str, path: str, done: int, progress: Progress) -> bool:
    """Appends a response to a file; returns whether it is complete."""
    request = urllib.request.Request(
        url, headers={"User-Agent": "keras-sspcab"}
    )
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        begins = f"bytes {done}-"
        if not answer.headers.get("Content-Range", "").startswith(begins):
            done = 0  # It cannot continue: all comes again.
        length = answer.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        if total is not None:
            _require_room(path, int(_ROOM * total) - done)
        mebibytes = None if total is None else -(-total // _BLOCK)
        title = f"{os.path.basename(path)}, MiB"
        with (
            progress.count(title, mebibytes) as advance,
            telling_full_disks(path),
            open(path, "ab" if done else "wb") as file,
        ):
            for _ in range(done // _BLOCK):
                advance()
            _copy(answer, file, advance)
    return total is None or _size_of(path) == total


def _copy(answer: Any, file: Any, advance: Any) -> None:
    while block := answer.read(_BLOCK):
        file.write(block)
        advance()


def _require_room(path: str, needed: int) -> None:
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if free < needed:
        raise OutOfSpaceError(
            f"To download and unpack {os.path.basename(path)} takes about "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Make "
            "room, or choose a folder on another disk with the `out` argument"
        )


def _size_of(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
