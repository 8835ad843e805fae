"""Losses of predicted frames besides the squared error."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sspcab")
def gradient_difference(y_true: Any, y_pred: Any) -> Any:
    """How far the edges of a predicted frame are from those of the true one.

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
    """
    total: Any = 0.0
    for axis in (1, 2):
        true, predicted = (
            ops.abs(_difference(frame, axis)) for frame in (y_true, y_pred)
        )
        total = total + ops.abs(true - predicted)
    return ops.mean(total, axis=(1, 2, 3))


def _difference(frame: Any, axis: int) -> Any:
    padding = [(0, 0)] * 4
    padding[axis] = (0, 1)
    padded = ops.pad(frame, padding)
    return (padded[:, 1:] if axis == 1 else padded[:, :, 1:]) - frame


@keras.saving.register_keras_serializable(package="keras_sspcab")
def summed_gradient_difference(y_true: Any, y_pred: Any) -> Any:
    """How far the summed gradients of a predicted crop are from the true ones.

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
    """
    difference = ops.sum(y_true - y_pred, axis=-1, keepdims=True)
    total: Any = 0.0
    for axis in (1, 2):
        padding = [(0, 0)] * 4
        padding[axis] = (1, 0)
        padded = ops.pad(difference, padding)
        before = padded[:, :-1] if axis == 1 else padded[:, :, :-1]
        total = total + ops.abs(difference - before)
    return ops.mean(total, axis=(1, 2, 3))


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
    """
    return 0.5 * ops.mean(ops.square(y_pred - y_true), axis=(1, 2, 3))
