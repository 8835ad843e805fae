"""Trunks of CutPaste: from images to the feature maps that are pooled."""

import os
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_sspcab.applications.resnet import resnet18
from keras_sspcab.applications.resnet_weights import load_imagenet_weights
from keras_sspcab.backbones import load_backbone
from keras_sspcab.layers import SSPCABLayer

#: Strides of the feature maps of a pretrained network that are pooled.
TAPS = (8, 16, 32)

# Statistics of ImageNet, which files with its weights expect.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The paper trains the head at 0.03 and pretrained layers at 1e-4.
_BACKBONE_RATE = 1e-4 / 0.03


def resnet_trunk(
    channels: int,
    base_width: int,
    places: tuple[str, ...],
    weights: str | os.PathLike | None,
    sspcab_options: dict[str, Any] | None,
    regularizer: Any,
) -> keras.Model:
    """Builds a ResNet-18 that is trained from scratch, or from a file.

    Args:
        channels: Channels of the images, 1 or 3.
        base_width: As for `resnet18`.
        places: As for `resnet18`.
        weights: A file, as for `load_imagenet_weights`, or None.
        sspcab_options: As for `resnet18`.
        regularizer: As `kernel_regularizer` of `resnet18`.

    Returns:
        A model from images of any size to the last feature map.
    """
    # Any size: patches have another.
    image = keras.Input((None, None, channels))
    mean, std = np.array(_MEAN), np.array(_STD)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    x = layers.Rescaling(
        (1 / std).tolist(), (-mean / std).tolist(), name="standardization"
    )(image)
    x = resnet18(x, base_width, places, sspcab_options, regularizer)
    trunk = keras.Model(image, x, name="trunk")
    if weights is not None:
        load_imagenet_weights(trunk, os.fspath(weights))
    return trunk


def pretrained_trunk(
    channels: int,
    backbone: str,
    places: tuple[str, ...],
    weights: str | os.PathLike | None,
    frozen: bool,
    sspcab_options: dict[str, Any] | None,
    regularizer: Any,
) -> keras.Model:
    """Builds a trunk from a pretrained network.

    Its normalization keeps its statistics. A pretrained network cannot be cut
    open, so the block is an additional convolution behind it, in a branch of
    its own as in a residual block: whatever the block gives, what was
    pretrained stays.

    Args:
        channels: Channels of the images, 1 or 3.
        backbone: As `name` of `load_backbone`.
        places: Holds `"penultimate"`, or is empty.
        weights: As for `load_backbone`.
        frozen: Whether the network keeps its weights; else it is trained at a
            300th of the rate.
        sspcab_options: Arguments of the `SSPCABLayer`. Features have signs, so
            its activation is None unless given.
        regularizer: Regularizer of the kernels of the block.

    Returns:
        A model from images of any size to a list of the maps at `TAPS`.
    """
    network = load_backbone(backbone, TAPS, weights, channels)
    if not frozen:
        network.trainable = True
        for layer in network._flatten_layers(include_self=False):
            if isinstance(layer, layers.BatchNormalization):
                layer.trainable = False
        network.get_layer("preprocessing").trainable = False
    image = keras.Input((None, None, channels))
    maps = network(image)
    if not frozen:
        maps = [_slowed(x) for x in maps]
    if places:
        block = {
            "name": "sspcab_penultimate",
            "activation": None,
            "kernel_regularizer": regularizer,
            "data_format": "channels_last",
            **(sspcab_options or {}),
        }
        added = layers.Add(name="sspcab_add")
        maps[-1] = added([maps[-1], SSPCABLayer(**block)(maps[-1])])
    return keras.Model(image, maps, name="trunk")


def _slowed(x: Any) -> Any:
    """Lets the layers before learn at the rate of pretrained ones.

    For SGD, a gradient times a factor is a rate times that factor.
    """
    fixed = ops.stop_gradient(x)
    # The difference is 0 to the bit.
    return fixed + _BACKBONE_RATE * (x - fixed)
