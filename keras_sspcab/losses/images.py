"""Losses of reconstructions, of maps of classes and of predicted frames."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_odd


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

    Example:
    >>> image = np.random.rand(1, 16, 16, 3).astype("float32")
    >>> bool(np.allclose(ssim(image, image), 1.0))
    True
    """
    size = standardize_odd(window_size, "window_size")
    offsets = np.arange(size) - size // 2
    window = np.exp(-(offsets**2) / (2 * sigma**2))
    window /= window.sum()
    window = np.tile(window[:, None, None], (1, first.shape[-1], 1))
    rows, columns = (
        ops.convert_to_tensor(np.expand_dims(window, axis), first.dtype)
        for axis in (1, 0)
    )

    def mean(image: Any) -> Any:
        # One axis after the other, which is the same for a Gaussian.
        for kernel in (rows, columns):
            image = ops.depthwise_conv(
                image, kernel, padding="same", data_format="channels_last"
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


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ReconstructionLoss(keras.losses.Loss):
    """Mean squared error plus weighted dissimilarity, `1 - SSIM`.

    References:
    - [Zavrtanik et al., ICCV 2021](https://arxiv.org/abs/2108.07610), section
      3.1. The published code has the weight 1.

    Args:
        ssim_weight: Weight of the second term. Defaults to 1.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` as in `keras.losses.Loss`.

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
        name: str = "reconstruction_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.ssim_weight = float(ssim_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image, `(batch,)`."""
        _check_shapes(y_true, y_pred, y_pred.shape)
        axes = (1, 2, 3)
        error = ops.mean(ops.square(y_pred - y_true), axis=axes)
        similarity = ops.mean(ssim(y_pred, y_true), axis=axes)
        return error + self.ssim_weight * (1.0 - similarity)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ssim_weight": self.ssim_weight}


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
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` as in `keras.losses.Loss`.

    Call arguments:
        y_true: Masks `(batch, height, width)`, 1 where anomalous, else 0; or
            the same with a channel behind.
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
        name: str = "focal_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.gamma = float(gamma)
        self.smoothing = float(smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each pixel, `(batch, height, width)`."""
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
            y_true = ops.squeeze(y_true, -1)
        _check_shapes(y_true, y_pred, y_pred.shape[:-1])
        probability = ops.softmax(y_pred, axis=-1)
        anomalous = ops.cast(y_true, y_pred.dtype)
        anomalous = ops.clip(anomalous, self.smoothing, 1.0 - self.smoothing)
        likelihood = (
            (1.0 - anomalous) * probability[..., 0]
            + anomalous * probability[..., 1]
            + self.smoothing
        )
        # Above zero, where powers have finite slopes.
        doubt = ops.maximum(1.0 - likelihood, keras.config.epsilon())
        return -ops.power(doubt, self.gamma) * ops.log(likelihood)

    def get_config(self) -> dict[str, Any]:
        own = {"gamma": self.gamma, "smoothing": self.smoothing}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_sspcab")
def gradient_difference(y_true: Any, y_pred: Any) -> Any:
    """Compares the edges of a predicted frame with those of the true one.

    `mean(| |dx t| - |dx p| | + | |dy t| - |dy p| |)` over rows, columns and
    channels, where `dx` and `dy` are the differences of neighbors. As in the
    reference, outside of the frame (right and below) are zeros.

    References:
    - [Mathieu et al., ICLR 2016](https://arxiv.org/abs/1511.05440), with the
      power 1; [Liu et al., CVPR 2018](https://arxiv.org/abs/1712.09867)

    Args:
        y_true: Tensor `(batch, height, width, channels)`.
        y_pred: Tensor of the same shape.

    Returns:
        Tensor `(batch,)`.

    Example:
    >>> frame = np.zeros((1, 4, 4, 1), "float32")
    >>> frame[0, 1, 1] = 1.0  # Has four edges.
    >>> ops.convert_to_numpy(gradient_difference(0 * frame, frame))
    array([0.25], dtype=float32)
    """
    _check_shapes(y_true, y_pred, y_pred.shape)
    total: Any = 0.0
    for axis in (1, 2):
        true, predicted = (
            ops.abs(_difference(frame, axis, (0, 1)))
            for frame in (y_true, y_pred)
        )
        total = total + ops.abs(true - predicted)
    return ops.mean(total, axis=(1, 2, 3))


@keras.saving.register_keras_serializable(package="keras_sspcab")
def summed_gradient_difference(y_true: Any, y_pred: Any) -> Any:
    """Compares the summed gradients of a predicted crop with the true ones.

    `mean(|dx T - dx P| + |dy T - dy P|)` over rows and columns, where `T` and
    `P` are the sums over the channels, and `dx` and `dy` the differences to the
    pixel on the left and above; outside of the crop are zeros. Unlike
    `gradient_difference` it sees the sign of gradients.

    Reference:
    - [Liu et al., ICCV 2021](https://arxiv.org/abs/2108.06852), as its code
      has it

    Arguments and result have the shapes of `gradient_difference`.

    Example:
    >>> crop = np.zeros((1, 4, 4, 3), "float32")
    >>> crop[0, 1, 1] = 1.0
    >>> ops.convert_to_numpy(summed_gradient_difference(-crop, crop))
    array([1.5], dtype=float32)
    """
    _check_shapes(y_true, y_pred, y_pred.shape)
    difference = ops.sum(y_true - y_pred, axis=-1, keepdims=True)
    total = sum(
        ops.abs(_difference(difference, axis, (1, 0))) for axis in (1, 2)
    )
    return ops.mean(total, axis=(1, 2, 3))


def _check_shapes(y_true: Any, y_pred: Any, wanted: Any) -> None:
    """Raises a ValueError where `y_true` would be broadcast."""
    shape = tuple(y_true.shape)
    fits = len(shape) == len(wanted) and all(
        None in sides or len({*sides}) == 1
        for sides in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"`y_true` must have the shape {tuple(wanted)}. Received: y_true "
            f"of shape {shape}, y_pred of shape {tuple(y_pred.shape)}"
        )


def _difference(frame: Any, axis: int, border: tuple[int, int]) -> Any:
    """Differences of neighbors, with zeros before or behind the axis."""
    padding = [(0, 0)] * 4
    padding[axis] = border
    padded = ops.pad(frame, padding)
    if axis == 1:
        return padded[:, 1:] - padded[:, :-1]
    return padded[:, :, 1:] - padded[:, :, :-1]


@keras.saving.register_keras_serializable(package="keras_sspcab")
def least_squares(y_true: Any, y_pred: Any) -> Any:
    """Half the mean squared error: the loss of a least-squares GAN.

    References:
    - [Mao et al., ICCV 2017](https://arxiv.org/abs/1611.04076)

    Args:
        y_true: 1 where the judgment should be "real", else 0; broadcast.
        y_pred: Judgments of the discriminator, `(batch, rows, columns, 1)`.

    Returns:
        Tensor `(batch,)`.

    Example:
    >>> judgments = np.zeros((2, 4, 4, 1), "float32")
    >>> ops.convert_to_numpy(least_squares(1.0, judgments))
    array([0.5, 0.5], dtype=float32)
    """
    return 0.5 * ops.mean(ops.square(y_pred - y_true), axis=(1, 2, 3))
