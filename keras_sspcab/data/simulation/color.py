"""Changes of brightness, hue and saturation, and color to gray.

Images are float32 `(height, width, 3)`, whole numbers from 0 to 255, RGB.
"""

from typing import Any

import tensorflow as tf

_LUMA = (0.299, 0.587, 0.114)

#: Luminances of `adjust_brightness`.
LUMINANCES = ("luma", "value", "lightness")


def adjust_brightness(
    image: tf.Tensor, luminance: str, factor: Any, addend: Any, add_first: Any
) -> tf.Tensor:
    """Multiplies the luminance and adds to it; hue and saturation stay.

    Args:
        image: Image of whole numbers.
        luminance: `"luma"`, the Y of YUV and YCrCb; `"value"`, the V of HSV,
            the largest channel; or `"lightness"`, the L of HLS, the mean of the
            largest and the smallest.
        factor: To multiply by.
        addend: To add.
        add_first: bool scalar: which comes first. The luminance stays within 0
            to 255 after each.
    """

    def limit(values: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(values, 0.0, 255.0)

    def change(values: tf.Tensor) -> tf.Tensor:
        return tf.where(
            add_first,
            limit(limit(values + addend) * factor),
            limit(limit(values * factor) + addend),
        )

    if luminance == "luma":
        luma = to_gray(image)
        changed = image + (change(luma) - luma)
    elif luminance == "value":
        largest = tf.reduce_max(image, axis=-1, keepdims=True)
        # Black has no color: it turns to gray.
        scale = change(largest) / tf.maximum(largest, 1.0)
        changed = tf.where(largest > 0, image * scale, change(largest))
    else:
        largest = tf.reduce_max(image, axis=-1, keepdims=True)
        smallest = tf.reduce_min(image, axis=-1, keepdims=True)
        lightness = (largest + smallest) / 2.0
        after = change(lightness)
        # The widest range of channels at a lightness; its share stays.
        room = 255.0 - tf.abs(2.0 * lightness - 255.0)
        room_after = 255.0 - tf.abs(2.0 * after - 255.0)
        scale = tf.math.divide_no_nan(room_after, room)
        changed = after + (image - lightness) * scale
    return tf.round(limit(changed))


def add_to_hue_and_saturation(
    image: tf.Tensor, hue: Any, saturation: Any
) -> tf.Tensor:
    """Adds to hue and saturation; the value, the largest channel, stays.

    Args:
        image: Image of whole numbers.
        hue: Addend; 255 is a full turn.
        saturation: Addend; 255 is full saturation.
    """
    shifts = tf.stack([hue, saturation, 0.0]) / 255.0
    hsv = tf.image.rgb_to_hsv(image / 255.0) + shifts
    turns = tf.floor(hsv) * tf.constant([1.0, 0.0, 0.0])
    hsv = tf.clip_by_value(hsv - turns, 0.0, 1.0)
    return tf.round(tf.image.hsv_to_rgb(hsv) * 255.0)


def to_gray(image: tf.Tensor) -> tf.Tensor:
    """Returns the luma of BT.601, `(..., 1)`, not rounded."""
    return tf.reduce_sum(image * tf.constant(_LUMA), axis=-1, keepdims=True)
