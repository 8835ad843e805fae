"""The maths of the masked convolutions, in every form, for any rank."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.layers.base import Shape, WeightedLayer
from keras_sspcab.layers.dilated_conv import dilated_conv

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

    Example:
    >>> layer = keras_sspcab.MaskedConv2D(4)
    >>> x = np.random.rand(1, 8, 8, 3)
    >>> with masked_conv_form("shifted"):
    ...     expected = layer(x)
    >>> bool(np.allclose(layer(x), expected, atol=1e-5))
    True
    """
    form = standardize_choice(form, FORMS, "form")
    previous = getattr(_form, "value", "auto")
    _form.value = form
    try:
        yield
    finally:
        _form.value = previous


class CornerConv(WeightedLayer):
    """A convolution that sees the corners of its field, in any rank."""

    config_names = (
        "filters",
        "kernel_size",
        "dilation_rate",
        "mask_size",
        "padding_mode",
        "activation",
        "per_corner_activation",
    )
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
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, use_bias=use_bias, **kwargs)
        self.filters = standardize_int(filters, "filters", 1)
        self.kernel_size = standardize_int(kernel_size, "kernel_size", 1)
        self.dilation_rate = standardize_int(dilation_rate, "dilation_rate", 0)
        self.mask_size = standardize_int(mask_size, "mask_size", 1)
        self.padding_mode = standardize_choice(
            padding_mode, PADDING_MODES, "padding_mode"
        )
        self.activation = keras.activations.get(activation)
        self.per_corner_activation = bool(per_corner_activation)

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

    def build(self, input_shape: Shape) -> None:
        self._check_shape(input_shape)
        channels = self._fix_channels(input_shape)
        sides = [2 * self.kernel_size] * self.rank
        self.kernel = self._add_kernel(*sides, channels, self.filters)
        self.bias = self._add_bias(len(self.corners), self.filters)

    def call(self, inputs: Any) -> Any:
        if self.per_corner_activation and self.activation is not None:
            return self._sum_of_activated_corners(inputs)
        outputs = self._convolve(inputs)
        if self.bias is not None:
            outputs = outputs + self._channel_vector(ops.sum(self.bias, axis=0))
        return outputs if self.activation is None else self.activation(outputs)

    def _convolve(self, inputs: Any) -> Any:
        form = getattr(_form, "value", "auto")
        if form == "auto":
            # Measured: see benchmarks/README.md.
            form = "dilated" if self.kernel_size == 1 else "shifted"
        return getattr(self, f"_convolve_{form}")(inputs)

    def _convolve_dilated(self, inputs: Any) -> Any:
        """Sums one convolution of 2 taps an axis for each kernel element."""
        k = self.kernel_size
        before, after = self.padding
        if self.padding_mode == "reflect":
            inputs, before, after = self._pad(inputs), 0, 0
        terms = []
        for element in itertools.product(range(k), repeat=self.rank):
            taps = self.kernel[
                tuple(slice(start, None, k) for start in element)
            ]
            # Less padding, or a crop, by what the other elements of the
            # corners look at.
            margins = [
                (before - start, after - (k - 1 - start)) for start in element
            ]
            view = self._crop(
                inputs, [(max(0, -b), max(0, -a)) for b, a in margins]
            )
            term = dilated_conv(
                view,
                ops.cast(taps, inputs.dtype),
                self.corner_offset,
                [(max(0, b), max(0, a)) for b, a in margins],
                self.data_format,
            )
            terms.append(term)
        return _sum(terms)

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
        return _sum(self._corner_terms(inputs))

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
        terms = self._corner_terms(inputs)
        if self.bias is not None:
            terms = [
                term + self._channel_vector(self.bias[index])
                for index, term in enumerate(terms)
            ]
        return _sum([self.activation(term) for term in terms])

    def _corner_terms(self, inputs: Any) -> list[Any]:
        padded = self._pad(inputs)
        return [
            self._conv(
                self._corner_view(padded, corner),
                self._corner_kernel(corner),
                "valid",
            )
            for corner in self.corners
        ]

    def _corner_kernel(self, corner: tuple[int, ...]) -> Any:
        k = self.kernel_size
        return self.kernel[tuple(slice(c * k, (c + 1) * k) for c in corner)]

    def _corner_view(self, padded: Any, corner: tuple[int, ...]) -> Any:
        offset = self.corner_offset
        return self._crop(
            padded, [(offset, 0) if c else (0, offset) for c in corner]
        )

    def _crop(self, inputs: Any, crops: list[tuple[int, int]]) -> Any:
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
        if self._channels_first:
            return ops.reshape(vector, (1, -1) + (1,) * self.rank)
        return vector

    def _check_shape(self, input_shape: Shape) -> None:
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

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._check_shape(input_shape)
        shape = list(input_shape)
        shape[self._channel_axis] = self.filters
        return tuple(shape)


def _sum(terms: list[Any]) -> Any:
    # Without a zero to begin with, which would stay in exported graphs.
    return sum(terms[1:], terms[0])
