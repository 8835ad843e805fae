"""Image files to pixels, as TensorFlow graph code.

The same functions run in training data and in exported models, so that both
see the same numbers.
"""

import functools
import threading
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.headers import apply_orientation, decode_bitmap
from keras_sspcab.preprocessing import Preprocessing

#: First bytes of the formats; WebP is RIFF with a mark at byte 8.
_MAGIC = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
}

#: Forms of files that one operation decodes: PNG and JPEG of 8 bits, upright;
#: BMP of 24 and 32; PNG of 16 with the channels that are wanted.
PICTURE, BITMAP, WIDE = range(3)

_compiling = threading.Lock()


def image_format(head: bytes) -> str | None:
    """Names the format of an image by its first 12 bytes, or returns None."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    for name, magics in _MAGIC.items():
        if head.startswith(magics):
            return name
    return None


def decode_image(
    encoded: Any,
    channels: int = 3,
    preprocessing: Preprocessing | None = None,
    dtype: Any = tf.uint8,
) -> tf.Tensor:
    """Decodes an image file, whatever its format, to pixels.

    The content decides about the format, not the name of the file: PNG, JPEG,
    GIF (first frame) and BMP without compression. An alpha channel is dropped,
    palettes are looked up, and the orientation tag of cameras (EXIF) is
    applied. Color turns to gray as the luma of BT.601, rounded. JPEG is decoded
    by the accurate integer transform, as most other programs do.

    Args:
        encoded: Scalar string tensor, the content of the file.
        channels: 1 for gray or 3 for color. Defaults to 3.
        preprocessing: Has the white level of files with 16 bits; None for the
            full range. Brighter values are an error.
        dtype: `tf.uint8`, which keeps the upper 8 bits below the white level,
            or `tf.float32` in [0, 1] with all of them. Defaults to `tf.uint8`.

    Returns:
        Tensor `(height, width, channels)`. What cannot be decoded raises
        `tf.errors.InvalidArgumentError` when it is run.

    Example:
    >>> encoded = tf.io.encode_png(tf.zeros((8, 6, 3), tf.uint8))
    >>> decode_image(encoded, channels=1).shape
    TensorShape([8, 6, 1])
    """
    white = (preprocessing or Preprocessing()).white_level
    pixels, is_wide = decode_in_full(encoded, channels, preprocessing)
    if tf.as_dtype(dtype) == tf.uint8:
        low = tf.cast(pixels, tf.uint8)
        return tf.where(is_wide, _upper_bits(pixels, white), low)
    return tf.cast(pixels, dtype) * tf.where(is_wide, 1.0 / white, 1.0 / 255.0)


def decode_plain(
    encoded: Any,
    form: tf.Tensor,
    channels: int,
    preprocessing: Preprocessing | None = None,
    dtype: Any = tf.float32,
) -> tf.Tensor:
    """Returns what `decode_image` does, in a tenth of its nodes.

    File and form, one of the above, are of `image_files.read_plain`.
    """
    channels = standardize_channels(channels)
    white = (preprocessing or Preprocessing()).white_level

    def scaled(pixels: tf.Tensor) -> tf.Tensor:
        if dtype == tf.uint8:
            return pixels
        return tf.cast(pixels, dtype) * (1.0 / 255.0)

    def picture() -> tf.Tensor:
        # Decodes PNG as well. Its own gray is not ours.
        pixels = tf.io.decode_jpeg(
            encoded, 3 if channels == 3 else 0, dct_method="INTEGER_ACCURATE"
        )
        return scaled(pixels if channels == 3 else _to_gray(pixels))

    def bitmap() -> tf.Tensor:
        pixels = tf.io.decode_bmp(encoded)[..., :3]
        return scaled(pixels if channels == 3 else _luma(pixels))

    def wide() -> tf.Tensor:
        pixels = tf.io.decode_png(encoded, channels, tf.uint16)
        if dtype == tf.uint8:
            return _upper_bits(pixels, white)
        return tf.cast(pixels, dtype) * (1.0 / white)

    # GPUs decode no files.
    with tf.device("/cpu:0"):
        pixels = tf.switch_case(form, [picture, bitmap, wide])
    return tf.ensure_shape(pixels, (None, None, channels))


def _upper_bits(pixels: tf.Tensor, white: int) -> tf.Tensor:
    values = tf.cast(pixels, tf.int32)
    return tf.cast(values * 256 // (white + 1), tf.uint8)


def decode_in_full(
    encoded: Any, channels: int, preprocessing: Preprocessing | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns uint16 pixels, and whether they are 16 bits of the file."""
    channels = standardize_channels(channels)
    encoded = tf.convert_to_tensor(encoded, tf.string)
    white = (preprocessing or Preprocessing()).white_level
    # Two threads must not compile at the same time.
    with _compiling:
        decode = _decoder(channels)
    return decode(encoded, tf.constant(white))


