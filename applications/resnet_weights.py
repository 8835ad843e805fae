"""ImageNet weights of a ResNet-18 from a file of the user."""

import os

import keras

from keras_sspcab.torch_files import read_arrays
from keras_sspcab.torch_weights import assign_torch_arrays


def load_imagenet_weights(trunk: keras.Model, path: str) -> None:
    """Sets the weights of a trunk built by `resnet18`.

    A convolution that a block has replaced is left out, and blocks keep their
    random weights. For gray images the kernels of the three colors are summed.

    Args:
        trunk: The trunk, of the full width.
        path: A file with the names and shapes of torchvision's `resnet18`:
            `.npz`, `.pth` or `.pt`, or `.safetensors` (needs the package
            safetensors); or `.weights.h5`, saved by `trunk.save_weights`.

    Raises:
        ValueError: If the file is missing, of another kind, or its arrays do
            not fit; the message names them.
        ImportError: If a package is missing.
    """
    path = os.fspath(path)
    if path.endswith(".weights.h5") and os.path.isfile(path):
        try:
            trunk.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path} does not hold the weights of this trunk: {error}"
            ) from error
        return
    arrays = read_arrays(path)
    stem = "conv1.weight"
    if stem in arrays and trunk.input.shape[-1] == 1:
        arrays[stem] = arrays[stem].sum(axis=1, keepdims=True)
    assign_torch_arrays(
        trunk.layers,
        arrays,
        lambda name: name.replace("_", "."),
        ignored=("fc.", "layer4.1.conv1."),
        source=f"{path} does not hold a ResNet-18 with base_width=64",
    )
