"""Checks encoded images before TensorFlow decodes them."""

import io

import numpy as np

from keras_sspcab.data.decoding import image_format
from keras_sspcab.data.image_files import READERS, pixels_of, to_decodable
from keras_sspcab.export.serving.server.errors import invalid, too_large
from keras_sspcab.export.serving.server.signature import Arrays

#: The input of exported signatures that holds encoded images.
ENCODED_INPUT = "image_bytes"

# A progressive JPEG has about ten scans, and each is a pass over all pixels.
# Preview images in its header have some as well.
_MAX_SCANS = 100

# Markers of JPEG: those of the second kind, among them bytes of pixels and the
# restarts, have no length behind them.
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_WITHOUT_LENGTH = {0x00, 0x01, 0xFF, *range(0xD0, 0xD9)}

# Pillow reads these up to the pixels. What comes before, such as compressed
# texts, can take a second; in so many bytes, only milliseconds.
_QUICK_FORMATS = ("PNG", "JPEG")
_QUICK_BYTES = 1024


def count_pixels(
    files: np.ndarray, max_pixels: int, is_quick: bool = False
) -> list[int]:
    """Returns height times width of image files, without decoding any.

    A few kilobytes can hold an image that fills the memory: larger ones than
    `max_pixels`, and what is no image, raise an error. If it is to be quick, so
    do those of which the beginning does not say the size.
    """
    return [
        _count_pixels(f"Image {index}", file, max_pixels, is_quick)
        for index, file in enumerate(files.ravel())
    ]


def convert_images(inputs: Arrays, first: int) -> Arrays:
    """Returns inputs with image files as graphs decode them.

    The first file is number `first` of its request.
    """
    files = inputs[ENCODED_INPUT]
    converted = np.empty(files.shape, object)
    for index, file in enumerate(files.ravel()):
        try:
            converted.flat[index] = to_decodable(file)
        except ValueError as error:
            raise invalid(f"Image {first + index} is {error}") from error
    return {**inputs, ENCODED_INPUT: converted}


def require_decodable(files: np.ndarray) -> None:
    """Raises an error that names the first file that cannot be decoded.

    Of those in a graph, TensorFlow does not say which it was.
    """
    for index, file in enumerate(files.ravel()):
        try:
            pixels_of(file, channels=3, dtype=None)
        except ValueError as error:
            raise invalid(f"Image {index} is {error}") from error


def _count_pixels(
    label: str, file: bytes, max_pixels: int, is_quick: bool
) -> int:
    name = image_format(file[:12]) or "unknown"
    if is_quick and name not in _QUICK_FORMATS:
        raise invalid(f"{label} takes longer.")
    if name not in READERS:
        raise invalid(
            f"{label} must be a PNG, JPEG, BMP, GIF, TIFF or WebP file. "
            f"Received: {len(file)} bytes of the format {name}"
        )
    try:
        head = file[:_QUICK_BYTES] if is_quick else file
        with READERS[name](io.BytesIO(head)) as image:
            width, height = image.size
            frames = getattr(image, "n_frames", 1) if name == "GIF" else 1
    except Exception as error:  # a broken header can cause any
        raise invalid(f"{label} cannot be read as {name}: {error}") from error
    if width * height > max_pixels:
        raise too_large(
            f"{label} is too large: {width} x {height} pixels, more than the "
            f"{max_pixels} that this server decodes."
        )
    if frames > 1:
        # TensorFlow unpacks all frames to take the first.
        raise invalid(f"{label} is an animated GIF; send one frame.")
    if name == "JPEG" and _count_scans(file) > _MAX_SCANS:
        raise invalid(f"{label} has more than {_MAX_SCANS} scans.")
    return width * height


def _count_scans(file: bytes) -> int:
    """Counts the scans of a JPEG, not what phones append, such as a video."""
    place, scans = 2, 0
    while 0 <= (place := file.find(b"\xff", place)) < len(file) - 3:
        marker = file[place + 1]
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            # A second 0xff may begin a marker itself.
            place += 1 if marker == 0xFF else 2
            continue
        scans += marker == _START_OF_SCAN
        place += 2 + int.from_bytes(file[place + 2 : place + 4], "big")
    return scans
