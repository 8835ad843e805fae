"""Video files, written frame by frame."""

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from keras_sspcab.data.video._pyav import pyav
from keras_sspcab.data.video.files import file_rate
from keras_sspcab.data.video.folder import Video
from keras_sspcab.runs import files

#: Of folders of frames, and of files that state none.
DEFAULT_RATE = Fraction(25)

# The second one is part of every build of FFmpeg.
_CODECS = ("libx264", "mpeg4")


@contextlib.contextmanager
def video_writer(
    path: str, rate: Any = DEFAULT_RATE
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields a function that appends frames to a video file.

    The file appears when the block has ended; if it fails, one that was there
    before stays. It is H.264, or MPEG-4 where the encoder is missing. Sides are
    made even by repeating the last row or column.

    Args:
        path: The file, `.mp4` for instance.
        rate: Frames a second.

    Yields:
        A function of a uint8 array `(height, width, 3)`, RGB. All frames have
        the size of the first one.

    Raises:
        ValueError: If a frame is not as described, or there is none.
        ImportError: If PyAV is missing.
    """
    av = pyav()
    codec = next(name for name in _CODECS if name in av.codecs_available)
    with (
        files.replacing(path) as temporary,
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


def frame_rate(video: Video) -> Fraction:
    """Returns the frames a second of a video: 25 where nothing states it.

    Raises:
        ValueError: If a video file cannot be read.
    """
    rate = file_rate(video.path) if video.kind == "file" else None
    return rate or DEFAULT_RATE
