"""The networks of `keras.applications`."""

import contextlib
import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_sspcab.layers.base import set_all_weights

# Keras scales colors by it before the stem of its EfficientNets, but only in a
# network made with `weights="imagenet"`.
_EFFICIENTNET_SCALE = np.array([0.229, 0.224, 0.225]) ** -0.5


@functools.cache
def networks() -> dict[str, str]:
    """Returns the names of all networks, in snake case, with those in Keras.

    NASNet is left out, as it does not take images of any size.
    """
    return {
        _snake_case(name): name
        for name, item in inspect.getmembers(keras.applications, callable)
        if "include_top" in inspect.signature(item).parameters
        and not name.startswith("NASNet")
    }


def load_network(name: str, weights: str | None) -> keras.Model:
    """Builds one of `networks()` without its top, for images of any size.

    The graph does not depend on the weights (`"imagenet"`, the path of a file,
    or None), so that those of a saved model fit one built without. The weights
    in a `.h5` file of an EfficientNet must descend from those of ImageNet.
    """
    build = functools.partial(
        getattr(keras.applications, networks()[name]),
        include_top=False,
        input_shape=(None, None, 3),
    )
    with _channels_last():
        network = build(weights=None)
        is_scaled = False
        if weights == "imagenet":
            is_scaled = _copy_weights(_download(name, build), network)
        elif weights is not None:
            is_scaled = _load_file(name, weights, network)
    if is_scaled and name.startswith("efficientnet_b"):
        stem = network.get_layer("stem_conv")
        (kernel,) = stem.get_weights()
        stem.set_weights([kernel * _EFFICIENTNET_SCALE[:, None]])
    return network


def preprocessing_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns what takes colors in [0, 1] to the input of a network.

    That is `colors @ matrix + offset`.
    """
    network = getattr(keras.applications, networks()[name])
    module = getattr(keras.applications, network.__module__.split(".")[-1])
    # Affine, so that the images of black and of the three colors tell all.
    colors = np.concatenate([np.zeros((1, 3)), np.eye(3)]).astype("float32")
    inputs = module.preprocess_input(
        255 * colors.reshape((4, 1, 1, 3)), data_format="channels_last"
    )
    inputs = np.asarray(inputs).reshape((4, 3))
    return inputs[1:] - inputs[0], inputs[0]


def _download(name: str, build: Callable[..., keras.Model]) -> keras.Model:
    try:
        with warnings.catch_warnings():
            # MobileNet says which size its weights are for.
            warnings.filterwarnings("ignore", "`input_shape` is undefined")
            return build(weights="imagenet")
    # Keras raises no particular one.
    except Exception as error:
        raise OSError(
            f"The ImageNet weights of {name} cannot be downloaded: {error}. "
            "Give the path of a file with them as `weights`, or take "
            "'efficientnet_lite0', which needs no network"
        ) from error


def _load_file(name: str, path: str, network: keras.Model) -> bool:
    """Loads weights, and says whether they may be for scaled colors."""
    if not path.endswith((".h5", ".keras")):
        raise ValueError(
            f"Weights of {name} must be a file that ends in .weights.h5, .h5 "
            f"or .keras. Received: {path!r}"
        )
    initial = network.get_weights()
    try:
        if path.endswith(".keras"):
            source = keras.saving.load_model(path, compile=False)
            return _copy_weights(source, network)
        with warnings.catch_warnings():
            # For what a file does not hold, Keras only warns.
            warnings.simplefilter("ignore", UserWarning)
            network.load_weights(path)
        for before, after in zip(initial, network.get_weights(), strict=True):
            if np.ptp(before) and np.array_equal(before, after):
                raise ValueError("it has no values for some of the layers")
        return True
    # Whatever a damaged file leads to, in Keras or HDF5.
    except Exception as error:
        raise ValueError(
            f"{path} does not hold the weights of {name} without its top: "
            f"{error}"
        ) from error


def _copy_weights(source: keras.Model, network: keras.Model) -> bool:
    set_all_weights(network, source.get_weights())
    return _rescalings(source) > _rescalings(network)


def _rescalings(model: keras.Model) -> int:
    return sum(
        isinstance(layer, keras.layers.Rescaling) for layer in model.layers
    )


@contextlib.contextmanager
def _channels_last() -> Iterator[None]:
    """Keras' networks ask the global setting only."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def _snake_case(name: str) -> str:
    """Turns `EfficientNetV2B0` into `efficientnet_v2_b0`."""
    name = re.sub("ConvNeXt|NASNet|VGG|Net", lambda word: word[0].lower(), name)
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
