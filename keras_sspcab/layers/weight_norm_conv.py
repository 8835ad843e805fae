"""A convolution whose kernel is kept apart from its length."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.layers._weighted_layer import WeightedLayer

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
        data_format: `"channels_last"`, `"channels_first"` or None for the
            setting of Keras.
        use_bias: Whether a bias is added before the affine map. Defaults to
            True.
        kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, kernel_constraint, bias_constraint: As in
            `keras.layers.Conv2D`; those of the kernel are for `v`.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second; height
        and width may be None.

    Output shape:
        `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.filters = standardize_int(filters, "filters", 1)
        self.kernel_size = standardize_int(kernel_size, "kernel_size", 1)
        self.strides = standardize_int(strides, "strides", 1)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = self._num_channels(input_shape)
        # float32 under mixed precision too: of the length, all of it counts.
        self.kernel = self.add_weight(
            shape=(self.kernel_size, self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,
            name="kernel",
        )
        vectors: dict[str, Any] = {"shape": (self.filters,), "autocast": False}
        self.length = self.add_weight(
            initializer=lambda shape, dtype: self._kernel_norm(),
            name="length",
            **vectors,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
                **vectors,
            )
        self.gamma = self.add_weight(
            initializer="ones", name="gamma", **vectors
        )
        self.beta = self.add_weight(initializer="zeros", name="beta", **vectors)
        self.input_spec = keras.layers.InputSpec(
            ndim=4, axes={self._channel_axis: channels}
        )

    def _kernel_norm(self) -> Any:
        squares = ops.sum(ops.square(self.kernel), axis=(0, 1, 2))
        return ops.sqrt(ops.maximum(squares, _EPSILON**2))

    def call(self, inputs: Any) -> Any:
        # The affine map is in the kernel and the shift: it costs nothing.
        scale = self.gamma * self.length / self._kernel_norm()
        outputs = ops.conv(
            inputs,
            ops.cast(self.kernel * scale, inputs.dtype),
            strides=self.strides,
            padding="same",
            data_format=self.data_format,
        )
        shift = ops.convert_to_tensor(self.beta)
        if self.bias is not None:
            shift = shift + self.gamma * self.bias
        if self.data_format == "channels_first":
            shift = ops.reshape(shift, (-1, 1, 1))
        return outputs + ops.cast(shift, outputs.dtype)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        sides = [
            None if side is None else -(-side // self.strides)
            for side in (
                input_shape[1:3]
                if self.data_format == "channels_last"
                else input_shape[2:]
            )
        ]
        if self.data_format == "channels_last":
            return (input_shape[0], *sides, self.filters)
        return (input_shape[0], self.filters, *sides)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
        }
