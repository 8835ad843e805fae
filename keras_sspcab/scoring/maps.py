"""Layers from a reconstruction to an error map and one raw score."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_choice, standardize_int

PADDINGS = ("none", "zeros")
POOLINGS = ("mean", "max", "top")


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
    """One number for each map: its mean, its maximum, or that of its top.

    Args:
        pooling: `"mean"`, `"max"`, or `"top"`, the mean of the largest values.
        share: Share of the values that are the top, above 0 and at most 1.
            Defaults to 0.01.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, height, width)`; both sides must be known for `"top"`.

    Output shape:
        `(batch,)`.
    """

    def __init__(
        self, pooling: str, share: float = 0.01, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.pooling = standardize_choice(pooling, POOLINGS, "pooling")
        if not 0 < share <= 1:
            raise ValueError(
                "The `share` argument must be above 0 and at most 1. "
                f"Received: share={share}"
            )
        self.share = float(share)

    def call(self, inputs: Any) -> Any:
        if self.pooling == "top":
            return self._mean_of_top(inputs)
        reduce = ops.mean if self.pooling == "mean" else ops.max
        return reduce(inputs, axis=(1, 2))

    def _mean_of_top(self, inputs: Any) -> Any:
        height, width = inputs.shape[1:]
        if height is None or width is None:
            raise ValueError(
                'MapPooling("top") needs maps of known size. Received: shape '
                f"{tuple(inputs.shape)}"
            )
        count = max(1, round(self.share * height * width))
        flat = ops.reshape(inputs, (-1, height * width))
        values, _ = ops.top_k(flat, count)
        return ops.mean(values, axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape[:1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "share": self.share,
        }


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MapUpsampling(keras.layers.Layer):
    """Enlarges a coarse map to the size of an image, and smooths it.

    Bilinear interpolation that aligns the outer edges of the pixels, then a
    Gaussian filter, beyond the border of which the map goes on as it is there.
    Both are linear and separable: the whole is two products of matrices, which
    are constants where all sizes are known.

    Args:
        sigma: Standard deviation of the Gaussian, in pixels of the image. It is
            cut off at four of them. 0 does not smooth. Defaults to 4.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        inputs: Tensor `(batch, rows, columns)`.
        image: Tensor `(batch, height, width, channels)` of the size wanted.

    Output shape:
        `(batch, height, width)`, float32.
    """

    def __init__(self, sigma: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if not (math.isfinite(sigma) and sigma >= 0):
            raise ValueError(
                "`sigma` must be finite and at least 0. "
                f"Received: sigma={sigma}"
            )
        self.sigma = float(sigma)

    def call(self, inputs: Any, image: Any) -> Any:
        _, rows, columns = ops.shape(inputs)
        _, height, width, _ = ops.shape(image)
        enlarged = ops.matmul(self._shares(height, rows), inputs)
        return ops.matmul(enlarged, ops.transpose(self._shares(width, columns)))

    def _shares(self, side: Any, count: Any) -> Any:
        """Shares of the values along an axis in each pixel."""
        is_known = isinstance(side, int) and isinstance(count, int)
        # Constants in the graph, instead of operations that make them.
        shares = self._matrix(side, count, np if is_known else ops)
        return ops.convert_to_tensor(shares, self.compute_dtype)

    def _matrix(self, side: Any, count: Any, library: Any) -> Any:
        radius = int(4 * self.sigma + 0.5)
        # Beyond the border as well, where it is like the last pixel.
        dtype = self.compute_dtype
        pixels = library.arange(-radius, side + radius, dtype=dtype)
        values = library.arange(count, dtype=dtype)
        last_pixel = library.max(pixels) - radius
        last_value = library.max(values)
        nearest = library.clip(pixels, 0.0, last_pixel)
        source = (nearest + 0.5) * ((last_value + 1.0) / (last_pixel + 1.0))
        source = library.clip(source - 0.5, 0.0, last_value)
        distances = library.abs(source[:, None] - values)
        bilinear = library.maximum(1.0 - distances, 0.0)
        if not radius:
            return bilinear
        distances = pixels[radius:-radius, None] - pixels
        inside = library.abs(distances) < radius + 0.5
        weights = library.exp(-library.square(distances / self.sigma) / 2)
        weights = library.where(inside, weights, 0.0)
        weights = weights / library.sum(weights, axis=1, keepdims=True)
        return library.matmul(weights, bilinear)

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        image_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (inputs_shape[0], *image_shape[1:3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sigma": self.sigma}
