"""Sharper and smoother images."""

from typing import Any

import tensorflow as tf


def adjust_sharpness(image: tf.Tensor, factor: Any) -> tf.Tensor:
    """Blends an image with its smoothed copy, as Pillow's `Sharpness` does.

    Args:
        image: float32 `(height, width, 3)`, whole numbers from 0 to 255; at
            least 3 x 3 pixels.
        factor: 0 smooths, 1 keeps the image, 2 sharpens.
    """
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    center = image[1:-1, 1:-1]
    smooth = tf.floor((box + 4.0 * center) / 13.0 + 0.5)
    # The rim is not smoothed.
    change = tf.pad(smooth - center, [[1, 1], [1, 1], [0, 0]])
    degenerate = image + change
    blended = degenerate + tf.cast(factor, tf.float32) * (image - degenerate)
    return tf.floor(tf.clip_by_value(blended, 0.0, 255.0))
