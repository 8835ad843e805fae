"""Random numbers of Philox as pure functions of a seed, in graph code.

The order of images, crops and flips follow from integers: `fold` makes a seed
of them, int64 `(2,)`, for `tf.random`. Simulations draw many numbers for each
image, for which `tf.random` takes fifty nodes a draw. Their seed, of
`fold_key`, is uint64 `(2,)`: key and upper half of the counter of Philox.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

# Independent streams of random numbers, for `fold`.
ORDER, CROP, FLIP, PICTURE, TILES, TURN = range(6)

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


def fold_key(seed: int, *numbers: Any) -> tf.Tensor:
    """Returns `fold(seed, *numbers)` as the seed of a simulation."""
    return tf.bitcast(fold(seed, *numbers), tf.uint64)


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
        shape=shape, key=seed[:1], counter=_counter(seed), alg=_PHILOX
    )
    return numbers * (high - low) + low


def integers(
    seed: tf.Tensor, low: Any, high: Any, shape: Sequence[Any] = ()
) -> tf.Tensor:
    """Draws int32 numbers from `low` to `high`, both included."""
    return tf.raw_ops.StatelessRandomUniformIntV2(
        shape=shape,
        key=seed[:1],
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


def _counter(seed: tf.Tensor) -> tf.Tensor:
    return seed * tf.constant([0, 1], tf.uint64)


def _seeds(
    seed: tf.Tensor, shape: Sequence[int], counter: tf.Tensor
) -> tf.Tensor:
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape,
        key=seed[:1],
        counter=counter,
        alg=_PHILOX,
        dtype=tf.uint64,
    )
