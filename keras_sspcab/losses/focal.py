"""The focal loss for maps of classes."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sspcab")
class FocalLoss(keras.losses.Loss):
    """Focal loss of a map with two classes, normal and anomalous.

    With `p` the softmax of the logits and `y` the smoothed one-hot target, in
    `[smoothing, 1 - smoothing]`, a pixel costs `-(1 - q)^gamma log q` where
    `q = sum(y p) + smoothing`. Both classes weigh the same.

    References:
    - [Lin et al., ICCV 2017](https://arxiv.org/abs/1708.02002)
    - [Zavrtanik et al., ICCV 2021](https://arxiv.org/abs/2108.07610), section
      3.2, with the smoothing of its code.

    Args:
        gamma: Exponent; 0 gives the cross-entropy. Defaults to 2.
        smoothing: Smoothing of the targets, which also keeps the logarithm
            finite. Defaults to 1e-5.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: Dtype of the computation.

    Call arguments:
        y_true: Masks `(batch, height, width)`, 1 where anomalous, else 0.
        y_pred: Logits `(batch, height, width, 2)`, normal first.

    Example:
    >>> masks = np.zeros((1, 8, 8))
    >>> logits = np.zeros((1, 8, 8, 2))
    >>> round(float(FocalLoss(gamma=0)(masks, logits)), 4)  # log 2
    0.6931
    """

    def __init__(
        self,
        gamma: float = 2.0,
        smoothing: float = 1e-5,
        reduction: str = "sum_over_batch_size",
        name: str = "focal_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.gamma = float(gamma)
        self.smoothing = float(smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each pixel, `(batch, height, width)`."""
        probability = ops.softmax(y_pred, axis=-1)
        anomalous = ops.clip(
            ops.cast(y_true, y_pred.dtype),
            self.smoothing,
            1.0 - self.smoothing,
        )
        likelihood = (
            (1.0 - anomalous) * probability[..., 0]
            + anomalous * probability[..., 1]
            + self.smoothing
        )
        # Above zero, where powers have finite slopes.
        doubt = ops.maximum(1.0 - likelihood, keras.config.epsilon())
        return -ops.power(doubt, self.gamma) * ops.log(likelihood)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "smoothing": self.smoothing,
        }
