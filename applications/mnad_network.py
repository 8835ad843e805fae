"""The convolutions of MNAD."""

from typing import Any

from keras import layers

from keras_sspcab.hosts.graph import (
    LAST,
    normalized_relu,
    padded_conv,
    pytorch_initializer,
    sspcab_block,
)


def _conv(x: Any, channels: int, name: str) -> Any:
    kernel = pytorch_initializer()
    return padded_conv(x, channels, name, kernel_initializer=kernel)


def _stage(x: Any, channels: int, name: str) -> Any:
    for index in (1, 2):
        conv = f"{name}_conv{index}"
        x = normalized_relu(_conv(x, channels, conv), conv)
    return x


def encoder(x: Any, width: int) -> tuple[Any, list[Any]]:
    """Features, neither normalized nor activated, and the maps to skip to."""
    skips = []
    for stage in range(1, 4):
        x = _stage(x, width * 2 ** (stage - 1), f"encoder{stage}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"encoder{stage}_pool", **LAST)(x)
    x = normalized_relu(_conv(x, 8 * width, "encoder4_conv1"), "encoder4_conv1")
    return _conv(x, 8 * width, "encoder4_conv2"), skips


def decoder(x: Any, width: int, skips: list[Any]) -> Any:
    """With skips, up-sampling halves the channels and they fill them up."""
    skips = list(skips)
    channels = 8 * width
    for stage in range(1, 4):
        x = _stage(x, channels, f"decoder{stage}")
        name = f"decoder{stage}_up"
        x = layers.Conv2DTranspose(
            channels // 2 if skips else channels,
            3,
            strides=2,
            padding="same",
            kernel_initializer=pytorch_initializer(),
            name=name,
            **LAST,
        )(x)
        x = normalized_relu(x, name)
        if skips:
            skip = layers.Concatenate(name=f"decoder{stage}_skip")
            x = skip([skips.pop(), x])
        channels //= 2
    return x


def generator(
    x: Any,
    width: int,
    places: tuple[str, ...],
    sspcab_options: dict[str, Any] | None,
) -> Any:
    """What is between the decoder and the output."""
    x = normalized_relu(_conv(x, width, "generator_conv1"), "generator_conv1")
    if "penultimate" in places:
        x = sspcab_block(x, "penultimate", sspcab_options)
    else:
        x = _conv(x, width, "generator_conv2")
    return normalized_relu(x, "generator_conv2")
