"""Structural similarity, and the reconstruction loss of DRAEM."""

from typing import Any

import keras
import numpy as np
from keras import ops


def ssim(
    first: Any, second: Any, window_size: int = 11, sigma: float = 1.5
) -> Any:
    """Maps the structural similarity of two images around each pixel.

    Means, variances and covariance are those under a Gaussian window, for each
    channel on its own; outside of the image are zeros. The range `L` of the
    values, which scales the constants `(0.01 L)^2` and `(0.03 L)^2`, is read
    off `first` as in the code of DRAEM: the upper end is 255 if a value exceeds
    128, else 1, and the lower end is -1 if a value lies below -0.5, else 0.

    References:
    - Wang et al., "Image quality assessment: from error visibility to
      structural similarity", TIP 2004
    - [Zavrtanik et al., ICCV 2021](https://arxiv.org/abs/2108.07610), the code

    Args:
        first: Tensor `(batch, height, width, channels)`.
        second: Tensor of the same shape.
        window_size: Odd integer, side of the window in pixels.
        sigma: Standard deviation of the window in pixels.

    Returns:
        Tensor of the same shape, at most 1, which is where both are alike.

    Raises:
        ValueError: If `window_size` is even.

    Example:
    >>> image = np.random.rand(1, 16, 16, 3).astype("float32")
    >>> bool(np.allclose(ssim(image, image), 1.0))
    True
    """
    if window_size % 2 != 1:
        raise ValueError(
            "The `window_size` argument must be an odd integer. "
            f"Received: window_size={window_size}"
        )
    rows, columns = _gaussian_windows(
        window_size, sigma, first.shape[-1], first.dtype
    )

    def mean(image: Any) -> Any:
        # One axis after the other, which is the same for a Gaussian.
        for window in (rows, columns):
            image = ops.depthwise_conv(
                image, window, padding="same", data_format="channels_last"
            )
        return image

    low = ops.where(ops.min(first) < -0.5, -1.0, 0.0)
    high = ops.where(ops.max(first) > 128, 255.0, 1.0)
    value_range = ops.stop_gradient(ops.cast(high - low, first.dtype))
    c1 = ops.square(0.01 * value_range)
    c2 = ops.square(0.03 * value_range)

    mean1, mean2 = mean(first), mean(second)
    squared_means = ops.square(mean1) + ops.square(mean2)
    product_of_means = mean1 * mean2
    variances = mean(ops.square(first) + ops.square(second)) - squared_means
    covariance = mean(first * second) - product_of_means
    return ((2 * product_of_means + c1) * (2 * covariance + c2)) / (
        (squared_means + c1) * (variances + c2)
    )


def _gaussian_windows(
    size: int, sigma: float, channels: int, dtype: Any
) -> tuple[Any, Any]:
    """Kernels of depthwise convolutions along the rows and the columns."""
    offsets = np.arange(size) - size // 2
    window = np.exp(-(offsets**2) / (2 * sigma**2))
    window = np.tile((window / window.sum())[:, None, None], (1, channels, 1))
    return (
        ops.convert_to_tensor(window[:, None], dtype),
        ops.convert_to_tensor(window[None, :], dtype),
    )


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ReconstructionLoss(keras.losses.Loss):
    """Mean squared error plus weighted dissimilarity, `1 - SSIM`.

    References:
    - [Zavrtanik et al., ICCV 2021](https://arxiv.org/abs/2108.07610), section
      3.1. The published code has the weight 1.

    Args:
        ssim_weight: Weight of the second term. Defaults to 1.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: Dtype of the computation.

    Call arguments:
        y_true: Images `(batch, height, width, channels)`.
        y_pred: Reconstructions of the same shape.

    Example:
    >>> images = np.random.rand(2, 16, 16, 3)
    >>> abs(float(ReconstructionLoss()(images, images))) < 1e-5
    True
    """

    def __init__(
        self,
        ssim_weight: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str = "reconstruction_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ssim_weight = float(ssim_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image, `(batch,)`."""
        axes = (1, 2, 3)
        error = ops.mean(ops.square(y_pred - y_true), axis=axes)
        similarity = ops.mean(ssim(y_pred, y_true), axis=axes)
        return error + self.ssim_weight * (1.0 - similarity)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ssim_weight": self.ssim_weight}
