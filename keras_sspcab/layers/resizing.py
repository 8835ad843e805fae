"""Layers that change the size of maps."""

from typing import Any, ClassVar

import keras
from keras import ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.layers.base import (
    ConfigLayer,
    ImageLayer,
    Shape,
    multiply_last_axis,
)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class BilinearUpsampling2D(ImageLayer):
    """Bilinear up-sampling whose corners stay where they are.

    An output pixel `i` of `m` lies at `i (n - 1) / (m - 1)` between the `n`
    input pixels, so that the outermost pixels keep their place and value. This
    is `align_corners=True` of other frameworks; weights of networks that were
    trained with it fit. `keras.layers.UpSampling2D` aligns the outer edges of
    the pixels instead.

    Args:
        size: Factor, a positive integer. Defaults to 2.
        data_format: As in `keras.layers.Conv2D`.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second.

    Output shape:
        The same with `size` times the height and width.

    Example:
    >>> rows = np.array([[0.0, 1.0, 2.0]]).reshape(1, 1, 3, 1)
    >>> enlarged = ops.convert_to_numpy(BilinearUpsampling2D()(rows))
    >>> enlarged[0, 0, :, 0].round(1)
    array([0. , 0.4, 0.8, 1.2, 1.6, 2. ], dtype=float32)
    """

    config_names = ("size",)

    def __init__(
        self, size: int = 2, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.size = standardize_int(size, "size", minimum=1)

    def call(self, inputs: Any) -> Any:
        return enlarge_bilinearly(inputs, self.size, self.data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(
            side * self.size
            if axis in self._spatial_axes and side is not None
            else side
            for axis, side in enumerate(input_shape)
        )


def enlarge_bilinearly(inputs: Any, size: int, data_format: str) -> Any:
    """Enlarges maps as `BilinearUpsampling2D` says."""
    shape, dtype = ops.shape(inputs), inputs.dtype
    is_first = data_format == "channels_first"
    height, width = shape[2:] if is_first else shape[1:3]
    is_short = keras.backend.standardize_dtype(dtype) != "float64"
    if keras.config.backend() == "tensorflow" and is_short and not is_first:
        return _resize_natively(inputs, height * size, width * size)
    rows = bilinear_shares(height, size, dtype)
    columns = bilinear_shares(width, size, dtype)
    # Products with small matrices: gathering the neighbors would be slower, and
    # its gradient much slower.
    if is_first:
        x = ops.matmul(rows, inputs)
        return multiply_last_axis(x, ops.transpose(columns))
    batch, channels = shape[0], shape[3]
    x = ops.reshape(inputs, (batch, height, width * channels))
    x = ops.matmul(rows, x)
    x = ops.reshape(x, (batch, height * size, width, channels))
    return ops.matmul(columns, x)


def _resize_natively(inputs: Any, height: Any, width: Any) -> Any:
    """One operation, faster than products and known to every runtime."""
    import tensorflow as tf

    # It computes in float32, which half precision needs as well.
    enlarged = tf.raw_ops.ResizeBilinear(
        images=tf.cast(inputs, "float32"),
        size=[height, width],
        align_corners=True,
    )
    return tf.cast(enlarged, inputs.dtype)


def bilinear_shares(side: Any, size: int, dtype: Any) -> Any:
    """Returns the shares of `side` pixels in each pixel of the enlarged axis.

    A tensor `(side * size, side)`.
    """
    # Half precision cannot tell large positions apart.
    dtype = keras.backend.standardize_dtype(dtype)
    precise = keras.backend.result_type(dtype, "float32")
    span = ops.maximum(ops.cast(side * size - 1, precise), 1.0)
    step = ops.cast(side - 1, precise) / span
    source = ops.cast(ops.arange(side * size), precise) * step
    pixels = ops.cast(ops.arange(side), precise)
    distance = ops.abs(source[:, None] - pixels[None, :])
    return ops.cast(ops.maximum(1.0 - distance, 0.0), dtype)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class CropLike(ConfigLayer):
    """Crops a map at its lower and right border to the size of another.

    Call arguments:
        inputs: Tensor `(batch, height, width, ...)`.
        reference: Tensor of at most that height and width.

    Example:
    >>> cropped = CropLike()(np.ones((1, 8, 8, 3)), np.ones((1, 7, 5, 1)))
    >>> tuple(cropped.shape)
    (1, 7, 5, 3)
    """

    def call(self, inputs: Any, reference: Any) -> Any:
        shape = ops.shape(reference)
        return inputs[:, : shape[1], : shape[2]]

    def compute_output_shape(
        self, inputs_shape: Shape, reference_shape: Shape
    ) -> Shape:
        return (inputs_shape[0], *reference_shape[1:3], *inputs_shape[3:])


class _Rearrangement(ImageLayer):
    """Moves values between the channels and blocks of pixels."""

    config_names = ("block_size",)
    _to_space: ClassVar[bool]

    def __init__(
        self,
        block_size: int = 2,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.block_size = standardize_int(block_size, "block_size", 1)

    def build(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)

    def call(self, inputs: Any) -> Any:
        if not self._channels_first:
            return self._rearrange(inputs)
        x = self._rearrange(ops.transpose(inputs, (0, 2, 3, 1)))
        return ops.transpose(x, (0, 3, 1, 2))

    def _rearrange(self, x: Any) -> Any:
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        block, shape = self.block_size, list(input_shape)
        for axis in (*self._spatial_axes, self._channel_axis):
            is_channels = axis == self._channel_axis
            factor = block**2 if is_channels else block
            size = input_shape[axis]
            if size is None:
                if is_channels:
                    raise ValueError(
                        "The number of channels must be known. "
                        f"Received: input_shape={tuple(input_shape)}"
                    )
            elif is_channels != self._to_space:
                shape[axis] = size * factor
            elif size % factor:
                what = "channels" if is_channels else "height and width"
                raise ValueError(
                    f"The {what} must be a multiple of {factor} with "
                    f"block_size={block}. Received: "
                    f"input_shape={tuple(input_shape)}"
                )
            else:
                shape[axis] = size // factor
        return tuple(shape)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class DepthToSpace(_Rearrangement):
    """Spreads the channels of each pixel over a block of pixels.

    Channels are ordered by row of the block, column of the block, and channel
    of the output, as in `tf.nn.depth_to_space` (frameworks with the channel
    outermost, "pixel shuffle", have another order).

    Args:
        block_size: Side of the blocks. Defaults to 2.
        data_format: As in `keras.layers.Conv2D`.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second, which
        must be a multiple of `block_size^2`.

    Output shape:
        `(batch, height * block_size, width * block_size,
        channels / block_size^2)`.

    Example:
    >>> pixel = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    >>> ops.convert_to_numpy(DepthToSpace()(pixel))[0, :, :, 0]
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """

    _to_space = True

    def _rearrange(self, x: Any) -> Any:
        block = self.block_size
        batch, height, width = ops.shape(x)[:3]
        channels = x.shape[3] // block
        # Five axes instead of six: small runtimes have no more.
        x = ops.reshape(x, (batch, height, width, block, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        size = height * block, width * block, channels // block
        return ops.reshape(x, (batch, *size))


@keras.saving.register_keras_serializable(package="keras_sspcab")
class SpaceToDepth(_Rearrangement):
    """Gathers blocks of pixels in the channels: undoes `DepthToSpace`.

    Its arguments are those of `DepthToSpace`.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second; height
        and width must be multiples of `block_size`.

    Output shape:
        `(batch, height / block_size, width / block_size,
        channels * block_size^2)`.

    Example:
    >>> block = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    >>> ops.convert_to_numpy(SpaceToDepth()(block)).ravel()
    array([1., 2., 3., 4.], dtype=float32)
    """

    _to_space = False

    def _rearrange(self, x: Any) -> Any:
        block = self.block_size
        batch, height, width = ops.shape(x)[:3]
        height, width = height // block, width // block
        channels = x.shape[3] * block
        x = ops.reshape(x, (batch, height, block, width, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return ops.reshape(x, (batch, height, width, channels * block))
