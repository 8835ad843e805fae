"""A convolution whose kernel is kept apart from its length."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_choice,
    standardize_int,
    standardize_odd,
)
from keras_sspcab.layers.base import Shape, WeightedLayer

_EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="keras_sspcab")
class WeightNormConv2D(WeightedLayer):
    """2D convolution with weight normalization and an affine map behind it.

    The kernel of an output channel is `g v / ||v||`, the length `g` and the
    direction `v` of which are trained apart. What comes out is scaled by
    `gamma` and shifted by `beta`, for each channel. Zeros are padded so that
    the size stays, or is divided by the strides.

    `g` starts as `||v||`, so that the layer begins as a plain convolution with
    the kernel that the initializer gives.

    References:
    - [Salimans and Kingma, NeurIPS 2016](https://arxiv.org/abs/1602.07868)
    - [Esser et al., CVPR 2018](https://arxiv.org/abs/1804.04694), the affine
      map (as its code has it)

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel. Defaults to 3.
        strides: Step in both directions. Defaults to 1.
        alignment: Where kernels of a stride above 1 lie: `"keras"` (the
            default) as with `padding="same"`, `"pytorch"` as with a padding of
            half the kernel in PyTorch, which needs odd sizes of kernels.
        **kwargs: `data_format`, `use_bias`, initializers, regularizers and
            constraints as in `keras.layers.Conv2D`; those of the kernel are for
            `v`, and the bias is added before the affine map.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second.

    Output shape:
        `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Example:
    >>> layer = WeightNormConv2D(8, strides=2)
    >>> tuple(layer(np.zeros((1, 9, 9, 3))).shape)
    (1, 5, 5, 8)
    >>> [weight.name for weight in layer.weights]
    ['kernel', 'length', 'bias', 'gamma', 'beta']
    """

    config_names = ("filters", "kernel_size", "strides", "alignment")

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        alignment: str = "keras",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = standardize_int(filters, "filters", 1)
        self.kernel_size = standardize_int(kernel_size, "kernel_size", 1)
        self.strides = standardize_int(strides, "strides", 1)
        self.alignment = standardize_choice(
            alignment, ("keras", "pytorch"), "alignment"
        )
        if self.alignment == "pytorch" and self.strides > 1:
            standardize_odd(kernel_size, "kernel_size")

    def build(self, input_shape: Shape) -> None:
        channels = self._fix_channels(input_shape)
        sides = self.kernel_size, self.kernel_size
        # float32 under mixed precision too: of the length, all of it counts.
        self.kernel = self._add_kernel(
            *sides, channels, self.filters, autocast=False
        )
        vector: dict[str, Any] = {"shape": (self.filters,), "autocast": False}
        self.length = self.add_weight(
            initializer=lambda shape, dtype: self._kernel_norm(),
            name="length",
            **vector,
        )
        self.bias = self._add_bias(self.filters, autocast=False)
        self.gamma = self.add_weight(initializer="ones", name="gamma", **vector)
        self.beta = self.add_weight(initializer="zeros", name="beta", **vector)

    def _kernel_norm(self) -> Any:
        squares = ops.sum(ops.square(self.kernel), axis=(0, 1, 2))
        return ops.sqrt(ops.maximum(squares, _EPSILON**2))

    def call(self, inputs: Any) -> Any:
        # The affine map is in the kernel and the shift: it costs nothing.
        scale = self.gamma * self.length / self._kernel_norm()
        padding = "same"
        if self.strides > 1 and self.alignment == "pytorch":
            padding, half = "valid", self.kernel_size // 2
            pads = [(0, 0)] * 4
            for axis in self._spatial_axes:
                pads[axis] = (half, half)
            inputs = ops.pad(inputs, pads)
        outputs = ops.conv(
            inputs,
            ops.cast(self.kernel * scale, inputs.dtype),
            strides=self.strides,
            padding=padding,
            data_format=self.data_format,
        )
        shift = ops.convert_to_tensor(self.beta)
        if self.bias is not None:
            shift = shift + self.gamma * self.bias
        if self._channels_first:
            shift = ops.reshape(shift, (-1, 1, 1))
        return outputs + ops.cast(shift, outputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = list(input_shape)
        shape[self._channel_axis] = self.filters
        for axis in self._spatial_axes:
            side = input_shape[axis]
            shape[axis] = None if side is None else -(-side // self.strides)
        return tuple(shape)
