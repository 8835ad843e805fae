"""Batches of tiles, cut from large images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.data.random import TILES, fold, permutation

# Images that are held at a time, and tiles that wait among which the next is
# drawn: 50 MB of tiles of 256 x 256 in color.
_IMAGES, _WAITING = 4, 64


def tile_dataset(
    images: tf.data.Dataset,
    num_images: int,
    origins: np.ndarray,
    tile_size: tuple[int, int],
    batch_size: int = 32,
    prepare: Callable[[Any], Any] | None = None,
    seed: int = 0,
    epoch: int = 0,
) -> tf.data.Dataset:
    """Makes batches of all tiles of images, in random order.

    The order follows from `(seed, epoch)`, that of the images and the global
    seed of TensorFlow.

    Args:
        images: Dataset of batches of images.
        num_images: How many images there are.
        origins: Row and column `(tiles, 2)` where tiles begin.
        tile_size: Height and width of a tile.
        batch_size: Tiles a batch. Defaults to 32.
        prepare: Changes a batch of one image before it is cut.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.

    Returns:
        A `tf.data.Dataset` of tiles `(batch, height, width, channels)`.

    Example:
    >>> images = tf.data.Dataset.from_tensors(tf.zeros((2, 32, 64, 1)))
    >>> tiles = tile_dataset(images, 2, np.array([[0, 0], [0, 32]]), (32, 32))
    >>> next(iter(tiles)).shape
    TensorShape([4, 32, 32, 1])
    """
    height, width = tile_size
    corners = tf.constant(origins, tf.int32)

    def cut(number: tf.Tensor, image: tf.Tensor) -> tf.data.Dataset:
        if prepare is not None:
            image = prepare(image[tf.newaxis])[0]
        order = permutation(len(origins), fold(seed, TILES, epoch, number))
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda tile: tf.slice(
                image,
                tf.concat([corners[tile], [0]], 0),
                (height, width, image.shape[-1]),
            )
        )

    tiles = (
        images.unbatch()
        .enumerate()
        .interleave(cut, cycle_length=_IMAGES)
        .shuffle(_WAITING, seed=seed + epoch, reshuffle_each_iteration=False)
        .batch(batch_size)
    )
    steps = -(-num_images * len(origins) // batch_size)
    tiles = tiles.apply(tf.data.experimental.assert_cardinality(steps))
    return tiles.prefetch(tf.data.AUTOTUNE)
