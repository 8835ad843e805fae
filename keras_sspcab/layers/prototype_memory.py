"""A memory of prototypes of normal features."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import standardize_int

# As in the reference, inside of the norms.
_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PrototypeMemory(keras.layers.Layer):
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
        **kwargs: Base layer keyword arguments.

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

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self, num_items: int = 10, margin: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_items = standardize_int(num_items, "num_items", 2)
        self.margin = float(margin)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "The number of channels must be known. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.items = self.add_weight(
            shape=(self.num_items, channels),
            initializer=_random_directions,
            trainable=False,
            name="items",
        )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
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
        if training and self.trainable:
            # What was read and measured above are still the old items.
            self.update(inputs)
        return {
            "features": ops.concatenate([queries, read], axis=-1),
            "compactness": ops.mean(
                ops.square(queries - first), axis=(1, 2, 3)
            ),
            "separateness": ops.mean(
                ops.maximum(margins + self.margin, 0.0), axis=(1, 2)
            ),
        }

    def update(self, inputs: Any) -> None:
        """Moves the items towards the features that are nearest to them.

        Args:
            inputs: Tensor `(batch, height, width, channels)`, as in calls.
        """
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

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_items": self.num_items,
            "margin": self.margin,
        }


def _unit_length(x: Any) -> Any:
    # The maximum keeps the gradient of a zero vector from being NaN.
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, 1e-24))


def _distance(queries: Any, items: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(queries - items + _EPSILON), axis=-1))


def _random_directions(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return _unit_length(keras.random.uniform(shape, dtype=dtype))
