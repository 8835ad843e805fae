"""ImageNet weights of a ResNet-18 from a file of the user."""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

# Names in torchvision's files, by those of Keras.
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def load_imagenet_weights(trunk: keras.Model, path: str) -> None:
    """Sets the weights of a trunk built by `resnet18`.

    A convolution that a block has replaced is left out, and blocks keep their
    random weights. For grey images the kernels of the three colours are summed.

    Args:
        trunk: The trunk, of the full width.
        path: A file with the names and shapes of torchvision's `resnet18`:
            `.npz`, `.safetensors` (needs the package safetensors), or `.pth` or
            `.pt` (needs torch, which loads weights only); or `.weights.h5`,
            saved by `trunk.save_weights`.

    Raises:
        ValueError: If the file is missing, of another kind, or its arrays do
            not fit; the message names them.
        ImportError: If a package is missing.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"There is no file with weights at {path!r}")
    if path.endswith(".weights.h5"):
        try:
            trunk.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path} does not hold the weights of this trunk: {error}"
            ) from error
        return
    arrays = read_arrays(path)
    fitting: list[tuple[Any, np.ndarray]] = []
    used: set[str] = set()
    for layer in trunk.layers:
        for name, variable in _variables(layer).items():
            if name not in arrays:
                raise ValueError(
                    f"{path} has no array {name!r}. It must hold those of "
                    "torchvision's resnet18"
                )
            used.add(name)
            value = np.asarray(arrays[name], "float32")
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            if name == "conv1.weight" and variable.shape[2] == 1:
                value = value.sum(axis=2, keepdims=True)
            if value.shape != tuple(variable.shape):
                raise ValueError(
                    f"The array {name!r} of {path} does not fit: the model has "
                    f"{tuple(variable.shape)}. Received: {value.shape}. "
                    "Weights of ImageNet need base_width=64"
                )
            fitting.append((variable, value))
    ignored = ("fc.", "layer4.1.conv1.")
    unknown = sorted(
        name
        for name in set(arrays) - used
        if not name.startswith(ignored)
        and not name.endswith("num_batches_tracked")
    )
    if unknown:
        raise ValueError(
            f"{path} holds arrays that a ResNet-18 has not: "
            f"{', '.join(unknown[:5])}"
        )
    # All of it or nothing.
    for variable, value in fitting:
        variable.assign(value)


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.npz`, `.safetensors`, `.pth` or `.pt` file."""
    for endings, read in _READERS.items():
        if path.endswith(endings):
            try:
                return read(path)
            except ImportError as error:
                raise ImportError(
                    f"{path} needs the package {error.name}. Install it, or "
                    "save the arrays as .npz"
                ) from error
            except Exception as error:
                raise ValueError(f"{path} cannot be read: {error}") from error
    raise ValueError(
        "Weights must be a file that ends in .npz, .safetensors, .pth, .pt or "
        f".weights.h5. Received: {path!r}"
    )


def _read_npz(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def _read_torch(path: str) -> dict[str, np.ndarray]:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.numpy() for name, value in state.items()}


_READERS: dict[Any, Callable[[str], dict[str, np.ndarray]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    (".pth", ".pt"): _read_torch,
}


def _variables(layer: Any) -> dict[str, Any]:
    """The variables of a layer by their names in torchvision's files."""
    name = layer.name.replace("_", ".")
    if isinstance(layer, keras.layers.Conv2D):
        return {f"{name}.weight": layer.kernel}
    if isinstance(layer, keras.layers.BatchNormalization):
        return {
            f"{name}.{theirs}": getattr(layer, ours)
            for theirs, ours in _NORM.items()
        }
    return {}
