"""The memory auto-encoder of HF2-VAD, which rebuilds optical flow."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.arguments import check_input_shape
from keras_sspcab.hosts.graph import (
    doubling_conv,
    halving_conv,
    normalized_relu,
    padded_conv,
    sspcab_block,
)
from keras_sspcab.layers import AttentionMemory


def memory_autoencoder(
    input_shape: Sequence[int] = (32, 32, 2),
    root_width: int = 32,
    num_slots: int = 2000,
    shrink_threshold: float | None = None,
    sspcab_options: dict[str, Any] | None = None,
    alignment: str = "pytorch",
    name: str = "memory_autoencoder",
) -> keras.Model:
    """Rebuilds crops of optical flow from memories at three scales.

    A U-Net of four scales without the skip connection of the largest. At each
    of the three smaller scales the decoder goes on with what a memory of whole
    maps answers, so that it rebuilds flow like that it was trained on. A block
    replaces the last convolution but the output's where it has options.

    Takes crops with sides that are multiples of 8, in pixels, to a dict of
    float32 tensors: `reconstruction`, and `entropy` `(batch,)`, that of the
    weights of reading, in nats, summed over the memories.

    Reference:
    - [Liu et al., ICCV 2021](https://arxiv.org/abs/2108.06852), ML-MemAE-SC,
      and its code, which the initializers follow too: convolutions Kaiming
      normal with `a = 0.1`, transposed ones PyTorch's uniform default, scales
      of normalizations normal with mean 1 and deviation 0.02.

    Deviation: biases start at zero.
    """
    height, width, channels = check_input_shape(
        input_shape, 8, needs_size="the memories hold whole maps"
    )
    root_width = standardize_int(root_width, "root_width", 1)
    inputs = keras.Input((height, width, channels), name="flow")

    # === Encoder ===
    x, maps = _convolutions(inputs, root_width, "encoder0"), []
    for scale in range(1, 4):
        maps.append(x)
        channels_here = root_width * 2**scale
        part = f"encoder{scale}"
        x = halving_conv(
            x,
            channels_here,
            f"{part}_down",
            alignment,
            kernel_initializer=_kaiming(),
        )
        x = _convolutions(x, channels_here, part)

    # === Decoder ===
    entropies = []
    for scale in range(3, 0, -1):
        memory = AttentionMemory(
            num_slots, shrink_threshold, name=f"memory{scale}"
        )(x)
        entropies.append(memory["entropy"])
        channels_here = root_width * 2 ** (scale - 1)
        part = f"decoder{scale}"
        x = doubling_conv(
            memory["features"], channels_here, f"{part}_up", alignment
        )
        if scale > 1:
            skipped = maps[scale - 1]
            x = layers.Concatenate(name=f"{part}_skip")([skipped, x])
            x = _convolutions(x, channels_here, part)
    x = _activate(_conv(x, root_width, "decoder1_conv1"), "decoder1_conv1")
    if sspcab_options is None:
        x = _conv(x, root_width, "decoder1_conv2")
    else:
        x = sspcab_block(x, "penultimate", sspcab_options)
    x = _activate(x, "decoder1_conv2")

    # float32 under mixed precision too: the score is a small difference.
    reconstruction = _conv(
        x, channels, "reconstruction", kernel_size=1, dtype="float32"
    )
    entropy = layers.Add(dtype="float32", name="entropy")(entropies)
    return keras.Model(
        inputs,
        {"reconstruction": reconstruction, "entropy": entropy},
        name=name,
    )


def _convolutions(x: Any, channels: int, name: str) -> Any:
    for index in (1, 2):
        conv = f"{name}_conv{index}"
        x = _activate(_conv(x, channels, conv), conv)
    return x


def _kaiming() -> keras.initializers.Initializer:
    # For a leaky ReLU of slope 0.1, as the reference has it.
    return keras.initializers.VarianceScaling(
        2 / (1 + 0.1**2), "fan_in", "untruncated_normal"
    )


def _conv(x: Any, channels: int, name: str, **arguments: Any) -> Any:
    return padded_conv(
        x, channels, name, kernel_initializer=_kaiming(), **arguments
    )


def _activate(x: Any, name: str) -> Any:
    gamma = keras.initializers.RandomNormal(1.0, 0.02)
    return normalized_relu(x, name, gamma_initializer=gamma)
