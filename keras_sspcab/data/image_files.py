"""Reads image files in all formats, for `decode_image`.

What no graph decodes is turned into a PNG by Pillow, without loss.
"""

import contextlib
import io
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from keras_sspcab.data.decoding import (
    BITMAP,
    PICTURE,
    WIDE,
    decode_image,
    decode_in_full,
    decode_plain,
    has_16_bits,
    image_format,
)
from keras_sspcab.data.file_system import naming, read_bytes, scheme_of
from keras_sspcab.data.headers import is_upright
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.preprocessing import Preprocessing

#: By format. `Image.open` has a limit of pixels that is global, and warns.
READERS: dict[str, Any] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}

#: Pillow holds up to 4 bytes of each at once; damaged files say that they have
#: any number of them.
MAX_PIXELS = 2**28

_UNREAD = "of a kind that is not read; convert it to PNG, with 8 or 16 bits"


class UnusualImageError(ValueError):
    """An intact file whose content cannot be read as one image in [0, 1]."""


def has_wide_colors(image: Image.Image) -> bool:
    """Whether Pillow would cut the values of a file to 8 bits.

    It must not be loaded yet. Of gray alone Pillow keeps 16 bits.
    """
    tiles = getattr(image, "tile", [])
    return image.mode[0] not in "IF" and (
        _bits_of(image) > 8
        or any(re.search(";16[BLN]", str(tile[3])) for tile in tiles)
    )


def is_reversed(image: Image.Image) -> bool:
    """Whether 0 is white in a 16-bit gray file, which Pillow does not undo."""
    tags = getattr(image, "tag_v2", {})
    return (
        image.mode.startswith("I;16")
        and tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    )


def _bits_of(image: Image.Image) -> int:
    """Returns the bits a value of a TIFF; 8 of other files."""
    tags = getattr(image, "tag_v2", {})
    return int(np.max(tags.get(ExifTags.Base.BitsPerSample, 8)))


def read_image(path: str) -> bytes:
    """Returns an image file, or a PNG of it; a ValueError says why not."""
    return to_decodable(read_bytes(path))


def read_plain(
    path: str, channels: int, preprocessing: Preprocessing | None = None
) -> tuple[bytes, int]:
    """Returns an image file and its form, for `decode_plain`.

    What is in another form is decoded, and becomes a PNG without compression:
    in a graph, each branch of `decode_image` costs time with every image. A
    ValueError names the file.
    """
    with naming(f"the image {path}"):
        encoded = read_image(path)
        form = _form_of(encoded)
        if form is None:
            with _explaining(encoded):
                pixels, is_wide = decode_in_full(
                    encoded, channels, preprocessing
                )
            form = WIDE if is_wide else PICTURE
            pixels = pixels if is_wide else tf.cast(pixels, tf.uint8)
            encoded = tf.io.encode_png(pixels, compression=0).numpy()
    return encoded, form


#: Of what a function of `plain_reader` returns for one image.
PLAIN_SPEC = (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int32))


