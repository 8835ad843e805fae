"""Attention gates that close the block: channel-wise and spatial."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_choice,
    standardize_int,
    standardize_odd,
)
from keras_sspcab.layers.base import (
    INITIALIZERS,
    Shape,
    WeightedLayer,
    at_least_float32,
    pytorch_initializers,
)
from keras_sspcab.layers.plain_operations import uses_plain_operations


class DenseLayers(WeightedLayer):
    """A layer that is made of dense layers.

    Args:
        initializer: `"keras"`, or `"authors"` to draw kernels and biases as
            PyTorch does, whatever their initializers.
        **kwargs: As for any layer with weights.
    """

    config_names = ("initializer",)

    def __init__(self, initializer: str = "keras", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initializer = standardize_choice(
            initializer, INITIALIZERS, "initializer"
        )

    def _dense(
        self, name: str, inputs: int, units: int, **options: Any
    ) -> keras.layers.Dense:
        """Returns one of them, built."""
        as_authors = self.initializer == "authors"
        drawn = pytorch_initializers(inputs) if as_authors else {}
        arguments = {**self._child_arguments(), **drawn, **options}
        layer = keras.layers.Dense(units, name=name, **arguments)
        layer.build((None, inputs))
        return layer


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ChannelAttention(DenseLayers):
    """Scales each channel by a gate computed from all channels' means.

    Squeeze-and-Excitation: the mean over height and width of each channel
    passes a bottleneck of two dense layers, ReLU then sigmoid, and multiplies
    the channel.

    References:
    - [Hu et al., "Squeeze-and-Excitation Networks", CVPR
      2018](https://arxiv.org/abs/1709.01507).
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), equation 1.
      The equation has no biases; the authors' code has them, so they are on by
      default here.

    Args:
        reduction_ratio: Integer `r`. The bottleneck has `channels // r` units,
            at least one (the guard is ours: the authors' code would fail with
            fewer channels than `r`). Defaults to `8`.
        initializer: `"keras"` (the default), or `"authors"` to draw kernels and
            biases as PyTorch does, whatever their initializers.
        **kwargs: `data_format`, `use_bias`, initializers, regularizers and
            constraints as in `keras.layers.Conv2D`, for both dense layers.

    Input and output shape:
        4D tensor `(batch, height, width, channels)`, or channels first.

    Example:
    >>> layer = ChannelAttention(reduction_ratio=4)
    >>> tuple(layer(np.ones((2, 8, 8, 16))).shape)
    (2, 8, 8, 16)
    >>> layer.count_params()
    148
    """

    config_names = ("reduction_ratio",)

    def __init__(
        self,
        reduction_ratio: int = 8,
        initializer: str = "keras",
        **kwargs: Any,
    ) -> None:
        super().__init__(initializer=initializer, **kwargs)
        self.reduction_ratio = standardize_int(
            reduction_ratio, "reduction_ratio", 1
        )

    def build(self, input_shape: Shape) -> None:
        channels = self._fix_channels(input_shape)
        units = max(1, channels // self.reduction_ratio)
        with self.building_parts():
            self.squeeze = self._dense(
                "squeeze", channels, units, activation="relu"
            )
            self.excite = self._dense(
                "excite", units, channels, activation="sigmoid"
            )

    def call(self, inputs: Any) -> Any:
        # float16 overflows in the sum over large maps.
        means = ops.mean(at_least_float32(inputs), axis=self._spatial_axes)
        gate = self.excite(self.squeeze(ops.cast(means, self.compute_dtype)))
        gate = ops.expand_dims(gate, self._spatial_axes)
        return _scale(inputs, gate, self._spatial_axes)


def _scale(inputs: Any, gate: Any, axes: tuple[int, ...]) -> Any:
    """Multiplies; its gradient holds one map less at a time on TensorFlow."""
    is_plain = keras.config.backend() != "tensorflow"
    if is_plain or uses_plain_operations():
        return ops.multiply(inputs, gate)
    import tensorflow as tf

    @tf.custom_gradient
    def multiply(x: Any, factor: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_factor = tf.reduce_sum(upstream * x, axes, keepdims=True)
            # In this order, the second product can take the place of upstream.
            with tf.control_dependencies([of_factor]):
                upstream = tf.identity(upstream)
            return upstream * factor, of_factor

        return x * factor, gradient

    return multiply(inputs, gate)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class SpatialAttention(WeightedLayer):
    """Scales each position by a gate computed from its neighborhood.

    The mean and the maximum over the channels pass one convolution with a
    sigmoid, whose single output channel multiplies the position.

    References:
    - [Woo et al., "CBAM: Convolutional Block Attention Module", ECCV
      2018](https://arxiv.org/abs/1807.06521), section 3.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), rows SA and
      CA+SA of Table 1. The paper does not describe its module; CBAM's, without
      batch normalization, is assumed. Unconfirmed.

    Args:
        kernel_size: Odd integer, side of the convolution. Defaults to `7`, as
            in CBAM.
        **kwargs: `data_format`, `use_bias`, initializers, regularizers and
            constraints as in `keras.layers.Conv2D`.

    Input and output shape:
        4D tensor `(batch, height, width, channels)`, or channels first.

    Example:
    >>> layer = SpatialAttention(kernel_initializer="zeros")
    >>> ops.convert_to_numpy(layer(np.ones((1, 2, 2, 16))))[0, :, :, 0]
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """

    config_names = ("kernel_size",)

    def __init__(self, kernel_size: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_size = standardize_odd(kernel_size, "kernel_size")

    def build(self, input_shape: Shape) -> None:
        self._fix_channels(input_shape)
        self.conv = keras.layers.Conv2D(
            1,
            self.kernel_size,
            padding="same",
            activation="sigmoid",
            data_format=self.data_format,
            name="conv",
            **self._child_arguments(),
        )
        shape: list[int | None] = [None] * 4
        shape[self._channel_axis] = 2
        self.conv.build(tuple(shape))

    def call(self, inputs: Any) -> Any:
        axis = self._channel_axis
        mean = ops.mean(inputs, axis=axis, keepdims=True)
        largest = ops.max(inputs, axis=axis, keepdims=True)
        gate = self.conv(ops.concatenate([mean, largest], axis=axis))
        return ops.multiply(inputs, gate)
