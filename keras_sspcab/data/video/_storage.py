"""Arrays on disk that grow frame by frame and appear complete or not at all."""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import frame_paths


def cache_path(
    folder: str,
    video: Video,
    settings: dict[str, Any],
    more_files: Iterable[str] = (),
) -> str:
    """Returns where something about a video is kept.

    The name follows from the settings and from the path, size and time of
    change of each of the video's files, and of `more_files`: what has changed
    is made anew.
    """
    paths = [video.path] if video.kind == "file" else frame_paths(video)
    digest = hashlib.sha256()
    for path in [*paths, *more_files]:
        try:
            status = os.stat(path)
        except OSError as error:
            raise ValueError(
                f"Cannot read {path!r}: {error.strerror}"
            ) from error
        identity = os.path.realpath(path), status.st_size, status.st_mtime_ns
        digest.update(f"{identity}\0".encode("utf-8", "surrogateescape"))
    digest.update(json.dumps(settings, sort_keys=True).encode())
    name = re.sub(r"[^\w.-]+", "_", video.name)[-60:].lstrip(".")
    return os.path.join(folder, f"{name}-{digest.hexdigest()[:20]}.npy")


def open_array(path: str) -> np.ndarray | None:
    """Maps a stored array into memory; None if there is none or it is cut."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None


def write_frames(
    path: str, frames: Iterable[np.ndarray], dtype: str
) -> np.ndarray:
    """Stores frames as one `.npy` file, without holding them in memory.

    The file is written under another name in the same folder and moved.

    Args:
        path: The file.
        frames: Arrays of one shape, at least one.
        dtype: Little-endian type that they are stored as.

    Returns:
        Read-only array `(frames, ...)` that is mapped from the file.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.partial"
    try:
        with open(temporary, "wb") as file:
            count = 0
            shape: tuple[int, ...] = ()
            for frame in frames:
                if not count:
                    shape = frame.shape
                    _write_header(file, (0, *shape), dtype)
                    start = file.tell()
                file.write(np.ascontiguousarray(frame, dtype).data)
                count += 1
            if not count:
                raise ValueError(f"There are no frames to write to {path!r}.")
            file.seek(0)
            # numpy leaves room in the header for a longer first axis.
            _write_header(file, (count, *shape), dtype)
            if file.tell() != start:
                raise RuntimeError(
                    "The header of the array has changed its length."
                )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write_header(file: Any, shape: tuple[int, ...], dtype: str) -> None:
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        },
    )
