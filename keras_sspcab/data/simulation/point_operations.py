"""Changes of an image that look at one pixel at a time, by tables.

Images are float32 `(height, width, 3)`, whole numbers from 0 to 255, RGB.
"""

from typing import Any

import tensorflow as tf


def gamma_contrast(image: tf.Tensor, gammas: Any) -> tf.Tensor:
    """Raises each channel to its power: `255 (v / 255)^gamma`, cut off.

    Args:
        image: Image of whole numbers.
        gammas: Three exponents, one a channel.
    """
    values = tf.range(256, dtype=tf.float32) / 255.0
    exponents = tf.convert_to_tensor(gammas, tf.float32)[:, tf.newaxis]
    return _look_up(image, tf.floor(values**exponents * 255.0))


def solarize(image: tf.Tensor, threshold: Any) -> tf.Tensor:
    """Inverts the values from `threshold` on."""
    return tf.where(image < threshold, image, 255.0 - image)


def posterize(image: tf.Tensor, bits: Any) -> tf.Tensor:
    """Keeps the upper bits of each value, 1 to 8."""
    step = 2.0 ** (8.0 - tf.cast(bits, tf.float32))
    return tf.floor(image / step) * step


def invert(image: tf.Tensor) -> tf.Tensor:
    """Turns `v` into `255 - v`."""
    return 255.0 - image


def autocontrast(image: tf.Tensor, cutoff: Any) -> tf.Tensor:
    """Stretches each channel to 0 to 255, as Pillow's `autocontrast` does.

    Args:
        image: Image of whole numbers.
        cutoff: Percent of the pixels left out at either end, a whole number
            below 50.
    """
    counts = _histograms(image)
    below = tf.cumsum(counts, axis=1)
    above = tf.cumsum(counts, axis=1, reverse=True)
    cut = below[:, -1:] * tf.cast(cutoff, tf.int64) // 100
    # In float64, as Pillow: the table is cut off, not rounded.
    low = tf.cast(tf.argmax(below > cut, axis=1), tf.float64)
    high = 255.0 - tf.cast(
        tf.argmax(tf.reverse(above > cut, [1]), axis=1), tf.float64
    )
    values = tf.range(256, dtype=tf.float64)
    scale = 255.0 / tf.maximum(high - low, 1.0)
    offset = -low * scale
    table = values * scale[:, tf.newaxis] + offset[:, tf.newaxis]
    table = tf.clip_by_value(tf.floor(table), 0.0, 255.0)
    table = tf.where((high > low)[:, tf.newaxis], table, values)
    return _look_up(image, tf.cast(table, tf.float32))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel, as Pillow's `equalize` does."""
    counts = _histograms(image)
    total = tf.reduce_sum(counts, axis=1, keepdims=True)
    values = tf.range(256, dtype=tf.int64)
    last = tf.reduce_max(tf.where(counts > 0, values, 0), 1, keepdims=True)
    step = (total - tf.gather(counts, last, batch_dims=1)) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = (step // 2 + below) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), values)
    return _look_up(image, tf.cast(table, tf.float32))


def _histograms(image: tf.Tensor) -> tf.Tensor:
    """Counts the values of each channel: int64 `(3, 256)`."""
    channels = tf.transpose(tf.reshape(tf.cast(image, tf.int32), [-1, 3]))
    counts = tf.math.bincount(channels, minlength=256, maxlength=256, axis=-1)
    return tf.cast(tf.ensure_shape(counts, (3, 256)), tf.int64)


def _look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Replaces each value by that of its channel in a `(3, 256)` table."""
    places = tf.cast(image, tf.int32) + tf.constant([0, 256, 512])
    return tf.gather(tf.reshape(table, [-1]), places)
