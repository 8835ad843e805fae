"""Simulations as maps over a dataset of batches."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_sspcab.data.simulation._arguments import require_images
from keras_sspcab.data.simulation._random import fold_in, standardize_seed


def map_with_seeds(
    dataset: tf.data.Dataset,
    simulate: Callable[[tf.Tensor, tf.Tensor], Any],
    seed: int,
) -> tf.data.Dataset:
    """Maps batches, each along with a random seed of its own.

    The seeds follow from `seed` and the number of the batch alone, in every
    process, but are others when the same dataset is iterated again.

    Args:
        dataset: Batches of images.
        simulate: Function of a batch and its seed, a uint64 tensor `(2,)`.
        seed: Integer, 0 or more.
    """
    start = standardize_seed(seed)

    @tf.autograph.experimental.do_not_convert
    def element(
        numbered: tuple[tf.Tensor, tf.Tensor], number: tf.Tensor
    ) -> Any:
        position, images = numbered
        return simulate(images, fold_in(fold_in(start, number), position))

    return (
        tf.data.Dataset.zip((dataset.enumerate(), _random_numbers(seed)))
        .map(element, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def require_batches(dataset: Any) -> None:
    """Raises unless a dataset yields batches of images and nothing else."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "Anomalies are simulated in a tf.data.Dataset. Received: "
            f"dataset={dataset!r}. tf.data.Dataset.from_tensor_slices(images)"
            ".batch(8) makes one from an array."
        )
    spec = dataset.element_spec
    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(
            "The dataset must yield batches of images and nothing else. "
            f"Received: elements {spec}"
        )
    require_images(spec.shape, spec.dtype, rank=4)


def _random_numbers(seed: int) -> tf.data.Dataset:
    """Random int64 numbers without end, others in each iteration.

    The first iteration follows from the seed alone. That of
    `tf.data.Dataset.random` follows from TensorFlow's global seed as well.
    """
    variant = tf.raw_ops.RandomDatasetV2(
        seed=tf.constant(seed % 2**63, tf.int64),
        # Two zeros would stand for a seed from the clock.
        seed2=tf.constant(1, tf.int64),
        seed_generator=tf.raw_ops.DummySeedGenerator(),
        rerandomize_each_iteration=True,
        output_types=[tf.int64],
        output_shapes=[tf.TensorShape([])],
    )
    spec = tf.TensorSpec((), tf.int64)
    return tf.data.experimental.from_variant(variant, spec)
