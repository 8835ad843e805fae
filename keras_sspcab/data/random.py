"""Random numbers as pure functions of a seed, in graph code.

They are those of Philox, in whatever version of TensorFlow.

The order of images, crops and flips follow from integers: `fold` makes a seed
of them, an int64 tensor of shape `(2,)`, for the functions of `tf.random`.

Simulations draw many numbers for each image, for which `tf.random` takes fifty
nodes a draw: such graphs take seconds to build. Their seed is a uint64 tensor
of shape `(2,)`, as `standardize_seed` returns it: the key and the upper half of
the counter of Philox.
"""

import numbers
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int

# Independent streams of random numbers, for `fold`.
ORDER, CROP, FLIP, PICTURE = range(4)

_PHILOX = 1


def fold(seed: int, *numbers: Any) -> tf.Tensor:
    """Derives an independent seed, int64 `(2,)`, from each list of numbers."""
    folded = tf.constant([seed % 2**31, seed // 2**31 % 2**31], tf.int64)
    for number in numbers:
        folded = tf.random.experimental.stateless_fold_in(
            folded, tf.cast(number, tf.int64), alg="philox"
        )
    return folded


def permutation(count: int, seed: tf.Tensor) -> tf.Tensor:
    """Shuffles the numbers from 0 to `count - 1`; the seed is int64."""
    keys = tf.random.stateless_uniform(
        (count,), seed, None, None, tf.int64, alg="philox"
    )
    return tf.cast(tf.argsort(keys, stable=True), tf.int64)


def standardize_seed(seed: Any) -> tf.Tensor:
    """Returns a uint64 seed of shape `(2,)` from one, or from an integer."""
    if isinstance(seed, numbers.Integral):
        return _unsigned(fold(standardize_int(seed, "seed", 0)))
    seed = tf.convert_to_tensor(seed)
    if not seed.dtype.is_integer or not seed.shape.is_compatible_with((2,)):
        raise ValueError(
            "A seed must be an integer of at least 0, or an integer tensor of "
            f"shape (2,). Received: seed={seed}"
        )
    return seed if seed.dtype == tf.uint64 else _unsigned(seed)


def fold_in(seed: tf.Tensor, number: Any) -> tf.Tensor:
    """Derives an independent seed from a seed and a number."""
    counter = tf.stack([tf.cast(number, tf.uint64), seed[1]])
    return _seeds(seed, (2,), counter)


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Derives `count` independent seeds from one: `fold_in` of 0, 1, ..."""
    seeds = _seeds(seed, (count, 2), _counter(seed))
    return tf.unstack(seeds, count)


def uniform(
    seed: tf.Tensor,
    low: Any = 0.0,
    high: Any = 1.0,
    shape: Sequence[Any] = (),
) -> tf.Tensor:
    """Draws float32 numbers from `low` to `high`."""
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=shape, key=_key(seed), counter=_counter(seed), alg=_PHILOX
    )
    return numbers * (high - low) + low


def integers(
    seed: tf.Tensor, low: Any, high: Any, shape: Sequence[Any] = ()
) -> tf.Tensor:
    """Draws int32 numbers from `low` to `high`, both included."""
    return tf.raw_ops.StatelessRandomUniformIntV2(
        shape=shape,
        key=_key(seed),
        counter=_counter(seed),
        alg=_PHILOX,
        minval=low,
        maxval=high + 1,
    )


def chance(seed: tf.Tensor, probability: Any) -> tf.Tensor:
    """Draws True with a probability; 0 is never and 1 is always."""
    return uniform(seed) < probability


def distinct(seed: tf.Tensor, count: int, total: int) -> tf.Tensor:
    """Draws `count` different numbers below `total`, in random order."""
    return tf.math.top_k(uniform(seed, shape=(total,)), count).indices


def _unsigned(seed: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(tf.cast(seed, tf.int64), tf.uint64)


def _key(seed: tf.Tensor) -> tf.Tensor:
    return seed[:1]


def _counter(seed: tf.Tensor) -> tf.Tensor:
    return seed * tf.constant([0, 1], tf.uint64)


def _seeds(
    seed: tf.Tensor, shape: Sequence[int], counter: tf.Tensor
) -> tf.Tensor:
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape,
        key=_key(seed),
        counter=counter,
        alg=_PHILOX,
        dtype=tf.uint64,
    )
