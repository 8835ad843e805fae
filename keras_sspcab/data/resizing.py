"""Pixels to the size that a model takes, as TensorFlow graph code."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, get_args

import tensorflow as tf

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.decoding import (
    decode_image,
    has_16_bits,
    standardize_size,
)
from keras_sspcab.preprocessing import (
    BLANK,
    Fit,
    Preprocessing,
    ResizeMethod,
    largest_inside,
)

# The bits of OpenCV's weights.
_UNIT = 2048


def resize(
    image: Any,
    image_size: Sequence[int],
    method: str = "bilinear",
    fit: str = "stretch",
) -> tf.Tensor:
    """Resizes to exactly `image_size` and scales to [0, 1].

    An image that has the size already keeps its values.

    Args:
        image: uint8 tensor, or float tensor in [0, 1], of shape
            `(height, width, channels)` or `(batch, height, width, channels)`.
            White is not known in other types, which are refused.
        image_size: Height and width, in pixels.
        method: One of:

            - `"bilinear"` (the default), with antialiasing: when an image
              shrinks, every pixel of it counts;
            - `"area"`: the mean over the area that a pixel covers, as OpenCV's
              `INTER_AREA` when both sides shrink;
            - `"opencv"`: bilinear without antialiasing, as `cv2.resize` does it
              by default. uint8 images have exactly its pixels, rounded to 8
              bits; float images are not rounded.
        fit: What becomes of the aspect ratio: `"stretch"` (the default) changes
            it; `"pad"` keeps it and puts gray of 0.5 at two sides; `"crop"`
            keeps it and cuts off what is too much, at two sides alike.

    Returns:
        float32 tensor in [0, 1].

    Example:
    >>> resize(tf.zeros((8, 6, 3), tf.uint8), (16, 20)).shape
    TensorShape([16, 20, 3])
    """
    size = standardize_size(image_size)
    method = standardize_choice(method, get_args(ResizeMethod), "method")
    image = tf.convert_to_tensor(image)
    if image.dtype != tf.uint8 and not image.dtype.is_floating:
        raise ValueError(
            "Images must be uint8, or float in [0, 1]: what is white in others "
            f"is not known. Received: dtype={image.dtype.name}"
        )

    fit = standardize_choice(fit, get_args(Fit), "fit")
    if fit == "stretch":
        return _stretch(image, size, method)
    # As `Preprocessing.place` does it.
    sides = tf.shape(image, tf.int64)[-3:-1], tf.constant(size, tf.int64)
    room, ratio = sides if fit == "crop" else reversed(sides)
    inner = tf.stack(
        largest_inside(
            tf.unstack(room), tf.unstack(ratio), tf.minimum, tf.maximum
        )
    )
    before = (room - inner) // 2
    if fit == "crop":
        top, left = tf.unstack(before)
        height, width = tf.unstack(inner)
        image = image[..., top : top + height, left : left + width, :]
        return _stretch(image, size, method)
    content = _stretch(image, tf.cast(inner, tf.int32), method)
    margins = tf.stack([before, size - inner - before], axis=-1)
    rest = tf.zeros((1, 2), tf.int64)
    batch = rest[: len(image.shape) - 3]
    paddings = tf.concat([batch, margins, rest], 0)
    padded = tf.pad(content, paddings, constant_values=BLANK)
    return tf.ensure_shape(padded, (*image.shape[:-3], *size, image.shape[-1]))


def compiled_resize(
    size: Sequence[int],
    channels: int,
    preprocessing: Preprocessing,
    dtype: tf.DType = tf.uint8,
) -> Callable[[Any], tf.Tensor]:
    """Returns what resizes images of any size, traced once for all of them.

    It takes and returns `(height, width, channels)`, of this type.
    """
    return tf.function(
        lambda pixels: resize(
            pixels, size, preprocessing.resize, preprocessing.fit
        ),
        input_signature=[tf.TensorSpec((None, None, channels), dtype)],
        autograph=False,
    )


def _stretch(image: tf.Tensor, size: Any, method: str) -> tf.Tensor:
    """Resizes to `size`, which may be a tensor; ignores the ratio."""

    def change() -> tf.Tensor:
        pixels = image
        if method == "opencv" and pixels.dtype == tf.uint8:
            pixels = _resize_like_opencv(pixels, size)
        pixels = tf.image.convert_image_dtype(pixels, tf.float32)
        # GPUs know no areas.
        with tf.device("/cpu:0") if method == "area" else nullcontext():
            return tf.image.resize(
                pixels,
                size,
                "area" if method == "area" else "bilinear",
                antialias=method == "bilinear",
            )

    resized = tf.cond(
        tf.reduce_all(tf.shape(image)[-3:-1] == size),
        lambda: tf.image.convert_image_dtype(image, tf.float32),
        change,
    )
    return tf.clip_by_value(resized, 0.0, 1.0)


def decode_and_resize(
    encoded: Any,
    image_size: Sequence[int],
    channels: int = 3,
    preprocessing: Preprocessing | None = None,
) -> tf.Tensor:
    """Turns an image file into an input of a model, as `image_dataset` does.

    Args:
        encoded: Scalar string tensor, the content of the file; for formats, see
            `decode_image`.
        image_size: Height and width, in pixels.
        channels: 1 for gray or 3 for color. Defaults to 3.
        preprocessing: That of the model; None for the default.

    Returns:
        float32 tensor `(height, width, channels)` in [0, 1].

    Example:
    >>> encoded = tf.io.encode_png(tf.zeros((8, 6, 3), tf.uint8))
    >>> decode_and_resize(encoded, image_size=32).shape
    TensorShape([32, 32, 3])
    """
    return resize_decoded(
        lambda dtype: decode_image(encoded, channels, preprocessing, dtype),
        lambda: has_16_bits(encoded),
        standardize_size(image_size),
        channels,
        preprocessing or Preprocessing(),
    )


def resize_decoded(
    decode: Callable[[Any], tf.Tensor],
    is_wide: Callable[[], tf.Tensor],
    size: tuple[int, int],
    channels: int,
    how: Preprocessing,
) -> tf.Tensor:
    """Resizes what `decode` returns for a dtype, of a file of 8 or 16 bits."""

    def read(dtype: Any) -> tf.Tensor:
        return resize(decode(dtype), size, how.resize, how.fit)

    if how.resize == "opencv":
        image = tf.cond(
            is_wide(), lambda: read(tf.float32), lambda: read(tf.uint8)
        )
    else:
        image = read(tf.float32)
    return tf.ensure_shape(image, (*size, channels))


def _resize_like_opencv(image: tf.Tensor, size: Any) -> tf.Tensor:
    """Resizes uint8 images by the integer arithmetic of `cv2.resize`."""
    with tf.device("/cpu:0"):
        shape = tf.shape(image)
        pixels = tf.cast(image, tf.int32)
        # Both sides weigh by 11 bits: 22 are shifted out, in three steps, and
        # half of what the last one loses is added before.
        rows = 0
        for index, weight in _neighbors(shape[-2], size[1]):
            rows += tf.gather(pixels, index, axis=-2) * weight[:, None]
        rows = tf.bitwise.right_shift(rows, 4)
        total = 2
        for index, weight in _neighbors(shape[-3], size[0]):
            mixed = tf.gather(rows, index, axis=-3) * weight[:, None, None]
            total += tf.bitwise.right_shift(mixed, 16)
        return tf.cast(tf.bitwise.right_shift(total, 2), tf.uint8)


def _neighbors(
    length: tf.Tensor, count: Any
) -> tuple[tuple[tf.Tensor, tf.Tensor], ...]:
    """Returns the two indices and weights of which each new pixel is mixed."""
    centers = tf.cast(tf.range(count), tf.float64) + 0.5
    scale = tf.cast(length, tf.float64) / tf.cast(count, tf.float64)
    position = tf.cast(centers * scale - 0.5, tf.float32)
    first = tf.floor(position)
    share = position - first
    return tuple(
        (
            tf.clip_by_value(tf.cast(index, tf.int32), 0, length - 1),
            tf.cast(tf.round(weight * _UNIT), tf.int32),
        )
        for index, weight in ((first, 1.0 - share), (first + 1.0, share))
    )
