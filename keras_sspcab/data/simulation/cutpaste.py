"""CutPaste: parts of an image, pasted at another place of it."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import (
    standardize_choice,
    standardize_int,
    standardize_number,
)
from keras_sspcab.data.random import (
    chance,
    distinct,
    fold_in,
    integers,
    split,
    uniform,
)
from keras_sspcab.data.simulation.batches import (
    as_float32,
    map_with_seeds,
    require_batches,
)
from keras_sspcab.data.simulation.operations import warp

VARIANTS = ("3way", "cutpaste", "scar", "union")


def color_jitter(image: tf.Tensor, seed: tf.Tensor, amount: float) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in random order.

    The first three are multiplied by a number from `1 - amount` to `1 +
    amount`, the hue is turned by up to `amount` of a full turn. Gray images
    have the first two only.
    """
    if amount == 0:
        return image
    order_seed, amounts_seed = split(seed, 2)
    draws = uniform(amounts_seed, -amount, amount, (4,))

    def about(center: tf.Tensor, factor: tf.Tensor) -> Callable[..., Any]:
        return lambda x: center(x) + (x - center(x)) * factor

    changes = [
        lambda x: x * (1 + draws[0]),
        about(lambda x: tf.reduce_mean(_gray(x)), 1 + draws[1]),
        about(_gray, 1 + draws[2]),
        lambda x: tf.image.adjust_hue(x, draws[3]),
    ]
    if image.shape[-1] == 1:
        changes = changes[:2]
    order = distinct(order_seed, len(changes), len(changes))
    for position in range(len(changes)):
        branches = [
            lambda change=change, x=image: tf.clip_by_value(change(x), 0.0, 1.0)
            for change in changes
        ]
        image = tf.ensure_shape(
            tf.switch_case(order[position], branches), image.shape
        )
    return image


