"""A memory of whole feature maps that is trained by gradients."""

import math
from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import standardize_int

# As in the reference: in the shrinkage, the norm and the logarithm.
_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="keras_sspcab")
class AttentionMemory(keras.layers.Layer):
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
        **kwargs: Base layer keyword arguments. The layer computes in float32
            unless a `dtype` is given.

    Input shape:
        `(batch, height, width, channels)`; all but the batch must be known.

    Output:
        Dict of tensors:
        features: What was read, of the shape of the input.
        entropy: `(batch,)`, `-sum a' log(a' + 1e-12)`, in nats.

    Raises:
        ValueError: If an argument is out of its range, or the size of the map
            is unknown.
    """

    def __init__(
        self,
        num_slots: int = 2000,
        shrink_threshold: float | None = None,
        **kwargs: Any,
    ) -> None:
        # float32 under mixed precision: the threshold is a small difference.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_slots = standardize_int(num_slots, "num_slots", 2)
        if shrink_threshold is None:
            shrink_threshold = 1 / self.num_slots
        if not 0 <= float(shrink_threshold) < 1:
            raise ValueError(
                "The `shrink_threshold` argument must be at least 0 and less "
                "than 1, or None for 1 / num_slots. "
                f"Received: shrink_threshold={shrink_threshold!r}"
            )
        self.shrink_threshold = float(shrink_threshold)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        sizes = tuple(size for size in input_shape[1:] if size is not None)
        if len(sizes) < 3:
            raise ValueError(
                "Height, width and channels must be known: the memory holds "
                f"whole maps. Received: input_shape={tuple(input_shape)}"
            )
        slot_size = math.prod(sizes)
        limit = 1 / math.sqrt(slot_size)
        self.slots = self.add_weight(
            shape=(self.num_slots, slot_size),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="slots",
        )
        self.input_spec = keras.layers.InputSpec(
            ndim=4, axes=dict(enumerate(sizes, 1))
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

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_slots": self.num_slots,
            "shrink_threshold": self.shrink_threshold,
        }


def _shrink(weights: Any, threshold: float) -> Any:
    """Zeroes the weights up to the threshold; the others sum up to 1."""
    above = weights - threshold
    weights = ops.relu(above) * weights / (ops.abs(above) + _EPSILON)
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.maximum(total, _EPSILON)
