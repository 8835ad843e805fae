"""Pseudo-abnormal objects: pictures of other things, and sped-up motion.

They teach the background-agnostic framework of Georgescu et al. (TPAMI 2021)
what is not normal.
"""

from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.data.random import PICTURE, fold_in, fold_key
from keras_sspcab.data.simulation.textures import (
    EmbeddedTextures,
    FolderTextures,
    TextureSource,
)

_MOTIONS = ("previous_motion", "next_motion")


def add_pseudo_abnormal(
    dataset: tf.data.Dataset,
    seed: int = 0,
    epoch: int = 0,
    images: Any = None,
    speed: float = 3.0,
) -> tf.data.Dataset:
    """Adds as many pseudo-abnormal crops to each batch of normal ones.

    Their appearance is that of pictures from elsewhere, their motion that of
    the normal crops, `speed` times as fast. The framework estimates the flow
    between frames that lie further apart instead: batches that hold
    `abnormal_previous_motion` and `abnormal_next_motion` already keep them.

    The elements follow from `seed`, `epoch` and their position alone: `.skip`
    gives what follows, and a dataset that is iterated again repeats itself.

    Args:
        dataset: Batches of crops: dicts of `appearance` `(batch, height, width,
            1 or 3)` in [0, 1] and `previous_motion` and `next_motion` `(batch,
            height, width, 2)`, and whatever else.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.
        images: A `TextureSource`, or folders for `FolderTextures`; None (the
            default) for ten photographs of scikit-image: few for a result that
            counts. The framework's authors take UIUC textures, Oxford flowers,
            anime faces and 68 classes of Tiny ImageNet.
        speed: How much faster than normal, more than 1: motion at its own speed
            is normal. The factor of the framework is not known; 3 is a guess.

    Returns:
        A `tf.data.Dataset` of as many batches with the keys
        `abnormal_appearance`, `abnormal_previous_motion` and
        `abnormal_next_motion` added.
    """
    spec = _require_crops(dataset)
    seed = standardize_int(seed, "seed", 0)
    epoch = standardize_int(epoch, "epoch", 0)
    speed = standardize_number(speed, "speed", 1.0, excluded=1.0)
    source = images
    if images is None:
        source = EmbeddedTextures(batch_share=0.0)
    elif not isinstance(images, TextureSource):
        source = FolderTextures(images)
    start = fold_key(seed, PICTURE, epoch)
    _, height, width, channels = spec["appearance"].shape
    picture = tf.TensorSpec((height, width, channels), tf.float32)

    def add(position: tf.Tensor, batch: dict[str, tf.Tensor]) -> Any:
        of_batch = fold_in(start, position)
        drawn = tf.map_fn(
            lambda row: source.draw_picture(
                (height, width), channels, fold_in(of_batch, row)
            ),
            tf.range(tf.shape(batch["appearance"])[0]),
            fn_output_signature=picture,
        )
        drawn.set_shape(batch["appearance"].shape)
        fast = {f"abnormal_{name}": batch[name] * speed for name in _MOTIONS}
        return {**fast, **batch, "abnormal_appearance": drawn}

    return (
        dataset.enumerate()
        .map(
            tf.autograph.experimental.do_not_convert(add),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _require_crops(dataset: Any) -> dict[str, tf.TensorSpec]:
    """Returns what the batches hold, or raises a ValueError."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "Pseudo-abnormal crops are added to a tf.data.Dataset. Received: "
            f"dataset={dataset!r}"
        )
    spec = dataset.element_spec
    needed = ("appearance", *_MOTIONS)
    if not isinstance(spec, dict) or set(needed) - set(spec):
        raise ValueError(
            f"The dataset must yield dicts with the keys {list(needed)}. "
            f"Received: elements {spec}"
        )
    shape = spec["appearance"].shape
    if shape.rank != 4 or None in shape[1:] or shape[3] not in (1, 3):
        raise ValueError(
            "The appearance must have the shape (batch, height, width, 1 or "
            f"3), known but for the batch. Received: shape {shape}"
        )
    return spec
