"""Memories of normal features: trained by gradients, or by their neighbors."""

import math
from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.layers.base import ConfigLayer, EffectLayer, Shape

# As in the reference: in the shrinkage, the norm and the logarithm.
_EPSILON = 1e-12

# As in the reference, inside of the norms.
_DISTANCE_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_sspcab")
class AttentionMemory(ConfigLayer):
    """Replaces a feature map with a sparse mixture of those it remembers.

    The whole map, as one vector `q`, asks a memory of `num_slots` vectors `M`
    of the same size. The weights of the slots are `a = softmax(M q)`. Those up
    to the threshold `t` become zero:
    `a' = max(0, a - t) a / (|a - t| + 1e-12)`. What is left is divided by its
    sum, and `a'^T M` is read. Where no weight exceeds the threshold, the
    weights and what is read are zero.

    The slots are trained weights. The entropy of `a'`, as a loss, makes the
    memory answer with few of them.

    Reference:
    - [Gong et al., ICCV 2019](https://arxiv.org/abs/1904.02639), as
      [Liu et al., ICCV 2021](https://arxiv.org/abs/2108.06852) use it: plain
      dot products, and whole maps rather than positions as queries.

    Args:
        num_slots: Number of slots, at least 2. Defaults to 2000.
        shrink_threshold: Weight `t` up to which a slot is ignored, at least 0
            and less than 1. None (the default) takes `1 / num_slots`, the
            weight of each if all were alike.

    Input shape:
        `(batch, height, width, channels)`; all but the batch must be known.

    Output:
        Dict of tensors, float32 unless a `dtype` is given:
        features: What was read, of the shape of the input.
        entropy: `(batch,)`, `-sum a' log(a' + 1e-12)`, in nats.

    Example:
    >>> memory = AttentionMemory(num_slots=10)
    >>> outputs = memory(np.random.rand(2, 4, 4, 8))
    >>> {name: tuple(x.shape) for name, x in outputs.items()}
    {'features': (2, 4, 4, 8), 'entropy': (2,)}
    """

    config_names = ("num_slots", "shrink_threshold")
    # Under mixed precision too: the threshold is a small difference.
    default_dtype = "float32"

    def __init__(
        self,
        num_slots: int = 2000,
        shrink_threshold: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_slots = standardize_int(num_slots, "num_slots", 2)
        if shrink_threshold is None:
            shrink_threshold = 1 / self.num_slots
        self.shrink_threshold = standardize_number(
            shrink_threshold, "shrink_threshold", 0, 1, excluded=1
        )
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Shape) -> None:
        # Whole maps are remembered.
        slot_size = math.prod(self.fix_sizes(input_shape, 1, 2, 3))
        limit = 1 / math.sqrt(slot_size)
        self.slots = self.add_weight(
            shape=(self.num_slots, slot_size),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="slots",
        )

    def call(self, inputs: Any) -> dict[str, Any]:
        slots = ops.convert_to_tensor(self.slots)
        queries = ops.reshape(inputs, (-1, slots.shape[1]))
        weights = ops.softmax(ops.matmul(queries, ops.transpose(slots)))
        weights = _shrink(weights, self.shrink_threshold)
        read = ops.matmul(weights, slots)
        return {
            "features": ops.reshape(read, (-1, *inputs.shape[1:])),
            "entropy": -ops.sum(weights * ops.log(weights + _EPSILON), axis=-1),
        }

    def compute_output_spec(self, inputs: Any) -> dict[str, Any]:
        dtype = self.compute_dtype
        return {
            "features": keras.KerasTensor(inputs.shape, dtype),
            "entropy": keras.KerasTensor(inputs.shape[:1], dtype),
        }


