"""Layers of Keras in forms that take TensorFlow less time on CPUs.

They have the names, weights and results of Keras' own layers, so that files of
models fit both.
"""

from typing import Any

import keras
from keras import layers, ops

from keras_sspcab.layers.base import Shape
from keras_sspcab.layers.dilated_conv import gradient_of_kernel
from keras_sspcab.layers.plain_operations import uses_plain_operations
from keras_sspcab.layers.resizing import bilinear_shares, enlarge_bilinearly

# From how many channels on products of matrices are the faster gradient, if the
# other side of the kernel has half as many.
_WIDE = 128

# How many times wider than high and wide a map must be for its taps to be
# applied before it is enlarged.
_DEPTH = 4


@keras.saving.register_keras_serializable(package="keras_sspcab")
class Conv2D(layers.Conv2D):
    """A convolution, with `enlarges` of a map that is enlarged twice first.

    It enlarges as `keras_sspcab.layers.BilinearUpsampling2D` does.

    The gradient of a wide kernel takes TensorFlow nearly twice the time of the
    convolution itself; a matrix product for each tap takes about the same. To
    enlarge and to apply a tap to each pixel, both linear, can change places:
    then a tap meets a quarter of the pixels.

    Example:
    >>> layer = Conv2D(8, 3, padding="same", enlarges=True)
    >>> tuple(layer(np.ones((1, 4, 4, 2), "float32")).shape)
    (1, 8, 8, 8)
    """

    def __init__(
        self, *arguments: Any, enlarges: bool = False, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.enlarges = enlarges

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        # Exported graphs have the plain form, which every runtime knows.
        is_plain = (
            keras.config.backend() != "tensorflow"
            or uses_plain_operations()
            or self.data_format != "channels_last"
            or (self.padding, self.strides) != ("same", (1, 1))
            or self.dilation_rate != (1, 1)
            or self.groups > 1
        )
        height, width, channels = inputs.shape[1:]
        if self.enlarges:
            is_deep = (
                height and width and channels >= _DEPTH * max(height, width)
            )
            if is_deep and not is_plain and self.kernel_size == (3, 3):
                return _enlarging_conv(inputs, kernel)
            inputs = enlarge_bilinearly(inputs, 2, self.data_format)
        narrow, wide = sorted((channels, self.filters))
        if is_plain or wide < _WIDE or 2 * narrow < _WIDE:
            return super().convolution_op(inputs, kernel)
        return _conv_with_matrix_gradient(inputs, kernel)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.enlarges:
            batch, *sides, channels = input_shape
            sides = [side and 2 * side for side in sides]
            input_shape = (batch, *sides, channels)
        return super().compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "enlarges": self.enlarges}


def _conv_with_matrix_gradient(inputs: Any, kernel: Any) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def convolve(x: Any, taps: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            of_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=taps,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            around = [((n - 1) // 2, n // 2) for n in taps.shape[:2]]
            of_kernel = gradient_of_kernel(x, upstream, taps, 1, around)
            return of_inputs, of_kernel

        return tf.nn.conv2d(x, taps, 1, "SAME"), gradient

    # A variable itself would be one that the gradient must know of.
    return convolve(inputs, tf.identity(ops.convert_to_tensor(kernel)))


def _enlarging_conv(inputs: Any, kernel: Any) -> Any:
    """Applies the taps of a 3x3 kernel, then enlarges, shifts and adds."""
    batch, height, width, channels = ops.shape(inputs)
    filters = kernel.shape[3]
    pixels = ops.reshape(inputs, (-1, channels))
    maps = []
    for column in range(3):
        taps = ops.transpose(kernel[:, column], (1, 0, 2))
        x = ops.matmul(pixels, ops.reshape(taps, (channels, 3 * filters)))
        maps.append(ops.reshape(x, (batch, height, width, 3 * filters)))
    x = ops.concatenate(maps, axis=2)
    x = ops.matmul(_shifted_shares(width, x.dtype), x)
    x = ops.concatenate(ops.split(x, 3, axis=-1), axis=1)
    x = ops.reshape(x, (batch, 3 * height, 2 * width * filters))
    x = ops.matmul(_shifted_shares(height, x.dtype), x)
    return ops.reshape(x, (batch, 2 * height, 2 * width, filters))


def _shifted_shares(side: int, dtype: Any) -> Any:
    """Shares of the pixels under each of three taps in an enlarged axis."""
    shares = ops.pad(bilinear_shares(side, 2, dtype), ((1, 1), (0, 0)))
    return ops.concatenate(
        [shares[tap : tap + 2 * side] for tap in range(3)], axis=1
    )


@keras.saving.register_keras_serializable(package="keras_sspcab")
class BatchNormalization(layers.BatchNormalization):
    """A batch normalization that is trained by one operation.

    Keras' own takes a dozen, each of which reads and writes the whole map.

    Example:
    >>> layer = BatchNormalization()
    >>> x = layer(np.random.rand(4, 8, 8, 3), training=True)
    >>> abs(float(ops.mean(x))) < 1e-4
    True
    """

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        is_fused = (
            training
            and self.trainable
            and mask is None
            and self.scale
            and self.center
            and not self.synchronized
            and not getattr(self, "renorm", False)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.config.backend() == "tensorflow"
            and keras.backend.standardize_dtype(inputs.dtype) != "float64"
        )
        if not is_fused:
            return super().call(inputs, training, mask)
        import tensorflow as tf

        x = tf.cast(inputs, "float32")
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # It estimates the variance of all images, Keras takes that of these.
        count = tf.cast(tf.size(x) / x.shape[-1], "float32")
        variance = variance * (count - 1.0) / count
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)
