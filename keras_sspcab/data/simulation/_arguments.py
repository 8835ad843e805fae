"""Checks of arguments that simulations share."""

import numbers
from typing import Any

import tensorflow as tf

from keras_sspcab.data.simulation.perlin import MINIMUM_SIZE


def standardize_number(value: Any, name: str, low: float, high: float) -> float:
    """Returns `value` as a float if it lies within `low` and `high`."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ValueError(
            f"The `{name}` argument must be a number from {low:g} to {high:g}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def standardize_range(value: Any, name: str) -> tuple[float, float]:
    """Returns a pair of numbers within 0 and 1, in order."""
    try:
        low, high = value
    except (TypeError, ValueError):
        low, high = value, value
    low = standardize_number(low, name, 0.0, 1.0)
    high = standardize_number(high, name, 0.0, 1.0)
    if low > high:
        raise ValueError(
            f"The `{name}` argument must be a pair: lowest, then highest. "
            f"Received: {name}={value!r}"
        )
    return low, high


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
            f"Images must have 1 (grey) or 3 (colour) channels. {received}"
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
