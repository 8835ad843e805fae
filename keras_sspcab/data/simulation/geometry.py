"""Rotation of images."""

import math
from typing import Any

import tensorflow as tf


def rotate(image: Any, degrees: Any) -> tf.Tensor:
    """Rotates an image about its center; the size stays.

    Bilinear; zero where nothing of the image lies.

    Args:
        image: Tensor `(height, width, channels)`, float32.
        degrees: Angle, anticlockwise; a number or a scalar tensor.

    Returns:
        Tensor of the shape of `image`, float32.
    """
    image = tf.convert_to_tensor(image, tf.float32)
    size = tf.shape(image)[:2]
    center = (tf.cast(size, tf.float32) - 1.0) / 2.0
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # From a place (x, y) of the result to that of the image.
    transform = [
        [cosine, -sine, center[1] * (1.0 - cosine) + center[0] * sine],
        [sine, cosine, center[0] * (1.0 - cosine) - center[1] * sine],
    ]
    flat = tf.concat([tf.reshape(transform, [6]), [0.0, 0.0]], 0)
    rotated = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=flat[tf.newaxis],
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(rotated[0], image.shape)
