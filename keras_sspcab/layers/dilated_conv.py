"""Dilated convolution, with TensorFlow's native operation where it has one.

On TensorFlow, `keras.ops.conv` computes a dilated convolution on the CPU by
moving space to batch and back, in training and in inference, because the native
operation has no gradient there. Both gradients of it are cheap to write with
the operation itself and with matrix products; doing so halves the time of the
block, and lets exporters see one plain convolution (benchmarks/README.md).
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sspcab.layers.auxiliary_loss import auxiliary_losses_enabled

Padding = Sequence[tuple[int, int]]


def dilated_conv(
    inputs: Any, kernel: Any, dilation: int, padding: Padding, data_format: str
) -> Any:
    """Convolves with stride 1, in any rank and on any backend.

    The taps of the kernel `(*taps, channels, filters)` lie `dilation` samples
    apart on all axes; `padding` is of zeros before and after each of them.
    """
    native = (
        keras.config.backend() == "tensorflow"
        and data_format == "channels_last"
        and len(padding) == 2
    )
    if native:
        return _conv2d_tensorflow(inputs, kernel, dilation, padding)
    if any(sum(pair) for pair in padding):
        widths = [(0, 0), *padding]
        is_last = data_format == "channels_last"
        widths.insert(len(widths) if is_last else 1, (0, 0))
        inputs = ops.pad(inputs, widths)
    return ops.conv(
        inputs,
        kernel,
        strides=1,
        padding="valid",
        data_format=data_format,
        dilation_rate=dilation,
    )


def _conv2d_tensorflow(
    inputs: Any, kernel: Any, dilation: int, padding: Padding
) -> Any:
    import tensorflow as tf

    def convolve(x: Any, taps: Any) -> Any:
        widths = [[0, 0], *padding, [0, 0]]
        return tf.nn.conv2d(
            x, taps, strides=1, padding=widths, dilations=dilation
        )

    if not auxiliary_losses_enabled():
        # An inference graph needs no gradient.
        return convolve(inputs, kernel)

    @tf.custom_gradient
    def differentiable(x: Any, taps: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            return (
                _gradient_of_inputs(upstream, taps, dilation, padding),
                _gradient_of_kernel(x, upstream, taps, dilation, padding),
            )

        return convolve(x, taps), gradient

    return differentiable(inputs, kernel)


def _gradient_of_inputs(
    upstream: Any, kernel: Any, dilation: int, padding: Padding
) -> Any:
    """A convolution with the kernel turned by 180 degrees."""
    turned = ops.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    reach = [dilation * (kernel.shape[axis] - 1) for axis in (0, 1)]
    mirrored = [
        (extent - before, extent - after)
        for extent, (before, after) in zip(reach, padding, strict=True)
    ]
    return _conv2d_tensorflow(upstream, turned, dilation, mirrored)


def _gradient_of_kernel(
    inputs: Any, upstream: Any, kernel: Any, dilation: int, padding: Padding
) -> Any:
    """One matrix product for each tap, over all positions."""
    import tensorflow as tf

    height, width, channels, filters = kernel.shape
    padded = tf.pad(inputs, [[0, 0], *padding, [0, 0]])
    shape = tf.shape(upstream)
    errors = tf.reshape(upstream, (-1, filters))
    products = []
    for row in range(height):
        for column in range(width):
            view = padded[
                :,
                row * dilation : row * dilation + shape[1],
                column * dilation : column * dilation + shape[2],
                :,
            ]
            view = tf.reshape(view, (-1, channels))
            # Filters first: faster than its transpose for few channels.
            products.append(tf.matmul(errors, view, transpose_a=True))
    gradient = tf.transpose(tf.stack(products), (0, 2, 1))
    return tf.reshape(gradient, (height, width, channels, filters))
