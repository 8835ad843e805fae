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
import numpy as np
from keras import ops

from keras_sspcab.layers.plain_operations import uses_plain_operations

Padding = Sequence[tuple[int, int]]

# Bytes to which TensorFlow aligns memory.
_ALIGNMENT = 64


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

    if uses_plain_operations():
        return convolve(inputs, kernel)

    @tf.custom_gradient
    def differentiable(x: Any, taps: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_kernel = gradient_of_kernel(x, upstream, taps, dilation, padding)
            # One after the other: what the first needs is freed by then.
            with tf.control_dependencies([of_kernel]):
                upstream = tf.identity(upstream)
            of_inputs = _gradient_of_inputs(upstream, taps, dilation, padding)
            return of_inputs, of_kernel

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


def gradient_of_kernel(
    inputs: Any, upstream: Any, kernel: Any, dilation: int, padding: Padding
) -> Any:
    """Returns the gradient by a kernel: for each tap, a product of matrices.

    Inputs and errors are laid out in rows of the same length, with zeros at
    their ends. Then a tap is a shift of the flattened maps, and a slice of
    them, which is not copied if pixels are as long as TensorFlow aligns memory.
    With fewer channels each tap has a crop of the inputs instead.
    """
    import tensorflow as tf

    taps = np.ndindex(*kernel.shape[:2])
    products = []
    if inputs.shape[-1] * inputs.dtype.size < _ALIGNMENT:
        padded = tf.pad(inputs, [(0, 0), *padding, (0, 0)])
        height, width = tf.unstack(tf.shape(upstream)[1:3])
        errors = tf.reshape(upstream, (-1, upstream.shape[-1]))
        for tap in taps:
            top, left = (step * dilation for step in tap)
            crop = padded[:, top : top + height, left : left + width]
            seen = tf.reshape(crop, (-1, inputs.shape[-1]))
            products.append(tf.matmul(seen, errors, transpose_a=True))
        return tf.reshape(tf.stack(products), kernel.shape)
    margins = [max(pair) for pair in padding]
    sides = [tf.shape(inputs)[axis + 1] + margins[axis] for axis in (0, 1)]

    def flatten(maps: Any) -> Any:
        shape = tf.shape(maps)
        ends = [(0, sides[axis] - shape[axis + 1]) for axis in (0, 1)]
        padded = tf.pad(maps, [(0, 0), *ends, (0, 0)])
        return tf.reshape(padded, (-1, maps.shape[-1]))

    seen, errors = flatten(inputs), flatten(upstream)
    total = tf.shape(seen)[0]
    for tap in taps:
        down, right = (
            step * dilation - before
            for step, (before, _) in zip(tap, padding, strict=True)
        )
        shift = down * sides[1] + right
        if (down, right) < (0, 0):
            pair = seen[: total + shift], errors[-shift:]
        else:
            pair = seen[shift:], errors[: total - shift]
        products.append(tf.matmul(*pair, transpose_a=True))
    return tf.reshape(tf.stack(products), kernel.shape)
