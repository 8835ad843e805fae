"""Bilinear up-sampling whose corners stay where they are."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_data_format,
    standardize_int,
)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class BilinearUpsampling2D(keras.layers.Layer):
    """Bilinear up-sampling with aligned corners.

    An output pixel `i` of `m` lies at `i (n - 1) / (m - 1)` between the `n`
    input pixels, so that the outermost pixels keep their place and value. This
    is `align_corners=True` of other frameworks; weights of networks that were
    trained with it fit. `keras.layers.UpSampling2D` aligns the outer edges of
    the pixels instead.

    Args:
        size: Factor, a positive integer. Defaults to 2.
        data_format: `"channels_last"`, `"channels_first"` or None for the
            setting of Keras.
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, height, width, channels)`, or with the channels second.

    Output shape:
        The same with `size` times the height and width.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self, size: int = 2, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = standardize_int(size, "size", minimum=1)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, inputs: Any) -> Any:
        first = self.data_format == "channels_first"
        shape = ops.shape(inputs)
        height, width = shape[2:] if first else shape[1:3]
        rows = _weights(height, self.size, self.compute_dtype)
        columns = _weights(width, self.size, self.compute_dtype)
        # Products with small matrices: gathering the neighbors would be
        # slower, and its gradient much slower.
        if first:
            return ops.matmul(ops.matmul(rows, inputs), ops.transpose(columns))
        batch, channels = shape[0], shape[3]
        x = ops.reshape(inputs, (batch, height, width * channels))
        x = ops.matmul(rows, x)
        x = ops.reshape(x, (batch, height * self.size, width, channels))
        return ops.matmul(columns, x)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        axes = (2, 3) if self.data_format == "channels_first" else (1, 2)
        return tuple(
            side * self.size if axis in axes and side is not None else side
            for axis, side in enumerate(input_shape)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "data_format": self.data_format,
        }


def _weights(side: Any, size: int, dtype: Any) -> Any:
    """Shares of the input pixels in each output pixel of an axis."""
    # Half precision cannot tell large positions apart.
    precise = keras.backend.result_type(dtype, "float32")
    span = ops.maximum(ops.cast(side * size - 1, precise), 1.0)
    step = ops.cast(side - 1, precise) / span
    source = ops.cast(ops.arange(side * size), precise) * step
    pixels = ops.cast(ops.arange(side), precise)
    distance = ops.abs(source[:, None] - pixels[None, :])
    return ops.cast(ops.maximum(1.0 - distance, 0.0), dtype)
