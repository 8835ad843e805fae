"""Pieces of graphs that hosts share."""

from typing import Any

import keras
from keras import layers

from keras_sspcab.hosts.fast_layers import BatchNormalization, Conv2D
from keras_sspcab.layers import block_layer

#: Hosts are built for this format, whatever the global setting of Keras.
LAST: dict[str, Any] = {"data_format": "channels_last"}

#: How convolutions of stride 2 align with their input: as PyTorch's with a
#: padding of 1, or as Keras' with "same", which are PyTorch's of a mirrored
#: image.
ALIGNMENTS = ("pytorch", "keras")


def sspcab_block(
    x: Any, place: str, options: dict[str, Any] | None, **defaults: Any
) -> Any:
    """Applies a block named `sspcab_PLACE`, as `block_layer` makes it.

    Args:
        x: Symbolic feature map.
        place: The place, as in the argument `sspcab` of the host.
        options: The argument `sspcab_options` of the host.
        **defaults: Arguments that hold unless `options` says otherwise.

    Returns:
        A symbolic feature map of the same shape.

    Example:
    >>> sspcab_block(keras.Input((8, 8, 4)), "late", {"loss_weight": 1}).shape
    (None, 8, 8, 4)
    """
    named = {"name": f"sspcab_{place}", **LAST}
    return block_layer(options, **{**named, **defaults})(x)


def padded_conv(
    x: Any, channels: int, name: str, kernel_size: int = 3, **arguments: Any
) -> Any:
    """Applies a convolution padded to the size of its input."""
    named = {"padding": "same", "name": name, **LAST, **arguments}
    return Conv2D(channels, kernel_size, **named)(x)


def normalized_relu(x: Any, name: str, **arguments: Any) -> Any:
    """Applies PyTorch's batch normalization, and a ReLU."""
    x = BatchNormalization(
        momentum=0.9, epsilon=1e-5, name=f"{name}_norm", **arguments
    )(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def pytorch_initializer() -> keras.initializers.Initializer:
    """Returns PyTorch's: uniform within one over the root of the inputs."""
    # One for each layer: an instance gives the same numbers again.
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def halving_conv(
    x: Any, channels: int, name: str, alignment: str, **arguments: Any
) -> Any:
    """Applies a 3x3 convolution of stride 2."""
    if alignment == "pytorch":
        x = layers.ZeroPadding2D(1, name=f"{name}_padding", **LAST)(x)
        arguments["padding"] = "valid"
    return padded_conv(x, channels, name, **{"strides": 2, **arguments})


def doubling_conv(x: Any, channels: int, name: str, alignment: str) -> Any:
    """Applies a transposed convolution as PyTorch initializes it."""
    as_pytorch = alignment == "pytorch"
    x = layers.Conv2DTranspose(
        channels,
        3,
        strides=2,
        padding="valid" if as_pytorch else "same",
        kernel_initializer=pytorch_initializer(),
        name=name,
        **LAST,
    )(x)
    if as_pytorch:
        # What is left of the padding of 1, and of the output padding.
        crop = layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop", **LAST)
        x = crop(x)
    return x


def stacked_frames(clip: Any, count: int) -> Any:
    """Returns the first frames of a clip in [-1, 1], joined as channels.

    Args:
        clip: Symbolic `(batch, frames, height, width, channels)` in [0, 1].
        count: How many frames.

    Example:
    >>> stacked_frames(keras.Input((5, 32, 32, 3)), 4).shape
    (None, 32, 32, 12)
    """
    frames = [clip[:, index] for index in range(count)]
    x = layers.Rescaling(2.0, -1.0, dtype="float32", name="signed")
    if count == 1:
        return x(frames[0])
    return x(layers.Concatenate(name="frames")(frames))


def output_frame(x: Any, channels: int, **arguments: Any) -> Any:
    """Applies the last convolution and a tanh; returns a frame in [0, 1].

    Args:
        x: Symbolic feature map.
        channels: Channels of the frame.
        **arguments: For the convolution.

    Example:
    >>> output_frame(keras.Input((32, 32, 8)), 3).shape
    (None, 32, 32, 3)
    """
    x = padded_conv(x, channels, "output_conv", **arguments)
    # float32 under mixed precision too: the score is a small difference.
    x = layers.Activation("tanh", dtype="float32", name="output_tanh")(x)
    return layers.Rescaling(0.5, 0.5, dtype="float32", name="prediction")(x)


def signed(frame: Any) -> Any:
    """Brings values from [0, 1] to [-1, 1]."""
    return 2.0 * frame - 1.0
