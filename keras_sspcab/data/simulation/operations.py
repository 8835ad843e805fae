"""Changes of images, all as graph code.

Images are float32 `(height, width, 3)`, whole numbers from 0 to 255, RGB, but
for `rotate` and `warp`, which take any.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from keras_sspcab.data.random import chance, distinct, integers, split, uniform

_LUMA = (0.299, 0.587, 0.114)

# === Geometry ===


def rotate(image: Any, degrees: Any) -> tf.Tensor:
    """Rotates an image `(height, width, channels)` anticlockwise.

    About its center, bilinearly; zero where nothing of the image lies.
    """
    image = tf.convert_to_tensor(image, tf.float32)
    size = tf.shape(image)[:2]
    center = (tf.cast(size, tf.float32) - 1.0) / 2.0
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180.0)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    transform = [
        cosine,
        -sine,
        center[1] * (1.0 - cosine) + center[0] * sine,
        sine,
        cosine,
        center[0] * (1.0 - cosine) - center[1] * sine,
    ]
    return tf.ensure_shape(warp(image, transform, size), image.shape)


def warp(image: tf.Tensor, transform: Sequence[Any], size: Any) -> tf.Tensor:
    """Maps an image to one of another size; zero where nothing of it lies.

    The matrix of 2 x 3 numbers, given by rows, takes a place `(x, y, 1)` of the
    result to that of the image.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack([*transform, 0.0, 0.0])[tf.newaxis],
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]


# === Color ===


def adjust_brightness(
    image: tf.Tensor, luminance: str, factor: Any, addend: Any, add_first: Any
) -> tf.Tensor:
    """Multiplies the luminance and adds to it; hue and saturation stay.

    The luminance is `"luma"`, the Y of YUV and YCrCb; `"value"`, the V of HSV,
    the largest channel; or `"lightness"`, the L of HLS, the mean of the largest
    and the smallest. It stays within 0 to 255 after each step.
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
    """Adds to hue (255 is a full turn) and saturation (255 is full).

    The value, the largest channel, stays.
    """
    shifts = tf.stack([hue, saturation, 0.0]) / 255.0
    hsv = tf.image.rgb_to_hsv(image / 255.0) + shifts
    turns = tf.floor(hsv) * tf.constant([1.0, 0.0, 0.0])
    hsv = tf.clip_by_value(hsv - turns, 0.0, 1.0)
    return tf.round(tf.image.hsv_to_rgb(hsv) * 255.0)


def to_gray(image: tf.Tensor) -> tf.Tensor:
    """Returns the luma of BT.601, `(..., 1)`, not rounded."""
    return tf.reduce_sum(image * tf.constant(_LUMA), axis=-1, keepdims=True)


# === Sharpness ===


def adjust_sharpness(image: tf.Tensor, factor: Any) -> tf.Tensor:
    """Blends an image with its smoothed copy, as Pillow's `Sharpness` does.

    The factor 0 smooths, 1 keeps the image, 2 sharpens.
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


# === Tables ===


def gamma_contrast(image: tf.Tensor, gammas: Any) -> tf.Tensor:
    """Raises each channel to its power: `255 (v / 255)^gamma`, cut off."""
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


def autocontrast(image: tf.Tensor, cutoff: Any) -> tf.Tensor:
    """Stretches each channel to 0 to 255, as Pillow's `autocontrast` does.

    `cutoff` percent of the pixels, a whole number below 50, are left out at
    either end.
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


# === With random strength ===

# Source: https://github.com/VitjanZ/DRAEM, with the meaning and the ranges of
# imgaug 0.4.0.

#: From an image, float32 `(height, width, 3)` of whole numbers from 0 to 255,
#: and a seed to an image.
Augmenter = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def _random_brightness(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Multiplies by 0.8 to 1.2 and adds -30 to 30, in random order.

    To the luminance of a random color space: YCrCb, YUV, HSV or HLS. imgaug
    draws Lab and Luv as well.
    """
    space_seed, factor_seed, addend_seed, order_seed = split(seed, 4)
    change = partial(
        adjust_brightness,
        image,
        factor=uniform(factor_seed, 0.8, 1.2),
        addend=uniform(addend_seed, -30.0, 30.0),
        add_first=chance(order_seed, 0.5),
    )
    # YCrCb and YUV have the same luminance.
    spaces = ("luma", "luma", "value", "lightness")
    return tf.switch_case(
        integers(space_seed, 0, len(spaces) - 1),
        [partial(change, luminance=space) for space in spaces],
    )


def _random_hue_and_saturation(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Adds -50 to 50 of 255 to the hue and, independently, the saturation."""
    shifts = tf.cast(integers(seed, -50, 50, (2,)), tf.float32)
    return add_to_hue_and_saturation(image, shifts[0], shifts[1])


def _random_solarize(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """With probability 0.5, inverts what is above a threshold of 32 to 128."""
    chance_seed, threshold_seed = split(seed, 2)
    threshold = uniform(threshold_seed, 32.0, 128.0)
    # Nothing is above 255.
    return solarize(image, tf.where(chance(chance_seed, 0.5), threshold, 256.0))


AUGMENTERS: dict[str, Augmenter] = {
    # A gamma of its own for each channel.
    "gamma_contrast": lambda image, seed: gamma_contrast(
        image, uniform(seed, 0.5, 2.0, (3,))
    ),
    "brightness": _random_brightness,
    # From smoothed to sharpened.
    "sharpness": lambda image, seed: adjust_sharpness(
        image, uniform(seed, 0.0, 2.0)
    ),
    "hue_and_saturation": _random_hue_and_saturation,
    "solarize": _random_solarize,
    "posterize": lambda image, seed: posterize(image, integers(seed, 1, 8)),
    "invert": lambda image, seed: 255.0 - image,
    # Leaves out 0 to 20 % of the pixels at either end.
    "autocontrast": lambda image, seed: autocontrast(
        image, integers(seed, 0, 20)
    ),
    "equalize": lambda image, seed: equalize(image),
    "rotate": lambda image, seed: tf.round(
        rotate(image, uniform(seed, -45.0, 45.0))
    ),
}


def augment_texture(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Makes three different changes to a texture, in random order."""
    choice_seed, *seeds = split(seed, 4)
    chosen = distinct(choice_seed, len(seeds), len(AUGMENTERS))

    def change(image: tf.Tensor, step: tuple[tf.Tensor, tf.Tensor]) -> Any:
        number, seed = step
        branches = [partial(f, image, seed) for f in AUGMENTERS.values()]
        return tf.ensure_shape(tf.switch_case(number, branches), image.shape)

    # A loop, so that the graph holds each augmenter once.
    return tf.foldl(change, (chosen, tf.stack(seeds)), initializer=image)
