"""Layers from a reconstruction to an error map and one raw score."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.layers._arguments import standardize_choice, standardize_int

PADDINGS = ("none", "zeros")
POOLINGS = ("mean", "max")


@keras.saving.register_keras_serializable(package="keras_sspcab")
class SquaredError(keras.layers.Layer):
    """Squared difference of two images, averaged over the channels.

    Call arguments:
        target: Tensor `(batch, height, width, channels)`.
        prediction: Tensor of the same shape.

    Output shape:
        `(batch, height, width)`, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, target: Any, prediction: Any) -> Any:
        return ops.mean(ops.square(prediction - target), axis=-1)

    def compute_output_shape(
        self,
        target_shape: tuple[int | None, ...],
        prediction_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return tuple(target_shape[:-1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class AnomalyProbability(keras.layers.Layer):
    """Probability of the second of two classes, from their logits.

    Input shape:
        `(batch, height, width, 2)`.

    Output shape:
        `(batch, height, width)`, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Any) -> Any:
        # The softmax of two logits.
        return ops.sigmoid(inputs[..., 1] - inputs[..., 0])

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape[:-1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MapSmoothing(keras.layers.Layer):
    """Mean filter over a map.

    Args:
        size: Odd integer, side of the square window in pixels. 1 leaves the
            map as it is.
        padding: What is outside of the map: `"none"` (the default) takes the
            mean over what lies inside, `"zeros"` counts zeros there.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, height, width)`.

    Output shape:
        As the input.
    """

    def __init__(self, size: int, padding: str = "none", **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.padding = standardize_choice(padding, PADDINGS, "padding")
        self.size = standardize_int(size, "size", minimum=1)
        if self.size % 2 == 0:
            raise ValueError(
                f"The `size` argument must be odd. Received: size={size}"
            )

    def call(self, inputs: Any) -> Any:
        if self.size == 1:
            return inputs
        maps = ops.expand_dims(inputs, -1)
        if self.padding == "zeros":
            margin = (self.size // 2, self.size // 2)
            maps = ops.pad(maps, ((0, 0), margin, margin, (0, 0)))
        pooled = ops.average_pool(
            maps,
            self.size,
            strides=1,
            padding="same" if self.padding == "none" else "valid",
            data_format="channels_last",
        )
        return ops.squeeze(pooled, axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["size"] = self.size
        config["padding"] = self.padding
        return config


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MapPooling(keras.layers.Layer):
    """One number for each map: its mean or its maximum.

    Args:
        pooling: `"mean"` or `"max"`.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, height, width)`.

    Output shape:
        `(batch,)`.
    """

    def __init__(self, pooling: str, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.pooling = standardize_choice(pooling, POOLINGS, "pooling")

    def call(self, inputs: Any) -> Any:
        reduce = ops.mean if self.pooling == "mean" else ops.max
        return reduce(inputs, axis=(1, 2))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape[:1])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["pooling"] = self.pooling
        return config
