"""Order, crops and flips: pure functions of a seed, an epoch and an index.

The random numbers are those of Philox, in whatever version of TensorFlow.
"""

from typing import Any

import tensorflow as tf

# Independent streams of random numbers.
ORDER, CROP, FLIP = 0, 1, 2

#: Tensors by name: `image`, `label`, `mask`. A stack has a leading axis for
#: the patches of one image.
Example = dict[str, tf.Tensor]


def fold(seed: int, *numbers: Any) -> tf.Tensor:
    """Derives an independent seed from each list of numbers."""
    folded = tf.constant([seed % 2**31, seed // 2**31 % 2**31], tf.int64)
    for number in numbers:
        folded = tf.random.experimental.stateless_fold_in(
            folded, tf.cast(number, tf.int64), alg="philox"
        )
    return folded


def _uniform(count: int, seed: tf.Tensor, limit: int) -> tf.Tensor:
    """Draws whole numbers from 0 to `limit - 1`."""
    return tf.random.stateless_uniform(
        (count,), seed, 0, limit, tf.int32, alg="philox"
    )


def permutation(count: int, seed: tf.Tensor) -> tf.Tensor:
    """Shuffles the numbers from 0 to `count - 1`."""
    keys = tf.random.stateless_uniform(
        (count,), seed, None, None, tf.int64, alg="philox"
    )
    return tf.cast(tf.argsort(keys, stable=True), tf.int64)


def crop(
    stack: Example, patch: tuple[int, int], patches: int, seed: tf.Tensor
) -> Example:
    """Cuts the same random windows from a single image and from its mask."""
    height, width = stack["image"].shape[1:3]
    top_seed, left_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 2, alg="philox")
    )
    tops = _uniform(patches, top_seed, height - patch[0] + 1)
    lefts = _uniform(patches, left_seed, width - patch[1] + 1)
    rows = tops[:, tf.newaxis] + tf.range(patch[0])
    columns = lefts[:, tf.newaxis] + tf.range(patch[1])

    def cut(value: tf.Tensor) -> tf.Tensor:
        if value.shape.rank < 3:
            return tf.repeat(value, patches, axis=0)
        bands = tf.gather(value[0], rows, axis=0)
        return tf.gather(bands, columns, axis=2, batch_dims=1)

    return {name: cut(value) for name, value in stack.items()}


def flip_some(stack: Example, seed: tf.Tensor) -> Example:
    """Mirrors each image of a stack, and its mask, or not."""
    count = stack["image"].shape[0]
    chosen = _uniform(count, seed, 2) == 1

    def mirror(value: tf.Tensor) -> tf.Tensor:
        rank = value.shape.rank
        if rank < 3:
            return value
        where = tf.reshape(chosen, (count,) + (1,) * (rank - 1))
        return tf.where(where, tf.reverse(value, [2]), value)

    return {name: mirror(value) for name, value in stack.items()}