def plain_reader(
    paths: Sequence[str],
    channels: int,
    preprocessing: Preprocessing | None = None,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from numbers of paths to what `read_plain` returns."""
    is_remote = any(map(scheme_of, paths))

    def load(path: str) -> tuple[bytes, int]:
        return read_plain(path, channels, preprocessing)

    def read(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen = [paths[number] for number in numbers]
        found = parallel_map(load, chosen) if is_remote else map(load, chosen)
        files, forms = zip(*found, strict=True)
        # Objects: arrays of bytes lose zeros at their end.
        return np.array(files, object), np.array(forms, "int32")

    return read


def _form_of(encoded: bytes) -> int | None:
    """Returns the form of a file; None where it has to be decoded first."""
    kind = image_format(encoded[:12])
    if kind == "PNG" and encoded[24:25] != b"\x10" and b"eXIf" not in encoded:
        return PICTURE
    # Most cameras write the tag, and most images are upright.
    if kind == "JPEG" and (b"Exif\0\0" not in encoded or is_upright(encoded)):
        return PICTURE
    is_bitmap = kind == "BMP" and _is_plain_bitmap(encoded)
    return BITMAP if is_bitmap and encoded[28] in (24, 32) else None


def read_pixels(
    path: str,
    channels: int,
    preprocessing: Preprocessing | None = None,
    dtype: Any = tf.float32,
) -> tf.Tensor:
    """Reads and decodes one image; a ValueError says why it cannot be used.

    A dtype of None is that which holds the file: uint8, or float32 for 16 bits.
    """
    return pixels_of(read_bytes(path), channels, preprocessing, dtype)


def pixels_of(
    content: bytes,
    channels: int,
    preprocessing: Preprocessing | None = None,
    dtype: Any = tf.float32,
) -> tf.Tensor:
    """Decodes what is in an image file, as `read_pixels` does."""
    encoded = to_decodable(content)
    form = _form_of(encoded)
    if dtype is None:
        is_wide = form is None and has_16_bits(encoded)
        dtype = tf.float32 if is_wide else tf.uint8
    with _explaining(encoded):
        if form is None:
            return decode_image(encoded, channels, preprocessing, dtype)
        # Without the large graph, which takes a third of a second to prepare.
        return decode_plain(
            encoded, tf.constant(form), channels, preprocessing, dtype
        )


@contextlib.contextmanager
def _explaining(encoded: bytes) -> Iterator[None]:
    """Turns errors of the decoder into a ValueError that says what is wrong."""
    try:
        yield
    except tf.errors.OpError as error:
        # What an assertion says is meant for people, all else is not.
        said = re.search(r"assertion failed: \[(.*?)\]", error.message or "")
        if said:
            raise ValueError(said[1]) from error
        raise _broken(encoded, image_format(encoded[:12])) from error


def brightest_value(path: str) -> int:
    """Returns the largest value in a file of 16 bits; 0 for other files.

    A ValueError names the file.
    """
    with naming(f"the image {path}"):
        encoded = read_image(path)
    if not has_16_bits(encoded):
        return 0
    pixels = tf.io.decode_png(encoded, dtype=tf.uint16).numpy()
    # The last of two or four channels is alpha.
    return int(pixels[..., : 1 if pixels.shape[-1] < 3 else 3].max(initial=0))


@contextlib.contextmanager
def open_image(encoded: bytes) -> Iterator[tuple[Any, str]]:
    """Yields an image file as Pillow opens it, and its format.

    What fails with it in the block becomes a ValueError that says what the file
    is, but for an `UnusualImageError`.
    """
    if not encoded:
        raise ValueError("the file is empty")
    kind = image_format(encoded[:12])
    if kind is None:
        raise ValueError(
            "not an image that can be read (PNG, JPEG, BMP, GIF, WebP or "
            f"TIFF); it begins with {encoded[:8]!r}"
        )
    try:
        with READERS[kind](io.BytesIO(encoded)) as image:
            yield image, kind
    except UnusualImageError:
        raise
    except Exception as error:
        # Pillow raises many types on broken files.
        if "unknown pixel mode" in str(error):
            raise UnusualImageError(
                f"a {kind} with values {_UNREAD}"
            ) from error
        raise _broken(encoded, kind) from error


def to_decodable(encoded: bytes) -> bytes:
    """Returns the content of an image file as `decode_image` takes it.

    That is the file itself, or a PNG of its image.
    """
    if image_format(encoded[:12]) == "PNG":
        # TensorFlow refuses all broken ones itself.
        return encoded
    with open_image(encoded) as (image, kind):
        if kind == "JPEG":
            return encoded
        require_size(image, kind)
        if kind == "TIFF":
            require_single_page(image)
        image.load()
        if kind == "GIF":
            _check_first_frame(image, encoded)
            return encoded
        if kind == "BMP" and _is_plain_bitmap(encoded):
            return encoded
        return _to_png(image, kind)


def require_size(image: Any, kind: str) -> None:
    """Raises an error for an image that would take up all memory."""
    if image.width * image.height > MAX_PIXELS:
        raise UnusualImageError(
            f"a {kind} of {image.width} x {image.height} pixels, more than "
            f"{MAX_PIXELS} (or its size is damaged)"
        )


def require_single_page(image: Any) -> None:
    """Raises an error for a stack of images in one file.

    Of other sizes are thumbnails, which may follow the image.
    """
    pages = getattr(image, "n_frames", 1)
    if pages < 2:
        return
    size = image.size
    image.seek(1)
    is_stack = image.size == size
    image.seek(0)
    if is_stack:
        raise UnusualImageError(
            f"{pages} images of one size in one file. Save each as a file; if "
            "they are the colors of one image, save them as such"
        )


def _check_first_frame(image: Any, encoded: bytes) -> None:
    """Raises an error where graphs would see other pixels than Pillow."""
    ours = tf.io.decode_image(encoded, 3, expand_animations=False).numpy()
    if not np.array_equal(ours, np.asarray(image.convert("RGB"))):
        raise UnusualImageError(
            "a GIF whose first frame is transparent or smaller than the "
            "picture, so that programs differ in what it shows; convert it to "
            "PNG"
        )


def _to_png(image: Any, kind: str) -> bytes:
    is_wide, bits = image.mode.startswith("I;16"), _bits_of(image)
    is_cut = bits > 8 and not is_wide
    if image.mode in ("I", "F") or is_cut or is_reversed(image):
        what = "colors" if len(image.getbands()) > 1 else "numbers"
        raise UnusualImageError(
            f"a {kind} with {bits} bits a value, as {what} {_UNREAD}"
        )
    upright = ImageOps.exif_transpose(image)
    if is_wide:
        pixels = np.asarray(upright).astype("uint16")
    else:
        is_gray = image.mode in ("1", "L", "LA", "La")
        pixels = np.asarray(upright.convert("L" if is_gray else "RGB"))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return tf.io.encode_png(pixels, compression=0).numpy()


def _is_plain_bitmap(encoded: bytes) -> bool:
    """Whether it is a BMP that `decode_bitmap` takes."""
    try:
        start, size, bits, compression = struct.unpack(
            "<10xII10xHI", encoded[:34]
        )
    except struct.error:
        return False
    is_known = compression == 0 and bits in (1, 4, 8, 24, 32)
    return is_known and size >= 40 and start >= 14 + size


def _broken(encoded: bytes, kind: str | None) -> ValueError:
    return ValueError(f"broken or truncated {kind} of {len(encoded)} bytes")


def load_photo(
    path: str, preprocessing: Preprocessing | None = None
) -> Image.Image:
    """Opens an image file as 8-bit RGB, with the pixels that models see."""
    return Image.fromarray(
        read_pixels(path, 3, preprocessing, tf.uint8).numpy()
    )
