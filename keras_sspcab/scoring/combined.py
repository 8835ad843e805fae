"""Layers that score predicted frames and objects, and add scores up."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_number
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import FittedLayer, ScoringLayer

# A perfect prediction has 100 dB, not infinitely many.
_MIN_ERROR = 1e-10


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PeakSignalToNoise(ScoringLayer):
    """Peak signal-to-noise ratio in dB of frames in [0, 1], at most 100.

    Input and output shape:
        `(batch,)`, of mean squared errors.

    Example:
    >>> psnr = PeakSignalToNoise()(np.array([0.01, 0.0]))
    >>> ops.convert_to_numpy(psnr).round(2)
    array([ 20., 100.], dtype=float32)
    """

    def call(self, inputs: Any) -> Any:
        return ops.log(ops.maximum(inputs, _MIN_ERROR)) * (-10 / math.log(10))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class RegularityScore(FittedLayer):
    """Weighs a poor prediction against a large distance to what is normal.

    `psnr_weight (1 - g(psnr)) + (1 - psnr_weight) g(distance)`, where `g`
    brings the values of the normal frames that `fit` has seen to [0, 1]; others
    may leave it.

    Reference:
    - [Park et al., CVPR 2020](https://arxiv.org/abs/2003.13228), with the
      extremes of the video that is scored.

    Args:
        psnr_weight: Share of the PSNR, in [0, 1].

    Call arguments:
        psnr: Tensor `(batch,)`, in dB.
        distance: Tensor `(batch,)`.

    Output shape:
        `(batch,)`, float32.

    Example:
    >>> layer = RegularityScore(psnr_weight=0.6)
    >>> layer.build()
    >>> layer.fit(psnr=[20.0, 30.0], distance=[1.0, 2.0])
    >>> float(layer(np.array([20.0]), np.array([2.0]))[0])  # The worst of both.
    1.0
    """

    config_names = ("psnr_weight",)

    def __init__(self, psnr_weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.psnr_weight = standardize_number(psnr_weight, "psnr_weight", 0, 1)

    def build(self, *input_shapes: Any, **named_shapes: Any) -> None:
        # Of both values, in this order.
        self.low = self.add_state("low", 2)
        self.high = self.add_state("high", 2, initializer="ones")

    def fit(self, psnr: Any, distance: Any) -> None:
        """Sets the lowest and highest values that normal frames have."""
        values = np.stack([psnr, distance]).astype("float32")
        if not values.size:
            raise ValueError(
                f"{self.name} needs at least one normal frame. Received: none"
            )
        self.require_finite(values)
        low, high = values.min(1), values.max(1)
        self.low.assign(low)
        # Equal values have no range to measure by.
        self.high.assign(np.where(high > low, high, low + 1))

    def call(self, psnr: Any, distance: Any) -> Any:
        spread = self.high - self.low
        regularity = (psnr - self.low[0]) / spread[0]
        strangeness = (distance - self.low[1]) / spread[1]
        share = self.psnr_weight
        return share * (1.0 - regularity) + (1.0 - share) * strangeness

    def compute_output_shape(
        self, psnr_shape: Shape, distance_shape: Shape
    ) -> Shape:
        return tuple(psnr_shape)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class StandardizedSum(FittedLayer):
    """Weighted sum of scores, each in standard deviations of normal ones.

    `sum w (score - mean) / std` takes mean and deviation from the normal
    examples that `fit` has seen. Before, it is the weighted sum.

    Args:
        weights: Weight of each score, at least 0 and one of them more.

    Call arguments:
        scores: List of tensors of one shape, one for each weight.

    Output shape:
        That of each score, float32.

    Example:
    >>> layer = StandardizedSum([1.0, 0.5])
    >>> scores = [np.array([1.0, 2.0]), np.array([4.0, 8.0])]
    >>> ops.convert_to_numpy(layer(scores))
    array([3., 6.], dtype=float32)
    """

    def __init__(self, weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error_weights = tuple(
            standardize_number(weight, "weights") for weight in weights
        )
        standardize_number(sum(self.error_weights), "sum(weights)", excluded=0)

    def build(self, scores_shape: Any) -> None:
        count = len(self.error_weights)
        self.mean = self.add_state("mean", count)
        self.std = self.add_state("std", count, initializer="ones")

    def fit(self, errors: Any) -> None:
        """Takes mean and deviation of errors `(examples, scores)`."""
        values = np.asarray(errors, "float64")
        expected = len(self.error_weights)
        if values.ndim != 2 or values.shape[1] != expected or not len(values):
            raise ValueError(
                f"{self.name} needs {expected} errors of at least one normal "
                f"object. Received: an array of shape {values.shape}"
            )
        self.require_finite(values)
        self.mean.assign(values.mean(0))
        std = values.std(0)
        # Equal values have no range to measure by.
        self.std.assign(np.where(std > 0, std, 1.0))

    def call(self, scores: list[Any]) -> Any:
        total: Any = 0.0
        for index, weight in enumerate(self.error_weights):
            standardized = (scores[index] - self.mean[index]) / self.std[index]
            total = total + weight * standardized
        return total

    def compute_output_spec(self, scores: list[Any]) -> Any:
        return keras.KerasTensor(scores[0].shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weights": self.error_weights}


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ZScoreSum(StandardizedSum):
    """Weighted sum of errors, each in standard deviations of normal objects.

    The error of an object is the sum of its map.

    Reference:
    - [Liu et al., ICCV 2021](https://arxiv.org/abs/2108.06852), section 3.4

    Arguments are those of `StandardizedSum`.

    Call arguments:
        maps: List of tensors `(batch, height, width)`, one for each error.

    Output:
        Dict of float32 tensors: `score` `(batch,)`, and `map` `(batch, height,
        width)`, the weighted maps in units of the same deviations. The sum of
        the map is the score less a constant.

    Example:
    >>> layer = ZScoreSum([1.0, 0.1])
    >>> outputs = layer([np.ones((2, 4, 4)), np.ones((2, 4, 4))])
    >>> {name: tuple(x.shape) for name, x in outputs.items()}
    {'score': (2,), 'map': (2, 4, 4)}
    """

    @property
    def score_of_nothing(self) -> float:
        """The score where all errors are 0."""
        mean, std = (
            ops.convert_to_numpy(x).astype("float64")
            for x in (self.mean, self.std)
        )
        return float(-(np.array(self.error_weights) * mean / std).sum())

    def call(self, maps: list[Any]) -> dict[str, Any]:
        score: Any = 0.0
        combined: Any = 0.0
        for index, weight in enumerate(self.error_weights):
            error = ops.sum(maps[index], axis=(1, 2))
            share = weight / self.std[index]
            score = score + share * (error - self.mean[index])
            combined = combined + share * maps[index]
        return {"score": score, "map": combined}

    def compute_output_spec(self, maps: list[Any]) -> dict[str, Any]:
        first = maps[0]
        return {
            "score": keras.KerasTensor(first.shape[:1], self.compute_dtype),
            "map": keras.KerasTensor(first.shape, self.compute_dtype),
        }
