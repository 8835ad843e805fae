"""Single frames, and folders with one image file a frame.

All formats are decoded with Pillow, TIFF as in UCSD's data sets included.
"""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, ImageOps

from keras_sspcab.data import image_files
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.parallel import parallel_iterate
from keras_sspcab.data.resizing import resize
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.preprocessing import Preprocessing

# Pixels of 16-bit images, as Pillow names them.
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")

# Frames that are decoded ahead of the one that is asked for.
_AHEAD = 8


def fit_frame(
    frame: Any,
    image_size: tuple[int, int] | None,
    channels: int,
    preprocessing: Preprocessing | None = None,
) -> np.ndarray:
    """Resizes a frame and converts it to gray (luma of BT.601) or color.

    As `keras_sspcab.data.resize` does it, rounded to 8 bits; by the method
    `"bilinear"`, which is that of Pillow here, no value differs by more than
    one step of 255.

    Args:
        frame: Pillow image, which is turned as its EXIF data say; or uint8
            array `(height, width)` or `(height, width, 1 or 3)`, gray or RGB.
            Floats are refused: whether white is 1 or 255, they do not tell.
        image_size: Height and width, in pixels; None keeps the frame's.
        channels: 1 for gray or 3 for color.
        preprocessing: Has the way to resize, and the white level of images with
            16 bits, of which the upper 8 bits up to it are taken; brighter ones
            are refused. None for the default of both.

    Returns:
        uint8 array `(height, width, channels)`.

    Example:
    >>> import numpy as np
    >>> fit_frame(np.zeros((240, 320, 3), "uint8"), (64, 64), channels=1).shape
    (64, 64, 1)
    """
    if isinstance(frame, Image.Image):
        # Before it is loaded, which drops what tells.
        _require_kept(frame)
        image = _upright(frame)
    else:
        pixels = np.asarray(frame)
        is_picture = pixels.ndim == 2 or pixels.shape[2:] in ((1,), (3,))
        if pixels.dtype != np.uint8 or not is_picture or not pixels.size:
            raise ValueError(
                "A frame must be a Pillow image, or a uint8 array (height, "
                "width), (height, width, 1) or (height, width, 3), RGB. "
                f"Received: {pixels.dtype} of shape {pixels.shape}. Of floats "
                "in [0, 1] give numpy.uint8(numpy.rint(255 * frame))"
            )
        image = Image.fromarray(
            pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
        )
    preprocessing = preprocessing or Preprocessing()
    if image_size is not None and preprocessing.fit != "stretch":
        raise ValueError(
            "Frames of videos are stretched to their size. Received: "
            f"fit={preprocessing.fit!r}, which is for images"
        )
    if image.mode in _WIDE_MODES:
        white_level = preprocessing.white_level
        wide = np.asarray(image).astype("int64")
        if wide.min() < 0 or wide.max() > white_level:
            raise ValueError(
                f"Values must be from 0 to {white_level}, the white level. "
                f"Received: {wide.min()} to {wide.max()}"
            )
        bits = white_level.bit_length() - 8
        image = Image.fromarray((wide >> bits).astype("uint8"))
    elif image.mode == "F":
        raise ValueError("Pixels must be whole numbers. Received: floats")
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = image_size or (image.height, image.width)
    method, is_resized = preprocessing.resize, image.size != (width, height)
    if is_resized and method == "bilinear":
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    fitted = np.asarray(image).reshape(image.height, image.width, channels)
    if is_resized and method != "bilinear":
        resized = resize(fitted, (height, width), method).numpy()
        fitted = np.rint(255 * resized).astype("uint8")
    return fitted


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `2` before `10`."""
    parts = re.split(r"(\d+)", name)
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part.lower())
        for part in parts
        if part
    ]


def list_by_name(folder: str, extensions: tuple[str, ...]) -> list[str]:
    """Lists the visible files with some extensions, in natural order.

    Names that end in numbers with a decimal point are sorted by these.
    """
    names = [
        name
        for name in os.listdir(folder)
        if name[0] != "." and name.lower().endswith(extensions)
    ]
    names.sort(key=natural_key)
    if moments := _moments_of(folder, names):
        names.sort(key=moments.__getitem__)
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
    preprocessing: Preprocessing | None = None,
) -> np.ndarray:
    """Decodes the frame in an image file, which must have the `source_size`.

    See `fit_frame` for the result.
    """
    try:
        with Image.open(path) as file:
            frame: Any = file
            if _is_wide_png(file):
                frame = image_files.read_pixels(
                    path, channels, preprocessing, tf.uint8
                ).numpy()
                size = frame.shape[:2]
            else:
                _require_kept(file)
                if file.format == "TIFF":
                    image_files.require_single_page(file)
                frame = _upright(file)
                size = frame.height, frame.width
            pixels = fit_frame(frame, image_size, channels, preprocessing)
    except Exception as error:
        # Pillow raises many types on broken files.
        if not os.path.exists(path):
            raise ValueError(f"The frame {path!r} does not exist.") from error
        length = os.path.getsize(path)
        what = f"cannot be decoded, of {length} bytes" if length else "is empty"
        raise ValueError(f"The frame {path!r} {what}: {error}") from error
    if source_size is not None and size != source_size:
        raise ValueError(
            "The frames of a video must have one size. Received: "
            f"{path!r} of {size[0]}x{size[1]} pixels, others of "
            f"{source_size[0]}x{source_size[1]}"
        )
    return pixels


def frame_size(path: str) -> tuple[int, int]:
    """Returns height and width of an image file, turned upright."""
    height, width, _ = read_frame(path, channels=1).shape
    return height, width


def brightest_value(path: str) -> int | None:
    """Returns the largest value in an image of 16 bits; None for others."""
    with Image.open(path) as image:
        if _is_wide_png(image):
            return image_files.brightest_value(path)
        is_wide = image.mode in _WIDE_MODES
        return int(np.asarray(image).max()) if is_wide else None


def iterate_folder(
    paths: Sequence[str],
    image_size: tuple[int, int] | None,
    channels: int,
    preprocessing: Preprocessing | None = None,
) -> Iterator[np.ndarray]:
    """Yields frames in order; some are decoded ahead, in threads."""
    options = image_size, channels, frame_size(paths[0]), preprocessing
    yield from parallel_iterate(
        lambda path: read_frame(path, *options), paths, ahead=_AHEAD
    )


def _is_wide_png(image: Image.Image) -> bool:
    return image.format == "PNG" and image_files.has_wide_colors(image)


def _require_kept(image: Image.Image) -> None:
    """Raises a ValueError if Pillow changes the values of a file."""
    if image_files.has_wide_colors(image) or image_files.is_reversed(image):
        raise ValueError(
            "16 bits must be gray, with 0 for black; colors of 16 bits are "
            f"read from PNG files alone. Received: a {image.format} of mode "
            f"{image.mode}. Convert it to PNG, with 8 or 16 bits"
        )


def _upright(image: Image.Image) -> Image.Image:
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if is_turned else image


def _moments_of(folder: str, names: list[str]) -> dict[str, float]:
    """Returns numbers with a decimal point, if nothing else tells names apart.

    Programs write seconds so: 0.96, 1.0, 1.04. Empty for a numbering in two
    parts, such as 1.8, 1.9, 1.10, and where all have as many decimals: other
    names are sorted rightly anyway.
    """
    if not re.search(r"\d\.\d.*\.", "\n".join(names)):
        return {}
    stems = [os.path.splitext(name)[0] for name in names]
    matches = [re.fullmatch(r"(.*?)(\d+(?:\.(\d+))?)", stem) for stem in stems]
    found = [match for match in matches if match]
    decimals = [match[3] or "" for match in found]
    lengths = {*map(len, decimals)}
    if (
        len(found) < len(names)
        or len({match[1] for match in found}) > 1
        or len(lengths) < 2
        or any(d.endswith("0") and d != "0" for d in decimals)
    ):
        return {}
    values = [float(match[2]) for match in found]
    steps = np.diff(sorted(values))
    is_even = np.ptp(steps) <= 2 * 10.0 ** -max(lengths) + 1e-6
    if not is_even and not any(d[0] == "0" for d in decimals if len(d) > 1):
        raise ValueError(
            "Numbers with a point must have a fixed number of decimals, or "
            f"their order is unclear. Received: {enumerate_names(names)} in "
            f"{folder!r}. Rename them, such as 0.50, 0.75, 1.00"
        )
    return dict(zip(names, values, strict=True))


def _require_numbering(folder: str, names: list[str]) -> None:
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    prefixes = {match and match[1] for match in matches}
    if len(names) < 2 or None in prefixes or len(prefixes) > 1:
        return
    if _moments_of(folder, names):
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
    # Lists of them could be endless: numbers may be dates.
    gaps = np.flatnonzero(steps > step)
    if gaps.size:
        count = int((steps[gaps] // step - 1).sum())
        missing = (
            str(number)
            for gap in gaps
            for number in range(numbers[gap] + step, numbers[gap + 1], step)
        )
        first = ", ".join(itertools.islice(missing, 10))
        more = f" and {count - 10} more" if count > 10 else ""
        raise ValueError(
            f"Frames are missing in the numbering of {folder!r}. Received: "
            f"{len(names)} frames from {names[0]} to {names[-1]}, without "
            f"{first}{more}. Restore them; or, if nothing is missing in time, "
            "renumber the frames."
        )
