"""Sums of scores that differ in scale."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sspcab")
class StandardizedSum(keras.layers.Layer):
    """Weighted sum of scores, each in standard deviations of normal ones.

    `sum w (score - mean) / std` takes mean and deviation from the normal
    examples that `fit` has seen. Before, it is the weighted sum.

    Args:
        weights: Weight of each score, at least 0 and one of them more.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        scores: List of tensors of one shape, one for each weight.

    Output shape:
        That of each score, float32.

    Raises:
        ValueError: If the weights are out of their range.
    """

    def __init__(self, weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.error_weights = tuple(float(weight) for weight in weights)
        if not all(0 <= w < float("inf") for w in self.error_weights) or not (
            sum(self.error_weights) > 0
        ):
            raise ValueError(
                "The weights must be at least 0, finite, and not all 0. "
                f"Received: weights={tuple(weights)}"
            )

    def build(self, scores_shape: Any) -> None:
        shape = (len(self.error_weights),)
        self.mean = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="mean"
        )
        self.std = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="std"
        )

    def fit(self, errors: Any) -> None:
        """Takes mean and deviation of normal examples.

        Args:
            errors: Array `(examples, number of scores)`.

        Raises:
            ValueError: If there is none, or a value is not finite.
        """
        values = np.asarray(errors, "float64")
        expected = len(self.error_weights)
        if values.ndim != 2 or values.shape[1] != expected or not len(values):
            raise ValueError(
                f"{self.name} needs {expected} errors of at least one normal "
                f"object. Received: an array of shape {values.shape}"
            )
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
            raise ValueError(
                f"{self.name} needs finite errors. Received: {values[row]} of "
                f"object {row}. Has the training diverged?"
            )
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
