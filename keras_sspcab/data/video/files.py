"""Video files of any container and codec that FFmpeg knows, through PyAV.

They are read and written one frame at a time, so that their length does not
matter.
"""

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_sspcab.data.image_files import pixels_of
from keras_sspcab.data.video.frames import fit_frame
from keras_sspcab.files import replacing
from keras_sspcab.imports import import_optional
from keras_sspcab.preprocessing import Preprocessing

#: Extensions of files that are taken for videos, in any case.
VIDEO_EXTENSIONS = (
    ".3g2", ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".h264", ".h265",
    ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
    ".y4m",
)  # fmt: skip

#: Frames a second of folders of frames, and of files that state none.
DEFAULT_RATE = Fraction(25)

# Cameras write them, and use less than their 16 bits.
_WIDE_GRAY, _WIDE_COLOR = "gray16le", "rgb48le"

# A file may end this much earlier than it states, in seconds.
_TOLERANCE = 1.0

# Encoders by preference, with the most ticks a second that they count in which
# are a multiple of most frame rates; every build of FFmpeg has the second one.
_CODECS = {"libx264": 120_000, "mpeg4": 60_000}


def iterate_file(
    path: str,
    image_size: tuple[int, int] | None,
    channels: int,
    num_frames: int | None = None,
    preprocessing: Preprocessing | None = None,
    **live: Any,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the frames of a video file as they are shown, with their times.

    Times are seconds from the first frame on; those that are missing or do not
    grow follow from the frame rate. There must be `num_frames`; None takes the
    number, or else the end, that the container states. `live` are the options
    with which a camera or a stream is opened.
    """
    # Phones cut videos by lists of what to show, and keep the rest.
    count = hidden = 0
    last = duration = 0.0
    size = start = rotation = None

    def decode(container: Any, stream: Any) -> Iterator[Any]:
        nonlocal count, hidden
        since = time.monotonic()
        try:
            for packet in container.demux(stream):
                hidden += packet.is_discard
                found = []
                try:
                    found = packet.decode()
                except _pyav().error.InvalidDataError:
                    # Parts of streams get lost on their way.
                    if not live:
                        raise
                if found:
                    since = time.monotonic()
                elif live and time.monotonic() - since > live["timeout"][1]:
                    # Nothing decodes them, as after a change of codec.
                    raise ValueError("no frame in what the stream sends")
                for frame in found:
                    yield frame
                    count += 1
        except (_pyav().error.FFmpegError, IndexError) as error:
            if count == num_frames:
                return
            stated = f"; or state Video(..., num_frames={count}), if it "
            stated += "has no more frames than those before"
            raise ValueError(
                f"The video {path!r} is broken at frame {count}: {error}. "
                "Repair it, for instance by encoding it again"
                f"{stated if count and not live else ''}."
            ) from error

    with _open(path, **live) as (container, stream):
        # Threads for whole frames delay them.
        stream.thread_type = "SLICE" if live else "AUTO"
        step = 1.0 / float(_rate_of(stream))
        seconds = -step
        for frame in decode(container, stream):
            kind = "gray" if channels == 1 else "rgb24"
            kind = _wide_kind(frame.format) or kind
            if rotation != frame.rotation:
                rotation, turn = frame.rotation, _turn_of(frame, path)
            pixels = turn(frame.to_ndarray(format=kind))
            size = size or pixels.shape[:2]
            if size != pixels.shape[:2]:
                height, width = pixels.shape[:2]
                raise ValueError(
                    "The frames of a video must have one size. Received: "
                    f"{path!r}, frame {count} of {height}x{width} "
                    f"pixels, those before of {size[0]}x{size[1]}"
                )
            last = frame.time or 0.0
            # Older PyAVs do not say for how long a frame is shown.
            shown = getattr(frame, "duration", 0) or 0
            duration = float(shown * (frame.time_base or 0)) or step
            start = last if start is None else start
            is_later = frame.time is not None and last - start > seconds
            seconds = last - start if is_later else seconds + step
            try:
                picture: Any = pixels
                if kind == _WIDE_GRAY:
                    picture = Image.fromarray(pixels)
                elif kind == _WIDE_COLOR:
                    picture = _narrow(pixels, channels, preprocessing)
                fitted = fit_frame(picture, image_size, channels, preprocessing)
            except ValueError as error:
                raise ValueError(
                    f"The video {path!r} has a frame {count} that cannot "
                    f"be used. {error}"
                ) from error
            yield seconds, fitted
        expected = num_frames or (stream.frames and stream.frames - hidden)
        end = None if expected else _stated_end(stream)
    _require_frames(count, path)
    last += duration
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


def brightest_value_of_file(path: str) -> int | None:
    """Returns the largest value in a video of 16 bits; None for others."""
    with _open(path) as (container, stream):
        kind = _wide_kind(stream.codec_context.format)
        if kind is None:
            return None
        frames = container.decode(stream)
        return max(int(frame.to_ndarray(format=kind).max()) for frame in frames)


def count_file(path: str) -> int:
    """Returns the frames that a file states, or else the number of packets."""
    with _open(path) as (container, stream):
        stated = int(stream.frames)
        length = (stream.duration or 0) * (stream.time_base or 0)
        if stated and length * _rate_of(stream) > stated - 0.5:
            return stated
        # It states no number, or may show less than it holds.
        packets = [p.is_discard for p in container.demux(stream) if p.size]
        count = (stated or len(packets)) - sum(packets)
    _require_frames(count, path)
    return count


def file_rate(path: str) -> Fraction:
    """Returns the frames a second that a file states, or 25."""
    with _open(path) as (_, stream):
        return _rate_of(stream)


@contextlib.contextmanager
def video_writer(
    path: str, rate: Any = DEFAULT_RATE
) -> Iterator[Callable[..., None]]:
    """Yields a function that appends frames to a new video file.

    The file appears when the block has ended; if it fails, one that was there
    before stays. It is H.264, or MPEG-4 where the encoder is missing. Sides are
    made even by repeating the last row or column. The function takes a uint8
    array `(height, width, 3)`, RGB, of the size of the first one, and maybe the
    time at which it is shown, in seconds; by default as the `rate` says.

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
        tick = stream.codec_context.time_base = Fraction(1, _CODECS[codec])
        size: tuple[int, ...] | None = None
        count, last = 0, -1

        def write(frame: np.ndarray, seconds: float | None = None) -> None:
            nonlocal size, count, last
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
            if seconds is None:
                seconds = count / float(rate)
            picture.time_base = tick
            picture.pts = last = max(round(seconds / tick), last + 1)
            count += 1
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
def _open(path: str, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the container and the video stream that FFmpeg plays."""
    av = _pyav()
    try:
        # Titles need not be in UTF-8.
        with av.open(path, metadata_errors="replace", **options) as container:
            # Covers and thumbnails are streams as well.
            is_picture = av.stream.Disposition.attached_pic
            videos = [
                stream
                for stream in container.streams.video
                if not stream.disposition & is_picture
            ]
            if not videos:
                raise ValueError(
                    f"The file {path!r} holds no video: it is truncated, or of "
                    "another kind."
                )
            best = container.streams.best("video")
            yield container, best if best in videos else videos[0]
    except av.error.FFmpegError as error:
        is_empty = os.path.isfile(path) and not os.path.getsize(path)
        reason = "the file is empty" if is_empty else error
        raise ValueError(
            f"The video {path!r} cannot be read: {reason}"
        ) from error


def _wide_kind(pixel_format: Any) -> str | None:
    """Returns the kind that keeps 16 bits; None for all other formats."""
    # Others state how many bits they use; in YUV, the whole range has to.
    found = re.fullmatch(
        "((gray|ya)16|gbra?p16|(rgb|bgr)48|(rgba|bgra)64|bayer_....16)[bl]e",
        pixel_format.name,
    )
    if found is None:
        return None
    return _WIDE_GRAY if found[2] else _WIDE_COLOR


def _narrow(
    pixels: np.ndarray, channels: int, preprocessing: Preprocessing | None
) -> np.ndarray:
    """Returns 8 bits of colors of 16, as those of image files."""
    encoded = tf.io.encode_png(pixels, compression=0).numpy()
    return pixels_of(encoded, channels, preprocessing, tf.uint8).numpy()


def _rate_of(stream: Any) -> Fraction:
    return Fraction(stream.average_rate or DEFAULT_RATE)


def _turn_of(frame: Any, path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what turns and mirrors frames upright, as players do."""
    try:
        kind = _pyav().sidedata.sidedata.Type.DISPLAYMATRIX
        matrix = frame.side_data.get(kind)
    except ValueError:
        # PyAV does not know everything that a frame may carry.
        return functools.partial(np.rot90, k=frame.rotation // 90)
    if matrix is None:
        return lambda pixels: pixels
    a, b, _, c, d, *_ = np.frombuffer(matrix, "i4").tolist()
    straight, across = max(abs(a), abs(d)), max(abs(b), abs(c))
    if 100 * min(straight, across) > max(straight, across):
        raise ValueError(
            "A video may be turned by quarters only. Received: "
            f"{path!r}, turned by {frame.rotation} degrees"
        )
    is_across = across > straight
    steps = [-1 if x < 0 else 1 for x in ((b, c) if is_across else (d, a))]

    def turn(pixels: np.ndarray) -> np.ndarray:
        turned = pixels.swapaxes(0, 1) if is_across else pixels
        return turned[:: steps[0], :: steps[1]]

    return turn


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