def _shrink(weights: Any, threshold: float) -> Any:
    """Zeroes the weights up to the threshold; the others sum up to 1."""
    above = weights - threshold
    weights = ops.relu(above) * weights / (ops.abs(above) + _EPSILON)
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.maximum(total, _EPSILON)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PrototypeMemory(EffectLayer):
    """Compares each position of a feature map with prototypes of the normal.

    The feature vectors, scaled to unit length, are the queries `q`; the items
    `p` of the memory are of unit length too. What is read for a query is the
    mean of the items, weighted by the softmax over the items of their dot
    products with it.

    The items are no trained weights. In training, after reading, each moves
    towards the queries that are nearest to it: to the direction of
    `p + sum_k v_k q_k`, where `v_k` is the softmax over all positions of the
    batch of `q_k . p`, divided by its maximum. No gradient flows into the items
    or through the weights of reading.

    Reference:
    - [Park et al., CVPR 2020](https://arxiv.org/abs/2003.13228). Where paper
      and published code differ, the code is followed: `v` is divided by its
      maximum over all queries rather than over those nearest to the item, the
      compactness is a mean of squared differences over positions and channels
      rather than a sum of distances, and the weights of reading carry no
      gradient.

    Args:
        num_items: Number of items, at least 2. Defaults to 10.
        margin: By how much the second nearest item shall be farther from a
            query than the nearest. Defaults to 1.

    Input shape:
        `(batch, height, width, channels)`.

    Output:
        Dict of tensors, float32 unless a `dtype` is given:
        features: `(batch, height, width, 2 * channels)`, queries and what was
            read for them.
        compactness: `(batch,)`, mean squared difference of the queries to their
            nearest items.
        separateness: `(batch,)`, mean of `max(0, near - second + margin)` with
            the distances to the nearest and the second nearest item.

    Example:
    >>> memory = PrototypeMemory(num_items=5)
    >>> outputs = memory(np.random.rand(2, 4, 4, 8), training=True)
    >>> {name: tuple(x.shape) for name, x in outputs.items()}
    {'features': (2, 4, 4, 16), 'compactness': (2,), 'separateness': (2,)}
    """

    config_names = ("num_items", "margin")
    default_dtype = "float32"

    def __init__(
        self, num_items: int = 10, margin: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_items = standardize_int(num_items, "num_items", 2)
        self.margin = float(margin)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Shape) -> None:
        (channels,) = self.fix_sizes(input_shape, -1)
        self.items = self.add_weight(
            shape=(self.num_items, channels),
            initializer=_random_directions,
            trainable=False,
            name="items",
        )

    def compute(self, inputs: Any) -> dict[str, Any]:
        """Reads from the items, and measures how far they are."""
        queries = _unit_length(inputs)
        items = ops.stop_gradient(ops.convert_to_tensor(self.items))
        similarity = ops.matmul(queries, ops.transpose(items))
        weights = ops.stop_gradient(ops.softmax(similarity, axis=-1))
        read = ops.matmul(weights, items)
        _, nearest = ops.top_k(similarity, 2)
        first, second = (
            ops.take(items, nearest[..., rank], axis=0) for rank in (0, 1)
        )
        margins = _distance(queries, first) - _distance(queries, second)
        return {
            "features": ops.concatenate([queries, read], axis=-1),
            "compactness": ops.mean(
                ops.square(queries - first), axis=(1, 2, 3)
            ),
            "separateness": ops.mean(
                ops.maximum(margins + self.margin, 0.0), axis=(1, 2)
            ),
        }

    def conclude(self, inputs: Any, outputs: Any, training: bool) -> None:
        """Updates the items in training; what was read are the old ones."""
        if training and self.trainable:
            self.check_single_pass()
            self.update(inputs)

    def update(self, inputs: Any) -> None:
        """Moves the items towards the features that are nearest to them."""
        inputs = ops.stop_gradient(ops.cast(inputs, self.compute_dtype))
        channels = self.items.shape[1]
        queries = _unit_length(ops.reshape(inputs, (-1, channels)))
        items = ops.convert_to_tensor(self.items)
        similarity = ops.matmul(queries, ops.transpose(items))
        # A softmax divided by its own maximum.
        weights = ops.exp(similarity - ops.max(similarity, 0, keepdims=True))
        nearest = ops.one_hot(
            ops.argmax(similarity, axis=-1),
            self.num_items,
            dtype=self.compute_dtype,
        )
        pull = ops.matmul(ops.transpose(nearest * weights), queries)
        is_nearest = ops.any(nearest > 0, axis=0)[:, None]
        self.items.assign(
            ops.where(is_nearest, _unit_length(items + pull), items)
        )

    def compute_output_spec(
        self, inputs: Any, training: bool | None = None
    ) -> dict[str, Any]:
        *rest, channels = inputs.shape
        dtype = self.compute_dtype
        return {
            "features": keras.KerasTensor((*rest, 2 * channels), dtype),
            "compactness": keras.KerasTensor(rest[:1], dtype),
            "separateness": keras.KerasTensor(rest[:1], dtype),
        }


def _unit_length(x: Any) -> Any:
    # The maximum keeps the gradient of a zero vector from being NaN.
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, 1e-24))


def _distance(queries: Any, items: Any) -> Any:
    return ops.sqrt(
        ops.sum(ops.square(queries - items + _DISTANCE_EPSILON), axis=-1)
    )


def _random_directions(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return _unit_length(keras.random.uniform(shape, dtype=dtype))
