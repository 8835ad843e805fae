"""Simulations as maps over datasets of batches of images."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_sspcab.data.random import fold_in, fold_key

#: Least height and width of images, in pixels.
MINIMUM_SIZE = 32

_TOO_SMALL = f"Images must have at least {MINIMUM_SIZE} x {MINIMUM_SIZE} pixels"


def map_with_seeds(
    dataset: tf.data.Dataset,
    simulate: Callable[[tf.Tensor, tf.Tensor], Any],
    seed: int,
) -> tf.data.Dataset:
    """Maps batches, each along with a random seed of its own, uint64 `(2,)`.

    The seeds follow from `seed` and the number of the batch alone, in every
    process, but are others when the same dataset is iterated again.
    """
    start = fold_key(seed)

    @tf.autograph.experimental.do_not_convert
    def element(
        numbered: tuple[tf.Tensor, tf.Tensor], iteration: tf.Tensor
    ) -> Any:
        position, images = numbered
        return simulate(images, fold_in(fold_in(start, iteration), position))

    return (
        tf.data.Dataset.zip((dataset.enumerate(), _random_numbers(seed)))
        .map(element, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def require_batches(dataset: Any) -> None:
    """Raises unless a dataset yields batches of float images, gray or RGB."""
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
    received = f"Received: shape {spec.shape}, {spec.dtype.name}"
    if spec.shape.rank != 4:
        raise ValueError(
            "Images must have the shape (batch, height, width, channels). "
            f"{received}"
        )
    if not spec.dtype.is_floating:
        raise ValueError(
            f"Images must be of floating point, in [0, 1]. {received}. "
            "tf.image.convert_image_dtype(images, tf.float32) scales others."
        )
    if spec.shape[3] not in (1, 3):
        raise ValueError(
            f"Images must have 1 (gray) or 3 (color) channels. {received}"
        )
    known = [side for side in spec.shape[1:3] if side is not None]
    if any(side < MINIMUM_SIZE for side in known):
        raise ValueError(f"{_TOO_SMALL}. {received}")


def as_float32(images: tf.Tensor) -> tf.Tensor:
    """Returns a batch as float32; checks sizes that were not known before."""
    # What a generator yields may share the memory of an array of NumPy, in
    # which TensorFlow's operations would compute in place.
    images = tf.raw_ops.DeepCopy(x=tf.cast(images, tf.float32))
    if None not in images.shape[1:3]:
        return images
    check = tf.debugging.assert_greater_equal(
        tf.shape(images)[1:3], MINIMUM_SIZE, _TOO_SMALL
    )
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(images)


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
