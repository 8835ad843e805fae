"""Image files to pixels, as TensorFlow graph code.

The same functions run in training data and in exported models, so that both
see the same numbers.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.file_system import INSTALL_HINT, tensorflow_io

#: First bytes of the formats; WebP is RIFF with a mark at byte 8.
_MAGIC = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
}

#: Formats that TensorFlow alone cannot read.
TENSORFLOW_IO_FORMATS = ("WebP", "TIFF")


def image_format(head: bytes) -> str | None:
    """Names the format of an image, such as `"PNG"`, from its first 12 bytes.

    Returns None for other files.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    for name, magics in _MAGIC.items():
        if head.startswith(magics):
            return name
    return None


def decode_image(
    encoded: Any, channels: int = 3, native_only: bool = False
) -> tf.Tensor:
    """Decodes an image file, whatever its format, to 8-bit pixels.

    The content decides about the format, not the name of the file: PNG, JPEG,
    BMP and GIF (first frame), and with tensorflow-io WebP and TIFF (first
    page). Of 16-bit PNG and TIFF the upper 8 bits are kept, so that 0 to 65535
    become 0 to 255. An alpha channel is dropped. Color turns to gray as the
    luma of BT.601, `0.299 R + 0.587 G + 0.114 B`, rounded; gray turns to color
    by repetition. The orientation tag of cameras (EXIF) is not applied. JPEG is
    decoded by the accurate integer transform, as most other programs do.

    Args:
        encoded: Scalar string tensor, the content of the file.
        channels: 1 for gray or 3 for color. Defaults to 3.
        native_only: True for graphs that must run without tensorflow-io.

    Returns:
        uint8 tensor `(height, width, channels)`.

    Raises:
        tf.errors.InvalidArgumentError: When run, if the content cannot be
            decoded.

    Example:
    >>> encoded = tf.io.encode_png(tf.zeros((8, 6, 3), tf.uint8))
    >>> decode_image(encoded, channels=1).shape
    TensorShape([8, 6, 1])
    """
    channels = standardize_channels(channels)
    encoded = tf.convert_to_tensor(encoded, tf.string)
    # Padded, because a position behind the end is an error.
    head = tf.strings.substr(encoded, 0, 12) + b"\0" * 12

    def starts_with(*magics: bytes) -> tf.Tensor:
        return tf.reduce_any(
            [tf.strings.substr(head, 0, len(m)) == m for m in magics]
        )

    is_webp = starts_with(b"RIFF") & (tf.strings.substr(head, 8, 4) == b"WEBP")
    tfio = None if native_only else tensorflow_io()

    def jpeg() -> tf.Tensor:
        return tf.io.decode_jpeg(
            encoded, channels=0, dct_method="INTEGER_ACCURATE"
        )

    def webp() -> tf.Tensor:
        if tfio is None:
            return _missing_decoder()
        pixels = tfio.image.decode_webp(encoded)
        return tf.ensure_shape(pixels, (None, None, 4))

    def tiff() -> tf.Tensor:
        if tfio is None:
            return _missing_decoder()
        pixels = tfio.experimental.image.decode_tiff(encoded)
        return tf.ensure_shape(pixels, (None, None, 4))

    def others() -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=0, expand_animations=False)

    pixels = tf.case(
        [
            (starts_with(*_MAGIC["JPEG"]), jpeg),
            (is_webp, webp),
            (starts_with(*_MAGIC["TIFF"]), tiff),
        ],
        default=others,
    )
    pixels = tf.ensure_shape(pixels, (None, None, None))
    convert = _to_gray if channels == 1 else _to_color
    return tf.ensure_shape(convert(pixels), (None, None, channels))


def resize(image: Any, image_size: Sequence[int]) -> tf.Tensor:
    """Resizes to exactly `image_size` and scales to [0, 1].

    Bilinear with antialiasing: when an image shrinks, every pixel of it counts.
    The aspect ratio is not kept. An image that has the size already keeps its
    values.

    Args:
        image: uint8 tensor, or float tensor in [0, 1], of shape
            `(height, width, channels)` or `(batch, height, width, channels)`.
        image_size: Height and width, in pixels.

    Returns:
        float32 tensor in [0, 1].

    Example:
    >>> resize(tf.zeros((8, 6, 3), tf.uint8), (16, 20)).shape
    TensorShape([16, 20, 3])
    """
    size = standardize_size(image_size)
    image = tf.image.convert_image_dtype(image, tf.float32)
    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.clip_by_value(resized, 0.0, 1.0)


def decode_and_resize(
    encoded: Any, image_size: Sequence[int], channels: int = 3
) -> tf.Tensor:
    """Turns an image file into an input of a model, without tensorflow-io.

    This is what `image_dataset` does as well, so a model behind it sees the
    pixels it was trained on. Formats: PNG, JPEG, BMP and GIF; see
    `decode_image`.

    Args:
        encoded: Scalar string tensor, the content of the file.
        image_size: Height and width, in pixels.
        channels: 1 for gray or 3 for color. Defaults to 3.

    Returns:
        float32 tensor `(height, width, channels)` in [0, 1].

    Example:
    >>> encoded = tf.io.encode_png(tf.zeros((8, 6, 3), tf.uint8))
    >>> decode_and_resize(encoded, image_size=32).shape
    TensorShape([32, 32, 3])
    """
    size = standardize_size(image_size)
    image = resize(decode_image(encoded, channels, native_only=True), size)
    return tf.ensure_shape(image, (*size, channels))


def decode_mask(encoded: Any) -> tf.Tensor:
    """Decodes a mask, bool `(height, width)`: what lies above 0 is True."""
    return decode_image(encoded, channels=1)[..., 0] > 0


def resize_mask(mask: Any, image_size: Sequence[int]) -> tf.Tensor:
    """Resizes a mask `(height, width)` by the nearest neighbor."""
    size = standardize_size(image_size)
    pixels = tf.cast(mask, tf.uint8)[..., tf.newaxis]
    return tf.image.resize(pixels, size, method="nearest")[..., 0] > 0


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


def _to_gray(pixels: tf.Tensor) -> tf.Tensor:
    def luma() -> tf.Tensor:
        # In integers, so that gray stored as color keeps its values.
        weights = tf.constant([299, 587, 114], tf.int32)
        total = tf.reduce_sum(
            tf.cast(pixels[..., :3], tf.int32) * weights, -1, keepdims=True
        )
        return tf.cast((total + 500) // 1000, tf.uint8)

    # One channel is gray, two are gray and alpha.
    return tf.cond(tf.shape(pixels)[-1] < 3, lambda: pixels[..., :1], luma)


def _to_color(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        tf.shape(pixels)[-1] < 3,
        lambda: tf.repeat(pixels[..., :1], 3, axis=-1),
        lambda: pixels[..., :3],
    )


def _missing_decoder() -> tf.Tensor:
    message = f"WebP and TIFF images need tensorflow-io here. {INSTALL_HINT}"
    check = tf.debugging.Assert(tf.constant(False), [message])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.zeros((1, 1, 4), tf.uint8)
