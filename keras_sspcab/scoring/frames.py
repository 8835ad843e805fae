"""Layers that score predicted frames."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

# A perfect prediction has 100 dB, not infinitely many.
_MIN_ERROR = 1e-10


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PeakSignalToNoise(keras.layers.Layer):
    """Peak signal-to-noise ratio in dB of frames in [0, 1], at most 100.

    Input shape:
        `(batch,)`, mean squared errors.

    Output shape:
        `(batch,)`, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Any) -> Any:
        return ops.log(ops.maximum(inputs, _MIN_ERROR)) * (-10 / math.log(10))

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class RegularityScore(keras.layers.Layer):
    """Weighs a poor prediction against a large distance to what is normal.

    `psnr_weight (1 - g(psnr)) + (1 - psnr_weight) g(distance)`, where `g`
    brings the values of the normal frames that `fit` has seen to [0, 1]; others
    may leave it.

    Reference:
    - [Park et al., CVPR 2020](https://arxiv.org/abs/2003.13228), which takes
      the extremes of the video that is scored, and so needs all of it first.

    Args:
        psnr_weight: Share of the PSNR, in [0, 1].
        **kwargs: Base layer keyword arguments.

    Call arguments:
        psnr: Tensor `(batch,)`, in dB.
        distance: Tensor `(batch,)`.

    Output shape:
        `(batch,)`, float32.
    """

    def __init__(self, psnr_weight: float, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        if not 0 <= psnr_weight <= 1:
            raise ValueError(
                "The `psnr_weight` argument must be from 0 to 1. "
                f"Received: psnr_weight={psnr_weight}"
            )
        self.psnr_weight = float(psnr_weight)

    def build(self, *input_shapes: Any, **named_shapes: Any) -> None:
        # Of both values, in this order.
        self.low = self.add_weight(
            shape=(2,), initializer="zeros", trainable=False, name="low"
        )
        self.high = self.add_weight(
            shape=(2,), initializer="ones", trainable=False, name="high"
        )

    def fit(self, psnr: Any, distance: Any) -> None:
        """Takes the extremes of normal frames.

        Args:
            psnr: Array of their PSNR.
            distance: Array of their distances.

        Raises:
            ValueError: If there is none, or a value is not finite.
        """
        values = np.stack([psnr, distance]).astype("float32")
        if values.size == 0 or not np.isfinite(values).all():
            raise ValueError(
                f"{self.name} needs finite values of at least one normal "
                f"frame. Received: {values.shape[1]} frames, psnr={psnr}, "
                f"distance={distance}. Has the training diverged?"
            )
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
        self,
        psnr_shape: tuple[int | None, ...],
        distance_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return tuple(psnr_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "psnr_weight": self.psnr_weight}
