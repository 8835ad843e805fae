"""Video files of any container and codec that FFmpeg knows, through PyAV.

They are read and written one frame at a time, so that their length does not
matter.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from keras_sspcab.data.video.frames import fit_frame
from keras_sspcab.imports import import_optional
from keras_sspcab.runs.files import replacing

#: Extensions of files that are taken for videos, in any case.
VIDEO_EXTENSIONS = (
    ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv",
)  # fmt: skip

#: Frames a second of folders of frames, and of files that state none.
DEFAULT_RATE = Fraction(25)

# A file may end this much earlier than it states, in seconds.
_TOLERANCE = 1.0

# Encoders by preference; the second one is part of every build of FFmpeg.
_CODECS = ("libx264", "mpeg4")


def iterate_file(
    path: str,
    image_size: tuple[int, int] | None,
    channels: int,
    num_frames: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the frames of a video file, in the order they are shown.

    There must be `num_frames`; None takes the number that the container states
    (AVI and MP4 do), or else the end that it states (MKV mostly does).
    """
    count = 0
    size = None
    last = 0.0
    with _open(path) as (container, stream):
        stream.thread_type = "AUTO"
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except (_pyav().error.FFmpegError, IndexError) as error:
                raise ValueError(
                    f"The video {path!r} is broken at frame {count}: {error}. "
                    "Repair it, for instance by encoding it again."
                ) from error
            size = size or (frame.height, frame.width)
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
    _require_frames(count, path)
    fault = ""
    if expected and count != expected:
        fault = f"has {expected} frames as it states, but {count}"
    elif end is not None and last < end - _TOLERANCE:
        fault = f"lasts {end:.1f} seconds as it states, but {last:.1f}"
    if fault:
        raise ValueError(
            f"The video {path!r} {fault} can be decoded: it is truncated or "
            "broken. Restore it; or, if the number of frames is right, state "
            f"Video(..., num_frames={count})."
        )


def count_file(path: str) -> int:
    """Returns the frames that a file states, or else the number of packets."""
    with _open(path) as (container, stream):
        if stream.frames:
            return int(stream.frames)
        count = sum(packet.size > 0 for packet in container.demux(stream))
    _require_frames(count, path)
    return count


def file_rate(path: str) -> Fraction:
    """Returns the frames a second that a file states, or 25."""
    with _open(path) as (_, stream):
        return Fraction(stream.average_rate or DEFAULT_RATE)


@contextlib.contextmanager
def video_writer(
    path: str, rate: Any = DEFAULT_RATE
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields a function that appends frames to a new video file.

    The file appears when the block has ended; if it fails, one that was there
    before stays. It is H.264, or MPEG-4 where the encoder is missing. Sides are
    made even by repeating the last row or column.

    Args:
        path: The file, `.mp4` for instance.
        rate: Frames a second. Defaults to 25.

    Yields:
        A function of a uint8 array `(height, width, 3)`, RGB. All frames have
        the size of the first one.

    Raises:
        ValueError: If a frame is not as described, or there is none.
        ImportError: If PyAV is missing.

    Example:
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "black.mp4")
    ...     with video_writer(path, rate=10) as write:
    ...         write(np.zeros((32, 48, 3), "uint8"))
    ...     count_file(path)
    1
    """
    av = _pyav()
    codec = next(name for name in _CODECS if name in av.codecs_available)
    with (
        replacing(path) as temporary,
        # Closed before the file is moved.
        av.open(temporary, "w") as container,
    ):
        stream = container.add_stream(
            codec, rate=Fraction(rate).limit_denominator(1001)
        )
        stream.pix_fmt = "yuv420p"
        size: tuple[int, ...] | None = None

        def write(frame: np.ndarray) -> None:
            nonlocal size
            pixels = np.asarray(frame)
            is_first, size = size is None, size or pixels.shape
            if pixels.dtype != np.uint8 or pixels.shape != (*size[:2], 3):
                raise ValueError(
                    "Frames must be uint8 arrays (height, width, 3) of one "
                    f"size. Received: {pixels.dtype} of shape "
                    f"{pixels.shape} for {path!r}, the first one of {size}"
                )
            odd = [(0, side % 2) for side in pixels.shape[:2]]
            pixels = np.pad(pixels, [*odd, (0, 0)], mode="edge")
            if is_first:
                stream.height, stream.width = pixels.shape[:2]
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), "rgb24"
            )
            container.mux(stream.encode(picture))

        yield write
        if size is None:
            raise ValueError(
                f"A video needs at least one frame. Received: none for {path!r}"
            )
        container.mux(stream.encode())


def _pyav() -> Any:
    return import_optional("av", "Video files need PyAV", "video")


@contextlib.contextmanager
def _open(path: str) -> Iterator[tuple[Any, Any]]:
    """Yields the container and its first video stream."""
    av = _pyav()
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ValueError(
                    f"The file {path!r} holds no video: it is truncated, or of "
                    "another kind."
                )
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        is_empty = os.path.isfile(path) and not os.path.getsize(path)
        reason = "the file is empty" if is_empty else error
        raise ValueError(
            f"The video {path!r} cannot be read: {reason}"
        ) from error


def _require_frames(count: int, path: str) -> None:
    if not count:
        raise ValueError(f"The video {path!r} holds no frame.")


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
