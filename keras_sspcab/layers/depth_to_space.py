"""Blocks of pixels to channels, and back."""

from typing import Any, ClassVar

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_data_format,
    standardize_int,
)


class _Rearrangement(keras.layers.Layer):
    """Moves values between the channels and blocks of pixels."""

    _to_space: ClassVar[bool]

    def __init__(
        self,
        block_size: int = 2,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.block_size = standardize_int(block_size, "block_size", 1)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.compute_output_shape(input_shape)

    def call(self, inputs: Any) -> Any:
        first = self.data_format == "channels_first"
        x = ops.transpose(inputs, (0, 2, 3, 1)) if first else inputs
        x = self._rearranged(x)
        return ops.transpose(x, (0, 3, 1, 2)) if first else x

    def _rearranged(self, x: Any) -> Any:
        raise NotImplementedError

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        first = self.data_format == "channels_first"
        batch, *sizes = input_shape
        channels = sizes.pop(0 if first else 2)
        block = self.block_size
        if channels is None:
            raise ValueError(
                "The channel dimension of the input must be defined. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        divided = [channels] if self._to_space else sizes
        factor = block**2 if self._to_space else block
        if any(size is not None and size % factor for size in divided):
            what = "channels" if self._to_space else "height and width"
            raise ValueError(
                f"The {what} must be a multiple of {factor} with "
                f"block_size={block}. Received: "
                f"input_shape={tuple(input_shape)}"
            )
        if self._to_space:
            channels = channels // factor
            sizes = [None if s is None else s * block for s in sizes]
        else:
            channels = channels * block**2
            sizes = [None if s is None else s // block for s in sizes]
        if first:
            return (batch, channels, *sizes)
        return (batch, *sizes, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "block_size": self.block_size,
            "data_format": self.data_format,
        }


@keras.saving.register_keras_serializable(package="keras_sspcab")
class DepthToSpace(_Rearrangement):
    """Spreads the channels of each pixel over a block of pixels.

    Channels are ordered by row of the block, column of the block, and channel
    of the output, as in `tf.nn.depth_to_space` (frameworks with the channel
    outermost, "pixel shuffle", have another order).

    Args:
        block_size: Side of the blocks. Defaults to 2.
        data_format: `"channels_last"`, `"channels_first"` or None for the
            setting of Keras.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second.

    Output shape:
        `(batch, height * block_size, width * block_size,
        channels / block_size^2)`.

    Raises:
        ValueError: If an argument is out of its range or the channels are no
            multiple of `block_size^2`.
    """

    _to_space = True

    def _rearranged(self, x: Any) -> Any:
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

    Args:
        block_size: Side of the blocks. Defaults to 2.
        data_format: As in `DepthToSpace`.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second.

    Output shape:
        `(batch, height / block_size, width / block_size,
        channels * block_size^2)`.

    Raises:
        ValueError: If an argument is out of its range or height or width is no
            multiple of `block_size`.
    """

    _to_space = False

    def _rearranged(self, x: Any) -> Any:
        block = self.block_size
        batch, height, width = ops.shape(x)[:3]
        height, width = height // block, width // block
        channels = x.shape[3] * block
        x = ops.reshape(x, (batch, height, block, width, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return ops.reshape(x, (batch, height, width, channels * block))
