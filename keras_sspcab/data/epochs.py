"""Datasets of several epochs: their order, their chain and their length."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.data.random import ORDER, fold, permutation


def order_of_epoch(
    count: int, shuffle: bool, seed: int, epoch: tf.Tensor
) -> Any:
    """Returns the numbers from 0 to `count - 1` in the order of an epoch."""
    if shuffle:
        return permutation(count, fold(seed, ORDER, epoch))
    return np.arange(count)


def chain_epochs(
    batches_of: Callable[[tf.Tensor], tf.data.Dataset], epoch: int, epochs: int
) -> tf.data.Dataset:
    """Returns the batches of one epoch after the other, from `epoch` on."""
    return tf.data.Dataset.range(epoch, epoch + epochs).flat_map(batches_of)


def state_length(
    batches: tf.data.Dataset,
    count: int,
    batch_size: int,
    drop_remainder: bool,
    epochs: int,
) -> tf.data.Dataset:
    """Sets the length of a dataset of `count` samples in each epoch."""
    whole, rest = divmod(count, batch_size)
    steps = whole + int(rest > 0 and not drop_remainder)
    return batches.apply(
        tf.data.experimental.assert_cardinality(steps * epochs)
    )