def cut_paste(image: tf.Tensor, seed: tf.Tensor, jitter: float) -> tf.Tensor:
    """Pastes a jittered rectangle of an image at another place of it.

    It covers 2 to 15 % of the image; the ratio of width to height lies within
    0.3 and its inverse, evenly on a logarithmic scale.
    """
    seeds = split(seed, 4)
    height, width = tf.unstack(tf.shape(image)[:2])
    share = uniform(seeds[0], 0.02, 0.15)
    ratio = tf.exp(uniform(seeds[1], math.log(0.3), -math.log(0.3)))
    pixels = share * tf.cast(height * width, tf.float32)

    def side(length: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(tf.cast(tf.round(length), tf.int32), 1, limit)

    patch_height = side(tf.sqrt(pixels / ratio), height)
    patch_width = side(tf.sqrt(pixels * ratio), width)
    rows = integers(fold_in(seeds[2], 0), 0, height - patch_height, (2,))
    columns = integers(fold_in(seeds[2], 1), 0, width - patch_width, (2,))
    patch = image[
        rows[0] : rows[0] + patch_height, columns[0] : columns[0] + patch_width
    ]
    patch = color_jitter(patch, seeds[3], jitter)
    margins = [
        [rows[1], height - patch_height - rows[1]],
        [columns[1], width - patch_width - columns[1]],
        [0, 0],
    ]
    mask = tf.pad(tf.ones_like(patch[..., :1], tf.bool), margins)
    pasted = tf.where(mask, tf.pad(patch, margins), image)
    return tf.ensure_shape(pasted, image.shape)


def cut_paste_scar(
    image: tf.Tensor, seed: tf.Tensor, jitter: float
) -> tf.Tensor:
    """Pastes a thin, rotated and jittered part of an image elsewhere.

    It is 2 to 16 pixels wide and 10 to 25 long, and rotated by up to 45 degrees
    either way. Pixels at the rim are blended by the share of them that is
    covered.
    """
    seeds = split(seed, 6)
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    # Height and width, whole pixels.
    length = uniform(seeds[0], 10.0, 25.0)
    patch = tf.round(tf.stack([length, uniform(seeds[1], 2.0, 16.0)]))
    patch = tf.minimum(patch, sides)
    source = tf.floor(uniform(seeds[2], shape=(2,)) * (sides - patch + 1.0))
    top, left = tf.unstack(tf.cast(source, tf.int32))
    high, wide = tf.unstack(tf.cast(patch, tf.int32))
    cut = image[top : top + high, left : left + wide]
    cut = color_jitter(cut, seeds[3], jitter)
    cut = tf.concat([cut, tf.ones_like(cut[..., :1])], axis=-1)
    # A rim of nothing, so that the border is interpolated as well.
    cut = tf.pad(cut, [[1, 1], [1, 1], [0, 0]])

    radians = math.radians(45.0)
    angle = uniform(seeds[4], -radians, radians)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Half of the sides of the box around the rotated patch.
    reach = tf.stack(
        [
            patch[0] * cosine + patch[1] * tf.abs(sine),
            patch[1] * cosine + patch[0] * tf.abs(sine),
        ]
    )
    reach = tf.minimum(reach, sides) / 2.0
    center = uniform(seeds[5], reach, sides - reach, (2,)) - 0.5
    # The box in whole pixels, with the rim.
    start = tf.maximum(tf.floor(center - reach), 0.0)
    stop = tf.minimum(tf.math.ceil(center + reach) + 1.0, sides)
    before = tf.cast(start, tf.int32)
    box = tf.cast(stop - start, tf.int32)
    center -= start
    middle = (patch + 1.0) / 2.0
    # From a place (x, y) of the box to that of the patch.
    transform = [
        cosine,
        -sine,
        middle[1] - cosine * center[1] + sine * center[0],
        sine,
        cosine,
        middle[0] - sine * center[1] - cosine * center[0],
    ]
    placed = warp(cut, transform, box)
    after = tf.shape(image)[:2] - before - box
    margins = tf.pad(tf.stack([before, after], axis=1), [[0, 1], [0, 0]])
    placed = tf.pad(placed, margins)
    color, opacity = placed[..., :-1], placed[..., -1:]
    # The color has been multiplied by the opacity in the interpolation.
    return tf.ensure_shape(image * (1.0 - opacity) + color, image.shape)


def cutpaste_views(
    dataset: tf.data.Dataset,
    variant: str = "3way",
    *,
    jitter: float = 0.1,
    translation: float = 0.0,
    seed: int = 0,
) -> tf.data.Dataset:
    """Turns batches of normal images into the training data of CutPaste.

    Each image is jittered as a whole, and shifted if `translation` says so. It
    is then an example of class 0 as it is, and one of each other class with a
    part of it pasted: all of them share the same jitter. Seeds and repeated
    iterations act as in `simulate_anomalies`.

    Source: [Li et al., CVPR 2021](https://arxiv.org/abs/2104.04015), section 2
    and appendix A.2.

    Args:
        dataset: Batches as for `simulate_anomalies`.
        variant: `"3way"`: normal, with a pasted rectangle and with a pasted
            scar are three classes. `"cutpaste"`, `"scar"`: two classes.
            `"union"`: two classes, the second one of both at random.
        jitter: Greatest change of brightness, contrast, saturation and hue, 0
            to 0.5.
        translation: Greatest shift of an image, as a share of its sides; its
            border is mirrored.
        seed: Integer, 0 or more.

    Returns:
        A `tf.data.Dataset` of as many elements `(images, {"logits": labels})`:
        float32 `(views * batch, height, width, channels)` and int32 `(views *
        batch,)`. The normal images come first.

    Example:
    >>> normal = tf.data.Dataset.from_tensors(tf.zeros((2, 32, 32, 3)))
    >>> cutpaste_views(normal).element_spec[0].shape
    TensorShape([6, 32, 32, 3])
    """
    variant = standardize_choice(variant, VARIANTS, "variant")
    jitter = standardize_number(jitter, "jitter", 0.0, 0.5)
    translation = standardize_number(translation, "translation", 0.0, 0.5)
    seed = standardize_int(seed, "seed", 0)
    require_batches(dataset)
    num_views = 3 if variant == "3way" else 2

    def views(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        seeds = split(seed, 5)
        image = _shift(image, seeds[0], translation)
        image = color_jitter(image, seeds[1], jitter)

        def patch() -> tf.Tensor:
            return cut_paste(image, seeds[2], jitter=jitter)

        def scar() -> tf.Tensor:
            return cut_paste_scar(image, seeds[3], jitter=jitter)

        if variant == "3way":
            return tf.stack([image, patch(), scar()])
        if variant == "union":
            other = tf.cond(chance(seeds[4], 0.5), patch, scar)
        else:
            other = patch() if variant == "cutpaste" else scar()
        return tf.stack([image, tf.ensure_shape(other, image.shape)])

    def example(
        images: tf.Tensor, batch_seed: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        images = as_float32(images)
        batch = tf.shape(images)[0]
        stack = (num_views, *images.shape[1:])
        stacked = tf.map_fn(
            lambda index: views(images[index], fold_in(batch_seed, index)),
            tf.range(batch),
            fn_output_signature=tf.TensorSpec(stack, tf.float32),
        )
        # All normal images first: (views, batch, ...).
        stacked = tf.transpose(stacked, (1, 0, 2, 3, 4))
        merged = tf.reshape(stacked, (-1, *tf.unstack(tf.shape(images)[1:])))
        count = images.shape[0] and images.shape[0] * num_views
        merged = tf.ensure_shape(merged, (count, *images.shape[1:]))
        return merged, {"logits": tf.repeat(tf.range(num_views), batch)}

    return map_with_seeds(dataset, example, seed)


def _gray(image: tf.Tensor) -> tf.Tensor:
    """The luma of an image, `(height, width, 1)`."""
    if image.shape[-1] == 1:
        return image
    # Several times as fast as a sum over the last axis.
    return tf.tensordot(image, tf.constant([[0.299], [0.587], [0.114]]), 1)


def _shift(image: tf.Tensor, seed: tf.Tensor, share: float) -> tf.Tensor:
    if share == 0:
        return image
    size = tf.shape(image)[:2]
    height, width = tf.unstack(size)
    limits = tf.cast(tf.cast(size, tf.float32) * share, tf.int32)
    margins = [[limits[0]] * 2, [limits[1]] * 2, [0, 0]]
    padded = tf.pad(image, margins, "REFLECT")
    top = integers(fold_in(seed, 0), 0, 2 * limits[0])
    left = integers(fold_in(seed, 1), 0, 2 * limits[1])
    shifted = padded[top : top + height, left : left + width]
    return tf.ensure_shape(shifted, image.shape)
