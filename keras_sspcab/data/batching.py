"""Batches of items, epoch by epoch, read by their numbers or streamed."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.random import ORDER, fold, permutation

# Images up to this many pixels are small.
_SMALL = 512 * 512


def images_at_once(image_size: Sequence[int], most: int = 8) -> int:
    """Returns how many images of a size are in memory at a time.

    The most that small ones may be, fewer of large ones. By default it is for
    a step in which nothing is trained.

    Example:
    >>> images_at_once((320, 320)), images_at_once((3000, 4000))
    (8, 1)
    """
    height, width = image_size
    return max(1, min(most, most * _SMALL // (height * width)))


@dataclasses.dataclass(frozen=True)
class Batching:
    """How items become batches; see `clip_dataset` for the attributes."""

    batch_size: int
    shuffle: bool
    seed: int
    epoch: int
    epochs: int

    def __post_init__(self) -> None:
        standardize_int(self.batch_size, "batch_size", 1)
        standardize_int(self.seed, "seed", 0)
        standardize_int(self.epoch, "epoch", 0)
        standardize_int(self.epochs, "epochs", 1)

    def order(self, count: int, epoch: tf.Tensor) -> Any:
        """Returns the numbers below `count` in the order of an epoch."""
        if self.shuffle:
            return permutation(count, fold(self.seed, ORDER, epoch))
        return np.arange(count)

    def chain(
        self, batches_of: Callable[[tf.Tensor], tf.data.Dataset]
    ) -> tf.data.Dataset:
        """Returns the batches of one epoch after the other."""
        if self.epochs == 1:
            return batches_of(tf.constant(self.epoch, tf.int64))
        epochs = tf.data.Dataset.range(self.epoch, self.epoch + self.epochs)
        return epochs.flat_map(batches_of)

    def complete(self, batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
        """Sets the length and options of a dataset of `count` items."""
        steps = -(-count // self.batch_size) * self.epochs
        options = tf.data.Options()
        # Its thread may sleep when an iterator is deleted, which then waits,
        # often as long as all batches took.
        options.autotune.enabled = False
        return batches.with_options(options).apply(
            tf.data.experimental.assert_cardinality(steps)
        )

    def read(
        self, numbers: np.ndarray, read: Callable[[np.ndarray], Any], spec: Any
    ) -> tf.data.Dataset:
        """Makes batches of what `read` returns for numbers, as nested arrays.

        `numbers` are the items of an epoch in order, `spec` the nested
        `tf.TensorSpec` of one.
        """

        def gather(numbers: tf.Tensor) -> Any:
            return read_in_graph(read, numbers, spec)

        def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
            order = self.order(len(numbers), epoch)
            ordered = tf.gather(numbers, order)
            items = tf.data.Dataset.from_tensor_slices(ordered)
            return items.batch(self.batch_size).map(
                gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )

        batches = self.chain(batches_of)
        return self.complete(batches, len(numbers))

    def stream(
        self, items: Callable[[], Iterable[Any]], count: int, spec: Any
    ) -> tf.data.Dataset:
        """Makes batches of the `count` items that `items` yields, in order."""
        batches = tf.data.Dataset.from_generator(items, output_signature=spec)
        batches = batches.batch(self.batch_size)
        return self.complete(batches.repeat(self.epochs), count)


def read_in_graph(
    read: Callable[[np.ndarray], Any], numbers: tf.Tensor, spec: Any
) -> Any:
    """Calls `read` with numbers in a graph; see `Batching.read`."""
    specs = tf.nest.flatten(spec)
    values = tf.numpy_function(
        lambda numbers: tf.nest.flatten(read(numbers)),
        [numbers],
        [item.dtype for item in specs],
    )
    shaped = [
        tf.ensure_shape(value, (None, *item.shape))
        for value, item in zip(values, specs, strict=True)
    ]
    return tf.nest.pack_sequence_as(spec, shaped)
