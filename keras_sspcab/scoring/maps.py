"""Layers from a reconstruction or from features to a map, and to one score."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_choice,
    standardize_number,
    standardize_odd,
)
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import ScoringLayer

PADDINGS = ("none", "zeros")
POOLINGS = ("mean", "max", "top")


@keras.saving.register_keras_serializable(package="keras_sspcab")
class SquaredError(ScoringLayer):
    """Squared difference of two images, averaged over the channels.

    Call arguments:
        target: Tensor `(batch, height, width, channels)`.
        prediction: Tensor of the same shape.

    Output shape:
        `(batch, height, width)`, float32.

    Example:
    >>> error = SquaredError()(np.zeros((1, 2, 2, 3)), np.ones((1, 2, 2, 3)))
    >>> ops.convert_to_numpy(error)[0]
    array([[1., 1.],
           [1., 1.]], dtype=float32)
    """

    def call(self, target: Any, prediction: Any) -> Any:
        return ops.mean(ops.square(prediction - target), axis=-1)

    def compute_output_shape(
        self, target_shape: Shape, prediction_shape: Shape
    ) -> Shape:
        return tuple(target_shape[:-1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class AnomalyProbability(ScoringLayer):
    """Probability of the second of two classes, from their logits.

    Input shape:
        `(batch, height, width, 2)`.

    Output shape:
        `(batch, height, width)`, float32.

    Example:
    >>> logits = np.array([[[[0.0, 0.0], [5.0, -5.0]]]])
    >>> ops.convert_to_numpy(AnomalyProbability()(logits)).round(3)
    array([[[0.5, 0. ]]], dtype=float32)
    """

    def call(self, inputs: Any) -> Any:
        # The softmax of two logits.
        return ops.sigmoid(inputs[..., 1] - inputs[..., 0])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[:-1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class GradCAM(ScoringLayer):
    """Gradient-weighted class activation map of a globally pooled network.

    Where the score depends on a feature map only through its mean, its
    derivative is the same at all places. The map is the sum of the channels
    with these weights, negative parts cut off.

    References:
    - [Selvaraju et al., ICCV 2017](https://arxiv.org/abs/1610.02391)

    Call arguments:
        features: Tensor `(batch, height, width, channels)`.
        slope: Derivative of the score by the pooled features, `(batch,
            channels)`.

    Output shape:
        `(batch, height, width)`, float32.

    Example:
    >>> features = np.random.rand(1, 4, 4, 8)
    >>> slope = np.ones((1, 8))
    >>> tuple(GradCAM()(features, slope).shape)
    (1, 4, 4)
    """

    def call(self, features: Any, slope: Any) -> Any:
        batch, height, width, channels = ops.shape(features)
        flat = ops.reshape(features, (batch, height * width, channels))
        slope = ops.expand_dims(slope, -1)
        weighted = ops.matmul(flat, slope)
        # A score that does not depend on the length of the features has a map
        # that sums to zero: with a single place, all of it is rounding.
        rounding = 1e-5 * ops.matmul(ops.absolute(flat), ops.absolute(slope))
        weighted = ops.where(weighted > rounding, weighted, 0.0)
        weighted = ops.reshape(weighted, (batch, height, width))
        return weighted / ops.cast(height * width, self.compute_dtype)

    def compute_output_shape(
        self, features_shape: Shape, slope_shape: Shape
    ) -> Shape:
        return tuple(features_shape[:-1])


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MapSmoothing(ScoringLayer):
    """Mean filter over a map.

    Args:
        size: Odd integer, side of the square window in pixels. 1 leaves the
            map as it is.
        padding: What is outside of the map: `"none"` (the default) takes the
            mean over what lies inside, `"zeros"` counts zeros there.

    Input and output shape:
        `(batch, height, width)`.

    Example:
    >>> ops.convert_to_numpy(MapSmoothing(3)(np.eye(3)[None]))[0].round(2)
    array([[0.5 , 0.33, 0.25],
           [0.33, 0.33, 0.33],
           [0.25, 0.33, 0.5 ]], dtype=float32)
    """

    config_names = ("size", "padding")

    def __init__(self, size: int, padding: str = "none", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = standardize_choice(padding, PADDINGS, "padding")
        self.size = standardize_odd(size, "size")

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

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MapPooling(ScoringLayer):
    """One number for each map: its mean, its maximum, or that of its top.

    Args:
        pooling: `"mean"`, `"max"`, or `"top"`, the mean of the largest values.
        share: Share of the values that are the top, above 0 and at most 1.
            Defaults to 0.01.

    Input shape:
        `(batch, height, width)`; both sides must be known for `"top"`.

    Output shape:
        `(batch,)`.

    Example:
    >>> maps = np.arange(100.0).reshape(1, 10, 10)
    >>> float(MapPooling("top", share=0.02)(maps)[0])
    98.5
    """

    config_names = ("pooling", "share")

    def __init__(
        self, pooling: str, share: float = 0.01, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pooling = standardize_choice(pooling, POOLINGS, "pooling")
        self.share = standardize_number(share, "share", 0, 1, excluded=0)

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

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[:1])
