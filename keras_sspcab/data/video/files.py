"""Video files: any container and codec that FFmpeg knows, through PyAV.

Files are read from the beginning to the end, one frame in memory at a time, so
that their length does not matter.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from keras_sspcab.data.video._pyav import pyav
from keras_sspcab.data.video.pixels import fit_frame

#: Extensions of files that are taken for videos, in any case.
VIDEO_EXTENSIONS = (
    ".avi",
    ".flv",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".ts",
    ".webm",
    ".wmv",
)

# A file may end this much earlier than it states, in seconds.
_TOLERANCE = 1.0


def is_video(name: str) -> bool:
    """Says whether a file is a video, by its extension."""
    return name.lower().endswith(VIDEO_EXTENSIONS)


def iterate_file(
    path: str,
    image_size: tuple[int, int] | None,
    channels: int,
    num_frames: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the frames of a video file, in the order they are shown.

    Args:
        path: The file.
        image_size: Height and width, in pixels; None keeps the file's.
        channels: 1 for gray or 3 for color.
        num_frames: How many frames there must be. None takes what the
            container states (AVI and MP4 do), or else the end that it states
            (MKV mostly does).

    Yields:
        uint8 arrays `(height, width, channels)`; see `fit_frame`.

    Raises:
        ValueError: If the file cannot be decoded, ends too early, or if its
            frames change their size. The error names file and frame.
    """
    count = 0
    size = None
    last = 0.0
    with _open(path) as (container, stream):
        stream.thread_type = "AUTO"
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames, None)
            except (pyav().error.FFmpegError, IndexError) as error:
                raise ValueError(
                    f"The video {path!r} is broken at frame {count}: {error}. "
                    "Mend it, for instance by encoding it anew."
                ) from error
            if frame is None:
                break
            if size is None:
                size = frame.height, frame.width
            if size != (frame.height, frame.width):
                raise ValueError(
                    "The frames of a video must have one size. Received: "
                    f"{path!r}, frame {count} of {frame.height}x{frame.width} "
                    f"pixels, those before of {size[0]}x{size[1]}"
                )
            last = frame.time or 0.0
            count += 1
            kind = "gray" if channels == 1 else "rgb24"
            yield fit_frame(frame.to_ndarray(format=kind), image_size, channels)
        expected = num_frames or stream.frames
        end = None if expected else _stated_end(stream)
    if not count:
        raise ValueError(f"The video {path!r} holds no frame.")
    if expected and count != expected:
        raise ValueError(
            f"The video {path!r} has {expected} frames as it states, but "
            f"{count} of them can be decoded: it is truncated or broken. "
            f"Restore it; or, if {count} are right, state "
            f"Video(..., num_frames={count})."
        )
    if end is not None and not num_frames and last < end - _TOLERANCE:
        raise ValueError(
            f"The video {path!r} lasts {end:.1f} seconds as it states, but "
            f"ends after {last:.1f}, at frame {count}: it is truncated. "
            f"Restore it; or, if {count} frames are right, state "
            f"Video(..., num_frames={count})."
        )


def count_file(path: str) -> int:
    """Returns how many frames a video file has, without decoding it.

    The container states it, or else its packets are counted.

    Raises:
        ValueError: If the file is no video.
    """
    with _open(path) as (container, stream):
        if stream.frames:
            return int(stream.frames)
        try:
            packets = container.demux(stream)
            count = sum(1 for packet in packets if packet.size)
        except pyav().error.FFmpegError as error:
            raise ValueError(
                f"The video {path!r} cannot be read: {error}"
            ) from error
    if not count:
        raise ValueError(f"The video {path!r} holds no frame.")
    return count


def file_rate(path: str) -> Fraction | None:
    """Returns the frames a second that a video file states, or None.

    Raises:
        ValueError: If the file is no video.
    """
    with _open(path) as (_, stream):
        rate = stream.average_rate
    return Fraction(rate) if rate else None


@contextlib.contextmanager
def _open(path: str) -> Iterator[tuple[Any, Any]]:
    """Yields the container and its first video stream."""
    av = pyav()
    try:
        container = av.open(path)
    except av.error.FFmpegError as error:
        reason = str(error)
        if os.path.isfile(path) and not os.path.getsize(path):
            reason = "the file is empty"
        raise ValueError(
            f"The video {path!r} cannot be read: {reason}"
        ) from error
    with container:
        if not container.streams.video:
            raise ValueError(
                f"The file {path!r} holds no video: it is truncated, or of "
                "another kind."
            )
        yield container, container.streams.video[0]


def _stated_end(stream: Any) -> float | None:
    """Returns the length of the video in seconds, if its file states it."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska keeps it as text, such as 00:01:02.500000000.
    text = stream.metadata.get("DURATION", "")
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", text)
    if match is None:
        return None
    hours, minutes, seconds = map(float, match.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds
