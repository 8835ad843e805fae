"""Losses of predicted frames besides the squared error."""

from typing import Any

import keras
from keras import ops


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

    Args:
        y_true: Tensor `(batch, height, width, channels)`.
        y_pred: Tensor of the same shape.

    Returns:
        Tensor `(batch,)`.

    Example:
    >>> crop = np.zeros((1, 4, 4, 3), "float32")
    >>> crop[0, 1, 1] = 1.0
    >>> ops.convert_to_numpy(summed_gradient_difference(-crop, crop))
    array([1.5], dtype=float32)
    """
    difference = ops.sum(y_true - y_pred, axis=-1, keepdims=True)
    total = sum(
        ops.abs(_difference(difference, axis, (1, 0))) for axis in (1, 2)
    )
    return ops.mean(total, axis=(1, 2, 3))


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
