"""Checks of arguments that simulations share."""

import tensorflow as tf

from keras_sspcab.data.simulation.perlin import MINIMUM_SIZE


def require_images(shape: tf.TensorShape, dtype: tf.DType, rank: int) -> None:
    """Raises unless these are float images of 1 or 3 channels, of known rank.

    Args:
        shape: `(height, width, channels)`, after the batch for `rank` 4; sizes
            may be unknown.
        dtype: Type of the images.
        rank: 3 for an image, 4 for a batch.
    """
    received = f"Received: shape {shape}, {dtype.name}"
    if shape.rank != rank:
        axes = ("batch, " if rank == 4 else "") + "height, width, channels"
        raise ValueError(f"Images must have the shape ({axes}). {received}")
    if not dtype.is_floating:
        raise ValueError(
            f"Images must be of floating point, in [0, 1]. {received}. "
            "tf.image.convert_image_dtype(images, tf.float32) scales others."
        )
    height, width, channels = shape[-3:]
    if channels not in (1, 3):
        raise ValueError(
            f"Images must have 1 (gray) or 3 (color) channels. {received}"
        )
    if any(
        side is not None and side < MINIMUM_SIZE for side in (height, width)
    ):
        raise ValueError(
            f"Images must have at least {MINIMUM_SIZE} x {MINIMUM_SIZE} "
            f"pixels. {received}"
        )


def check_size(images: tf.Tensor) -> tf.Tensor:
    """Checks sizes that are known only when run; returns the images."""
    if None not in images.shape[-3:-1]:
        return images
    check = tf.debugging.assert_greater_equal(
        tf.shape(images)[-3:-1],
        MINIMUM_SIZE,
        f"Images must have at least {MINIMUM_SIZE} x {MINIMUM_SIZE} pixels",
    )
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(images)
