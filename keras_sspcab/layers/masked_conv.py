"""Masked convolutions: the centre of the receptive field is never seen."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_sspcab.layers._arguments import (
    standardize_choice,
    standardize_data_format,
    standardize_int,
)
from keras_sspcab.layers._dilated_conv import dilated_conv

PADDING_MODES = ("zeros", "reflect")
FORMS = ("auto", "dilated", "stacked", "shifted", "masked")

_form = threading.local()


@contextlib.contextmanager
def masked_conv_form(form: str) -> Iterator[None]:
    """Chooses how masked convolutions are computed inside a `with` block.

    All forms give the same numbers and use the same weights; they differ in
    speed and in the operations that end up in an exported graph. The choice is
    made when a layer is called or traced, and holds for the current thread.

    Args:
        form: One of

            - `"auto"`: the fastest exact form for the layer (see
              `benchmarks/README.md`). The default outside of this context.
            - `"dilated"`: `kernel_size ** rank` convolutions with a kernel of
              two samples an axis, dilated over the whole field; a single one
              for `kernel_size=1`.
            - `"stacked"`: one convolution over the channel-wise stack of the
              shifted views of the input, one view a corner.
            - `"shifted"`: one convolution for each corner, summed (the form
              in which the paper is written).
            - `"masked"`: one convolution over the full receptive field with a
              kernel that is zero outside of the corners.

    Raises:
        ValueError: If `form` is none of these.
    """
    form = standardize_choice(form, FORMS, "form")
    previous = getattr(_form, "value", "auto")
    _form.value = form
    try:
        yield
    finally:
        _form.value = previous


class _MaskedConv(keras.layers.Layer):
    """The maths of `MaskedConv2D` and `MaskedConv3D`, for any rank."""

    rank: int

    def __init__(
        self,
        filters: int,
        kernel_size: int = 1,
        dilation_rate: int = 1,
        mask_size: int = 1,
        padding_mode: str = "zeros",
        data_format: str | None = None,
        activation: Any = None,
        per_corner_activation: bool = False,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.filters = standardize_int(filters, "filters", minimum=1)
        self.kernel_size = standardize_int(
            kernel_size, "kernel_size", minimum=1
        )
        self.dilation_rate = standardize_int(
            dilation_rate, "dilation_rate", minimum=0
        )
        self.mask_size = standardize_int(mask_size, "mask_size", minimum=1)
        self.padding_mode = standardize_choice(
            padding_mode, PADDING_MODES, "padding_mode"
        )
        self.data_format = standardize_data_format(data_format)
        self.activation = keras.activations.get(activation)
        self.per_corner_activation = bool(per_corner_activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.input_spec = keras.layers.InputSpec(ndim=self.rank + 2)

    @property
    def receptive_field(self) -> int:
        """Side of the receptive field, `2k' + 2d + m` samples."""
        return 2 * self.kernel_size + 2 * self.dilation_rate + self.mask_size

    @property
    def corner_offset(self) -> int:
        """Distance between the corners along an axis, `k' + 2d + m`."""
        return self.receptive_field - self.kernel_size

    @property
    def padding(self) -> tuple[int, int]:
        """Samples padded before and after each spatial axis."""
        before = (self.receptive_field - 1) // 2
        return before, self.receptive_field - 1 - before

    @property
    def corners(self) -> list[tuple[int, ...]]:
        """The corners in the order of the biases; 0 is first, 1 last."""
        return list(itertools.product((0, 1), repeat=self.rank))

    @property
    def _channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    @property
    def _spatial_axes(self) -> tuple[int, ...]:
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.rank))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._check_shape(input_shape)
        channels = input_shape[self._channel_axis]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(2 * self.kernel_size,) * self.rank
            + (channels, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            trainable=True,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(len(self.corners), self.filters),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                trainable=True,
            )
        self.input_spec = keras.layers.InputSpec(
            ndim=self.rank + 2, axes={self._channel_axis: channels}
        )

    def call(self, inputs: Any) -> Any:
        if self.per_corner_activation and self.activation is not None:
            outputs = self._sum_of_activated_corners(inputs)
        else:
            outputs = self._convolve(inputs)
            if self.bias is not None:
                outputs = ops.add(
                    outputs, self._channel_vector(ops.sum(self.bias, axis=0))
                )
            if self.activation is not None:
                outputs = self.activation(outputs)
        return outputs

    def _convolve(self, inputs: Any) -> Any:
        form = getattr(_form, "value", "auto")
        if form == "auto":
            # Measured: see benchmarks/README.md.
            form = "dilated" if self.kernel_size == 1 else "shifted"
        if form == "dilated":
            return self._convolve_dilated(inputs)
        if form == "stacked":
            return self._convolve_stacked(inputs)
        if form == "shifted":
            return self._convolve_shifted(inputs)
        return self._convolve_masked(inputs)

    def _convolve_dilated(self, inputs: Any) -> Any:
        """Sums one convolution of 2 taps an axis for each kernel element."""
        k = self.kernel_size
        before, after = self.padding
        if self.padding_mode == "reflect":
            inputs, before, after = self._pad(inputs), 0, 0
        outputs = None
        for element in itertools.product(range(k), repeat=self.rank):
            taps = self.kernel[
                tuple(slice(start, None, k) for start in element)
            ]
            # Less padding, or a crop, by what the other elements of the
            # corners look at.
            margins = [
                (before - start, after - (k - 1 - start)) for start in element
            ]
            view = self._slice(
                inputs, [(max(0, -b), max(0, -a)) for b, a in margins]
            )
            term = dilated_conv(
                view,
                ops.cast(taps, inputs.dtype),
                self.corner_offset,
                [(max(0, b), max(0, a)) for b, a in margins],
                self.data_format,
            )
            outputs = term if outputs is None else ops.add(outputs, term)
        return outputs

    def _convolve_stacked(self, inputs: Any) -> Any:
        """Convolves the channel-wise stack of the corners' views once."""
        padded = self._pad(inputs)
        views = [self._corner_view(padded, corner) for corner in self.corners]
        kernel = ops.concatenate(
            [self._corner_kernel(corner) for corner in self.corners], axis=-2
        )
        stack = ops.concatenate(views, axis=self._channel_axis)
        return self._conv(stack, kernel, "valid")

    def _convolve_shifted(self, inputs: Any) -> Any:
        """Sums one convolution for each corner."""
        padded = self._pad(inputs)
        outputs = None
        for corner in self.corners:
            term = self._conv_corner(padded, corner)
            outputs = term if outputs is None else ops.add(outputs, term)
        return outputs

    def _convolve_masked(self, inputs: Any) -> Any:
        """Convolves with the full kernel, zero outside of the corners."""
        kernel = self.kernel
        gap = self.corner_offset - self.kernel_size
        for axis in range(self.rank):
            first, last = ops.split(kernel, 2, axis=axis)
            shape = list(first.shape)
            shape[axis] = gap
            kernel = ops.concatenate(
                [first, ops.zeros(shape, dtype=first.dtype), last], axis=axis
            )
        if self.padding_mode == "zeros":
            return self._conv(inputs, kernel, "same")
        return self._conv(self._pad(inputs), kernel, "valid")

    def _sum_of_activated_corners(self, inputs: Any) -> Any:
        padded = self._pad(inputs)
        outputs = None
        for index, corner in enumerate(self.corners):
            term = self._conv_corner(padded, corner)
            if self.bias is not None:
                term = ops.add(term, self._channel_vector(self.bias[index]))
            term = self.activation(term)
            outputs = term if outputs is None else ops.add(outputs, term)
        return outputs

    def _conv_corner(self, padded: Any, corner: tuple[int, ...]) -> Any:
        return self._conv(
            self._corner_view(padded, corner),
            self._corner_kernel(corner),
            "valid",
        )

    def _corner_kernel(self, corner: tuple[int, ...]) -> Any:
        k = self.kernel_size
        return self.kernel[tuple(slice(c * k, (c + 1) * k) for c in corner)]

    def _corner_view(self, padded: Any, corner: tuple[int, ...]) -> Any:
        offset = self.corner_offset
        return self._slice(
            padded, [(offset, 0) if c else (0, offset) for c in corner]
        )

    def _slice(self, inputs: Any, crops: list[tuple[int, int]]) -> Any:
        """Crops `(before, after)` samples off each spatial axis."""
        if not any(before or after for before, after in crops):
            # A slice of everything would stay in exported graphs as a copy.
            return inputs
        index = [slice(None)] * (self.rank + 2)
        for axis, (before, after) in zip(
            self._spatial_axes, crops, strict=True
        ):
            index[axis] = slice(before, -after if after else None)
        return inputs[tuple(index)]

    def _pad(self, inputs: Any) -> Any:
        widths = [(0, 0)] * (self.rank + 2)
        for axis in self._spatial_axes:
            widths[axis] = self.padding
        mode = "reflect" if self.padding_mode == "reflect" else "constant"
        return ops.pad(inputs, widths, mode=mode)

    def _conv(self, inputs: Any, kernel: Any, padding: str) -> Any:
        return ops.conv(
            inputs,
            ops.cast(kernel, inputs.dtype),
            strides=1,
            padding=padding,
            data_format=self.data_format,
        )

    def _channel_vector(self, vector: Any) -> Any:
        vector = ops.cast(vector, self.compute_dtype)
        if self.data_format == "channels_last":
            return vector
        return ops.reshape(vector, (1, -1) + (1,) * self.rank)

    def _check_shape(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != self.rank + 2:
            raise ValueError(
                f"{type(self).__name__} expects an input of {self.rank + 2} "
                "dimensions (batch, space and channels). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        if input_shape[self._channel_axis] is None:
            raise ValueError(
                "The channel dimension of the input must be defined; the "
                "spatial ones may be None. "
                f"Received: input_shape={tuple(input_shape)}, "
                f"data_format={self.data_format!r}"
            )
        if self.padding_mode == "reflect":
            needed = max(self.padding)
            sizes = [input_shape[axis] for axis in self._spatial_axes]
            if any(size is not None and size <= needed for size in sizes):
                raise ValueError(
                    "Reflect padding needs every spatial dimension to exceed "
                    f"the padding of {needed} samples. "
                    f"Received: input_shape={tuple(input_shape)}. Use a larger "
                    'input or padding_mode="zeros".'
                )

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        self._check_shape(input_shape)
        shape = list(input_shape)
        shape[self._channel_axis] = self.filters
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            {
                "filters": self.filters,
                "kernel_size": self.kernel_size,
                "dilation_rate": self.dilation_rate,
                "mask_size": self.mask_size,
                "padding_mode": self.padding_mode,
                "data_format": self.data_format,
                "activation": keras.activations.serialize(self.activation),
                "per_corner_activation": self.per_corner_activation,
                "use_bias": self.use_bias,
                "kernel_initializer": keras.initializers.serialize(
                    self.kernel_initializer
                ),
                "bias_initializer": keras.initializers.serialize(
                    self.bias_initializer
                ),
                "kernel_regularizer": keras.regularizers.serialize(
                    self.kernel_regularizer
                ),
                "bias_regularizer": keras.regularizers.serialize(
                    self.bias_regularizer
                ),
                "kernel_constraint": keras.constraints.serialize(
                    self.kernel_constraint
                ),
                "bias_constraint": keras.constraints.serialize(
                    self.bias_constraint
                ),
            }
        )
        return config


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MaskedConv2D(_MaskedConv):
    """2D convolution that sees the corners of its field, not the centre.

    The receptive field is a square of side `2k' + 2d + m`. Only its four
    corners, squares of side `k'`, carry weights; the mask of `m x m` samples in
    the middle and the cross around it do not. So each output position is
    computed without the input at that position, which makes the layer a
    predictor of what it does not see. For `k'=1, d=1, m=1` the taps lie two
    samples off the centre, diagonally:

        x . . . x        x: weights    M: masked centre    .: unused
        . . . . .
        . . M . .
        . . . . .
        x . . . x

    Reference:
    - [Ristea et al., "Self-Supervised Predictive Convolutional Attentive
      Block for Anomaly Detection", CVPR 2022](https://arxiv.org/abs/2111.09099),
      section 3. The paper states `m=1`; its Table 5 tries `m=3` without giving
      formulas, so other values are the natural generalisation. For an even `m`
      the predicted position is the top left one of the four middle ones.

    Args:
        filters: Integer, number of output channels.
        kernel_size: Integer, the side `k'` of each corner. Defaults to `1`.
        dilation_rate: Integer, the paper's `d`: samples skipped between a
            corner and the mask. Zero is allowed. Defaults to `1`.
        mask_size: Integer, the side `m` of the masked centre. Defaults to `1`.
        padding_mode: `"zeros"` (the paper) or `"reflect"` (the authors'
            TensorFlow file). The spatial size is kept in both. Defaults to
            `"zeros"`.
        data_format: `"channels_last"` or `"channels_first"`; `None` takes
            `keras.config.image_data_format()`.
        activation: Activation applied to the sum of the corners. Defaults to
            `None` (linear).
        per_corner_activation: Whether the bias and the activation are applied
            to each corner before the sum, as in the authors' TensorFlow file.
            Defaults to `False`.
        use_bias: Whether each corner adds a bias vector; without
            `per_corner_activation` the four act as one, their sum, as in the
            authors' PyTorch file. Defaults to `True`.
        kernel_initializer: Initialiser of the kernel.
        bias_initializer: Initialiser of the biases.
        kernel_regularizer: Optional regulariser of the kernel.
        bias_regularizer: Optional regulariser of the biases.
        activity_regularizer: Optional regulariser of the output.
        kernel_constraint: Optional constraint on the kernel.
        bias_constraint: Optional constraint on the biases.
        **kwargs: Base layer keyword arguments (`name`, `dtype`, ...).

    Attributes:
        kernel: Variable of shape `(2k', 2k', channels, filters)`: the four
            corners put together without the gap between them.
        bias: Variable of shape `(4, filters)` in the order top left, top
            right, bottom left, bottom right; `None` without biases.

    Input shape:
        4D tensor `(batch, height, width, channels)`, or `(batch, channels,
        height, width)` with `data_format="channels_first"`. Height and width
        may be unknown.

    Output shape:
        As the input, with `filters` channels.

    Raises:
        ValueError: If an argument is out of its range, if the number of
            channels is unknown, or if the input is too small to be reflected.

    Example:
    >>> layer = MaskedConv2D(1, kernel_initializer="ones", use_bias=False)
    >>> layer(np.ones((1, 5, 5, 1)))[0, :, :, 0]
    [[1, 1, 2, 1, 1],
     [1, 1, 2, 1, 1],
     [2, 2, 4, 2, 2],
     [1, 1, 2, 1, 1],
     [1, 1, 2, 1, 1]]
    """

    rank = 2


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MaskedConv3D(_MaskedConv):
    """3D convolution that sees the corners of its field, not the centre.

    The rules of `MaskedConv2D` on three axes, for video and volumes: a cube of
    side `2k' + 2d + m` whose eight corners of side `k'` carry weights.

    Reference:
    - [Madan, Ristea et al., "Self-Supervised Masked Convolutional Transformer
      Block for Anomaly Detection", TPAMI
      2024](https://arxiv.org/abs/2209.12148), section 3.

    Args:
        filters: Integer, number of output channels.
        kernel_size: Integer, the side `k'` of each corner. Defaults to `1`.
        dilation_rate: Integer, the paper's `d`. Defaults to `1`. With a depth
            of `2d + 1` samples or fewer the middle slices see no corner along
            that axis.
        mask_size: Integer, the side `m` of the masked centre. Defaults to `1`.
        padding_mode: `"zeros"` or `"reflect"`. Defaults to `"zeros"`.
        data_format: `"channels_last"` or `"channels_first"`; `None` takes
            `keras.config.image_data_format()`.
        activation: Activation applied to the sum. Defaults to `None`.
        per_corner_activation: Whether the bias and the activation are applied
            to each corner before the sum. Defaults to `False`.
        use_bias: Whether each corner adds a bias. Defaults to `True`.
        kernel_initializer: Initialiser of the kernel.
        bias_initializer: Initialiser of the biases.
        kernel_regularizer: Optional regulariser of the kernel.
        bias_regularizer: Optional regulariser of the biases.
        activity_regularizer: Optional regulariser of the output.
        kernel_constraint: Optional constraint on the kernel.
        bias_constraint: Optional constraint on the biases.
        **kwargs: Base layer keyword arguments (`name`, `dtype`, ...).

    Attributes:
        kernel: Variable of shape `(2k', 2k', 2k', channels, filters)`.
        bias: Variable of shape `(8, filters)`, or `None`.

    Input shape:
        5D tensor `(batch, height, width, depth, channels)`, or `(batch,
        channels, height, width, depth)`. The three spatial axes are alike, so
        `(batch, time, height, width, channels)` does as well.

    Output shape:
        As the input, with `filters` channels.

    Raises:
        ValueError: As `MaskedConv2D`.

    Example:
    >>> MaskedConv3D(16)(np.zeros((2, 8, 32, 32, 4))).shape
    (2, 8, 32, 32, 16)
    """

    rank = 3
