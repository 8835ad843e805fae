"""The networks of the background-agnostic framework."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_sspcab.layers import SSPCABLayer

_LAST: dict[str, Any] = {"data_format": "channels_last"}

#: Blocks of a decoder, in order; each may get the encoder's map of its size.
SKIPS = ("d1", "d2", "d3")


def encoder(shape: Sequence[int], width: int, name: str) -> keras.Model:
    """Three convolutions, each followed by pooling.

    Args:
        shape: `(height, width, channels)` of the input, multiples of 8.
        width: Channels of the first two convolutions; the last has half.
        name: Name of the network, before that of the part.

    Returns:
        A model from crops to a list: the latent features, and the maps before
        each pooling, the smallest first.
    """
    inputs = keras.Input(shape, name=f"{name}_crop")
    x, maps = inputs, []
    for index, channels in enumerate((width, width, width // 2), 1):
        x = _conv(x, channels, f"{name}_encoder_conv{index}")
        maps.append(x)
        x = _pool(x, f"{name}_encoder_pool{index}")
    return keras.Model(inputs, [x, *maps[::-1]], name=f"{name}_encoder")


def decoder(
    encoder: keras.Model,
    channels: int,
    skips: Sequence[str],
    output: str,
    activation: str,
    block: dict[str, Any] | None,
) -> keras.Model:
    """Three up-samplings with a convolution each, and one of the output.

    Args:
        encoder: What gives the features to decode.
        channels: Channels of the output.
        skips: Which blocks get the encoder's map added behind their ReLU.
        output: What comes out, for names.
        activation: Activation of the output.
        block: Arguments of the `SSPCABLayer` in place of the third convolution,
            or None for the convolution.

    Returns:
        A model from the list that the encoder gives to float32 maps.
    """
    name = encoder.name.removesuffix("_encoder")
    inputs = [
        keras.Input(tensor.shape[1:], name=f"{name}_{output}_{part}")
        for tensor, part in zip(
            encoder.outputs, ("latent", *SKIPS), strict=True
        )
    ]
    x, *maps = inputs
    prefix = f"{name}_{output}_decoder"
    # As many as the encoder's map of this size has, so that it can be added.
    for part, skipped in zip(SKIPS, maps, strict=True):
        index = part[1:]
        x = layers.UpSampling2D(name=f"{prefix}_up{index}", **_LAST)(x)
        if part == "d3" and block is not None:
            arguments = {"name": f"{prefix}_sspcab", **_LAST, **block}
            x = SSPCABLayer(**arguments)(x)
        else:
            x = _conv(x, skipped.shape[-1], f"{prefix}_conv{index}")
        if part in skips:
            x = layers.Add(name=f"{prefix}_skip{index}")([x, skipped])
    x = _conv(x, channels, f"{prefix}_conv4", None)
    # float32 under mixed precision too: the score is a small difference.
    x = layers.Activation(activation, dtype="float32", name=f"{prefix}_out")(x)
    return keras.Model(inputs, x, name=prefix)


def classifier(encoder: keras.Model, width: int, units: int) -> keras.Model:
    """Tells the errors of normal crops from those of abnormal ones.

    Args:
        encoder: The encoder of the network that is judged.
        width: Channels of the first two convolutions; the others have half.
        units: Units of the hidden dense layer.

    Returns:
        A model from a list, the absolute difference of crop and reconstruction
        and the latent features, to two float32 logits, the second for normal.
    """
    name = encoder.name.removesuffix("_encoder")
    prefix = f"{name}_classifier"
    difference = keras.Input(encoder.input_shape[1:], name=f"{prefix}_error")
    latent = keras.Input(encoder.outputs[0].shape[1:], name=f"{prefix}_latent")
    x = difference
    half = width // 2
    for index, channels in enumerate((width, width, half, half, half), 1):
        x = _conv(x, channels, f"{prefix}_conv{index}")
        x = _pool(x, f"{prefix}_pool{index}")
        if index == 3:
            x = layers.Add(name=f"{prefix}_add")([x, latent])
    x = layers.Flatten(name=f"{prefix}_flatten", **_LAST)(x)
    x = layers.Dense(units, activation="relu", name=f"{prefix}_dense")(x)
    logits = layers.Dense(2, dtype="float32", name=f"{prefix}_logits")(x)
    return keras.Model([difference, latent], logits, name=prefix)


def _conv(
    x: Any, channels: int, name: str, activation: str | None = "relu"
) -> Any:
    return layers.Conv2D(
        channels, 3, padding="same", activation=activation, name=name, **_LAST
    )(x)


def _pool(x: Any, name: str) -> Any:
    return layers.MaxPooling2D(name=name, **_LAST)(x)
