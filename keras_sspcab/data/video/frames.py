"""Single frames, and folders with one image file a frame.

All formats are decoded with Pillow, TIFF as in UCSD's data sets included.
"""

import collections
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS

# Pixels of 16-bit images, as Pillow names them.
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")

# Frames that are decoded ahead of the one that is asked for.
_AHEAD = 8


def fit_frame(
    frame: Any, image_size: tuple[int, int] | None, channels: int
) -> np.ndarray:
    """Resizes a frame and converts it to gray or color.

    Bilinear with antialiasing, rounded to 8 bits: no value differs from that of
    `keras_sspcab.data.resize` by more than one step of 255. The aspect ratio is
    not kept.

    Args:
        frame: Pillow image, or uint8 array `(height, width)` or
            `(height, width, 1 or 3)`.
        image_size: Height and width, in pixels; None keeps the frame's.
        channels: 1 for gray (luma of BT.601) or 3 for color.

    Returns:
        uint8 array `(height, width, channels)`.

    Example:
    >>> import numpy as np
    >>> fit_frame(np.zeros((240, 320, 3), "uint8"), (64, 64), channels=1).shape
    (64, 64, 1)
    """
    image = frame
    if not isinstance(frame, Image.Image):
        pixels = np.asarray(frame)
        image = Image.fromarray(
            pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
        )
    if image.mode in _WIDE_MODES:
        # The upper 8 bits, as `decode_image` takes them.
        wide = np.asarray(image).astype("int64").clip(0, 65535)
        image = Image.fromarray((wide >> 8).astype("uint8"))
    image = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None and image.size != image_size[::-1]:
        image = image.resize(image_size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, channels)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `2` before `10`."""
    parts = re.split(r"(\d+)", name)
    return [
        (0, int(part), part) if part.isdigit() else (1, 0, part.lower())
        for part in parts
        if part
    ]


def list_by_name(folder: str, extensions: tuple[str, ...]) -> list[str]:
    """Lists the visible files with some extensions, in natural order."""
    names = [
        name
        for name in os.listdir(folder)
        if name[0] != "." and name.lower().endswith(extensions)
    ]
    names.sort(key=natural_key)
    return [os.path.join(folder, name) for name in names]


def list_frames(folder: str) -> list[str]:
    """Lists the image files of a folder of frames in their order.

    Names that differ in their last number alone are a numbering, which may
    start anywhere and have any step, but no gap.
    """
    try:
        paths = list_by_name(folder, IMAGE_EXTENSIONS)
    except OSError as error:
        raise ValueError(
            f"Cannot read the folder of frames {folder!r}: {error.strerror}"
        ) from error
    if not paths:
        raise ValueError(
            f"The folder holds no frames. Received: {folder!r}. Accepted "
            f"extensions: {' '.join(IMAGE_EXTENSIONS)}"
        )
    _require_numbering(folder, [os.path.basename(path) for path in paths])
    return paths


def read_frame(
    path: str,
    image_size: tuple[int, int] | None = None,
    channels: int = 3,
    source_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Decodes the frame in an image file, which must have the `source_size`.

    Of several pages, the first one is read. See `fit_frame` for the result.
    """
    with _open(path) as image:
        if source_size is not None and image.size != source_size[::-1]:
            raise ValueError(
                "The frames of a video must have one size. Received: "
                f"{path!r} of {image.height}x{image.width} pixels, others of "
                f"{source_size[0]}x{source_size[1]}"
            )
        try:
            return fit_frame(image, image_size, channels)
        except Exception as error:
            # Pillow raises many types on broken files.
            raise _broken(path, error) from error


def frame_size(path: str) -> tuple[int, int]:
    """Returns height and width from the head of an image file."""
    with _open(path) as image:
        return image.height, image.width


def iterate_folder(
    paths: Sequence[str], image_size: tuple[int, int] | None, channels: int
) -> Iterator[np.ndarray]:
    """Yields frames in order; some are decoded ahead, in threads."""
    source_size = frame_size(paths[0])
    options = image_size, channels, source_size
    pending: collections.deque = collections.deque()
    pool = ThreadPoolExecutor(min(_AHEAD, os.cpu_count() or 1))
    try:
        for path in paths:
            pending.append(pool.submit(read_frame, path, *options))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _open(path: str) -> Image.Image:
    try:
        return Image.open(path)
    except Exception as error:
        raise _broken(path, error) from error


def _broken(path: str, error: Exception) -> ValueError:
    if not os.path.exists(path):
        return ValueError(f"The frame {path!r} does not exist.")
    size = os.path.getsize(path)
    what = "is empty" if not size else f"cannot be decoded, of {size} bytes"
    return ValueError(f"The frame {path!r} {what}: {error}")


def _require_numbering(folder: str, names: list[str]) -> None:
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    prefixes = {match and match[1] for match in matches}
    if len(names) < 2 or None in prefixes or len(prefixes) > 1:
        return
    numbers = [int(match[2]) for match in matches if match]
    steps = np.diff(numbers)
    if not steps.all():
        twice = int(np.argmin(steps))
        raise ValueError(
            "Two frames have the same number. Received: "
            f"{names[twice]} and {names[twice + 1]} in {folder!r}"
        )
    step = int(steps.min())
    if (steps % step).any():
        # No numbering, but moments in time.
        return
    missing = sorted({*range(numbers[0], numbers[-1], step)} - {*numbers})
    if missing:
        raise ValueError(
            f"Frames are missing in the numbering of {folder!r}. Received: "
            f"{len(names)} frames from {names[0]} to {names[-1]}, without "
            f"{enumerate_names(map(str, missing))}. Restore them; or, if "
            "nothing is missing in time, renumber the frames."
        )
