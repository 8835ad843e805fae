"""The ten changes that DRAEM makes to its textures, with random strength.

Source: https://github.com/VitjanZ/DRAEM, with the meaning and the ranges of
imgaug 0.4.0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from keras_sspcab.data.random import chance, distinct, integers, split, uniform
from keras_sspcab.data.simulation.operations import (
    add_to_hue_and_saturation,
    adjust_brightness,
    adjust_sharpness,
    autocontrast,
    equalize,
    gamma_contrast,
    posterize,
    rotate,
    solarize,
)

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