@functools.cache
def _decoder(channels: int) -> Any:
    """Compiles the decoder: eagerly, its branches cost more than a PNG."""

    def decode(encoded: tf.Tensor, white: tf.Tensor) -> Any:
        # GPUs decode no files, and pass over indices that do not exist.
        with tf.device("/cpu:0"):
            return _decode(channels, encoded, white)

    return tf.function(
        decode,
        input_signature=[
            tf.TensorSpec((), tf.string),
            tf.TensorSpec((), tf.int32),
        ],
        autograph=False,
    ).get_concrete_function()


def _decode(
    channels: int, encoded: tf.Tensor, white: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    # Padded, because a position behind the end is an error.
    head = tf.strings.substr(encoded, 0, 32) + b"\0" * 32

    def starts_with(kind: str) -> tf.Tensor:
        return tf.reduce_any(
            [tf.strings.substr(head, 0, len(m)) == m for m in _MAGIC[kind]]
        )

    is_webp = tf.strings.substr(head, 0, 4) + tf.strings.substr(head, 8, 4)
    check = tf.debugging.Assert(
        ~starts_with("TIFF") & (is_webp != b"RIFFWEBP"),
        [
            "a TIFF or WebP, which only the programs of this package read; "
            "convert it to PNG"
        ],
    )
    with tf.control_dependencies([check]):
        encoded = tf.identity(encoded)
    is_png, is_jpeg = starts_with("PNG"), starts_with("JPEG")
    is_wide = has_16_bits(encoded)

    def png() -> tf.Tensor:
        return tf.io.decode_png(encoded, channels=0, dtype=tf.uint16)

    def jpeg() -> tf.Tensor:
        pixels = tf.io.decode_jpeg(
            encoded, channels=0, dct_method="INTEGER_ACCURATE"
        )
        return tf.cast(pixels, tf.uint16)

    def bitmap() -> tf.Tensor:
        return tf.cast(decode_bitmap(encoded), tf.uint16)

    def others() -> tf.Tensor:
        pixels = tf.io.decode_image(
            encoded, channels=0, expand_animations=False
        )
        return tf.cast(pixels, tf.uint16)

    pixels = tf.case(
        [(is_wide, png), (is_jpeg, jpeg), (starts_with("BMP"), bitmap)],
        default=others,
    )
    pixels = tf.ensure_shape(pixels, (None, None, None))
    convert = _to_gray if channels == 1 else _to_color
    pixels = convert(pixels)
    pixels = tf.cond(
        is_png | is_jpeg,
        lambda: apply_orientation(pixels, encoded),
        lambda: pixels,
    )
    pixels = tf.ensure_shape(pixels, (None, None, channels))
    pixels = tf.cond(
        is_wide, lambda: _below_white(pixels, white), lambda: pixels
    )
    return pixels, is_wide


def standardize_channels(channels: Any) -> int:
    """Returns 1 or 3, or raises a ValueError."""
    if channels not in (1, 3) or isinstance(channels, bool):
        raise ValueError(
            "The `channels` argument must be 1 (gray) or 3 (color). "
            f"Received: channels={channels!r}"
        )
    return int(channels)


def standardize_size(size: Any, name: str = "image_size") -> tuple[int, int]:
    """Returns height and width of a pair, or of one number for both."""
    try:
        height, width = (size, size) if isinstance(size, int) else size
    except (TypeError, ValueError):
        raise ValueError(
            f"The `{name}` argument must be a pair: height and width. "
            f"Received: {name}={size!r}"
        ) from None
    return standardize_int(height, name, 1), standardize_int(width, name, 1)


def has_16_bits(encoded: Any) -> tf.Tensor:
    """Whether a file, in a graph, is a PNG with 16 bits a value."""
    head = tf.strings.substr(encoded, 0, 25) + b"\0" * 25
    is_png = tf.strings.substr(head, 0, 8) == _MAGIC["PNG"][0]
    return is_png & (tf.strings.substr(head, 24, 1) == b"\x10")


def _below_white(pixels: tf.Tensor, white: tf.Tensor) -> tf.Tensor:
    """Returns the pixels; brighter ones than the white level are an error."""
    brightest = tf.reduce_max(tf.cast(pixels, tf.int32))
    message = tf.strings.format(
        "values up to {}, brighter than the white level of the model, {}: it "
        "follows from the training images, unless data.white_level sets it",
        (brightest, white),
    )
    check = tf.debugging.Assert(brightest <= white, [message])
    with tf.control_dependencies([check]):
        return tf.identity(pixels)


def _to_gray(pixels: tf.Tensor) -> tf.Tensor:
    # One channel is gray, two are gray and alpha.
    return tf.cond(
        tf.shape(pixels)[-1] < 3,
        lambda: pixels[..., :1],
        lambda: _luma(pixels[..., :3]),
    )


def _luma(pixels: tf.Tensor) -> tf.Tensor:
    # In integers, so that gray stored as color keeps its values.
    weights = tf.constant([299, 587, 114], tf.int32)
    total = tf.reduce_sum(
        tf.cast(pixels, tf.int32) * weights, -1, keepdims=True
    )
    return tf.cast((total + 500) // 1000, pixels.dtype)


def _to_color(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        tf.shape(pixels)[-1] < 3,
        # `tf.repeat` does not know 16 bits.
        lambda: tf.concat([pixels[..., :1]] * 3, -1),
        lambda: pixels[..., :3],
    )
