"""Loads weights of PyTorch: into the block, and into whole networks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_sspcab.layers import SSPCABLayer

# The authors number their convolutions top left, bottom left, top right, bottom
# right; ours are ordered by row, then column.
_TORCH_CONV_OF_CORNER: dict[tuple[int, ...], str] = {
    (0, 0): "conv1",
    (0, 1): "conv3",
    (1, 0): "conv2",
    (1, 1): "conv4",
}

# PyTorch's names of the arrays of batch normalization, by those of Keras.
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def from_torch_state_dict(
    layer: SSPCABLayer, state_dict: Mapping[str, Any], prefix: str = ""
) -> SSPCABLayer:
    """Copies the weights of the authors' PyTorch block into a layer.

    The layer must have the same channels, `kernel_size` and, for the attention,
    the same bottleneck; then both give the same outputs, to 1e-5. Dilation is
    not part of the weights: set `dilation_rate` as in training.

    Args:
        layer: A `SSPCABLayer`, built or not, with `attention="channel"` or
            `"channel_spatial"` if the attention is to be loaded, or None to
            leave it out.
        state_dict: Arrays by name: `conv1.weight` `(c, c, k', k')` and
            `conv1.bias` `(c,)` to `conv4`, `se.fc1.weight` `(c // r, c)`,
            `se.fc2.weight` `(c, c // r)` and their biases. NumPy arrays or
            anything that `numpy.asarray` accepts; other names are left alone.
        prefix: What stands before these names, such as `"decoder.block."`.

    Returns:
        The same layer.

    Raises:
        ValueError: If a name is missing, a shape does not fit, or the weights
            have biases for which the layer has no place. The layer is left as
            it was.

    Source: the key names and the order of the corners are those of the authors'
    public code (see the SSPCAB paper's repository).

    Example:
    >>> shapes = {"se.fc1": (1, 8), "se.fc2": (8, 1)}
    >>> shapes |= {f"conv{i}": (8, 8, 1, 1) for i in range(1, 5)}
    >>> state = {f"{n}.weight": np.ones(shape) for n, shape in shapes.items()}
    >>> state |= {f"{n}.bias": np.zeros(s[0]) for n, s in shapes.items()}
    >>> layer = from_torch_state_dict(SSPCABLayer(), state)
    >>> tuple(layer.masked_conv.kernel.shape)
    (2, 2, 8, 8)
    """
    kernel_size = layer.kernel_size
    first = _fetch(state_dict, prefix + "conv1.weight")
    if first.ndim != 4:
        raise ValueError(
            f"{prefix}conv1.weight must have 4 dimensions (output and input "
            f"channels, height, width). Received: shape={first.shape}"
        )
    channels = first.shape[1]
    if not layer.built:
        shape: list[int | None] = [None] * 4
        shape[-1 if layer.data_format == "channels_last" else 1] = channels
        layer.build(tuple(shape))

    kernel = np.empty(layer.masked_conv.kernel.shape, "float32")
    biases = np.zeros((4, channels), "float32")
    size = kernel.shape[-1], kernel.shape[-2], kernel_size, kernel_size
    for index, corner in enumerate(layer.masked_conv.corners):
        name = prefix + _TORCH_CONV_OF_CORNER[corner]
        weight = _fetch(state_dict, name + ".weight", size)
        rows, columns = (
            slice(side * kernel_size, (side + 1) * kernel_size)
            for side in corner
        )
        kernel[rows, columns] = weight.transpose(2, 3, 1, 0)
        biases[index] = _fetch(state_dict, name + ".bias", (channels,))

    new_values = [(layer.masked_conv.kernel, kernel)]
    new_values += _bias_values(layer.masked_conv.bias, biases, prefix + "conv")
    if layer.channel_attention is not None:
        for dense, name in (
            (layer.channel_attention.squeeze, "se.fc1"),
            (layer.channel_attention.excite, "se.fc2"),
        ):
            inputs, units = dense.kernel.shape
            name = prefix + name
            weight = _fetch(state_dict, f"{name}.weight", (units, inputs))
            bias = _fetch(state_dict, f"{name}.bias", (units,))
            new_values.append((dense.kernel, weight.T))
            new_values += _bias_values(
                dense.bias if dense.use_bias else None, bias, name
            )
    for variable, value in new_values:
        variable.assign(value)
    return layer


def assign_torch_arrays(
    layers: Iterable[keras.layers.Layer],
    arrays: Mapping[str, np.ndarray],
    torch_name: Callable[[str], str],
    ignored: tuple[str, ...],
    source: str,
) -> None:
    """Sets the convolutions and batch normalizations of a network.

    Convolutions have no biases and the data format `"channels_last"`. Other
    layers are left alone. If an array is missing, has another shape than its
    variable, or has none, a ValueError is raised and nothing is changed.

    Args:
        layers: The layers of the network, built.
        arrays: Arrays by name, as in a state dict of PyTorch.
        torch_name: Gives the name of a layer there from its name in Keras.
        ignored: What the names of arrays begin with that have no layer.
        source: How messages begin: what does not fit.
    """
    values: dict[str, tuple[Any, np.ndarray]] = {}
    for name, variable, axes in _torch_variables(layers, torch_name):
        if name not in arrays:
            raise ValueError(f"{source}: it has no array {name!r}")
        value = np.asarray(arrays[name], "float32")
        if value.ndim == len(axes):
            value = value.transpose(axes)
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"{source}: the array {name!r} does not fit. The model has "
                f"the shape {tuple(variable.shape)}. Received: {value.shape}"
            )
        values[name] = variable, value
    unknown = sorted(
        name
        for name in set(arrays) - set(values)
        if not name.startswith(ignored)
        and not name.endswith("num_batches_tracked")
    )
    if unknown:
        raise ValueError(
            f"{source}: it holds arrays that the model has not: "
            f"{', '.join(unknown[:5])}"
        )
    for variable, value in values.values():
        variable.assign(value)


def _torch_variables(
    layers: Iterable[keras.layers.Layer], torch_name: Callable[[str], str]
) -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Yields names in PyTorch, variables, and the order of their axes there."""
    for layer in layers:
        name = torch_name(layer.name)
        if isinstance(layer, keras.layers.BatchNormalization):
            for ours, theirs in _NORM.items():
                yield f"{name}.{theirs}", getattr(layer, ours), (0,)
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            yield f"{name}.weight", layer.kernel, (2, 3, 0, 1)
        elif isinstance(layer, keras.layers.Conv2D):
            yield f"{name}.weight", layer.kernel, (2, 3, 1, 0)


def _fetch(
    state_dict: Mapping[str, Any],
    name: str,
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    if name not in state_dict:
        raise ValueError(
            f"The state dict has no entry {name!r}. "
            f"Received the names: {sorted(state_dict)[:20]}. "
            "Is `prefix` right?"
        )
    value = state_dict[name]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    value = np.asarray(value, dtype="float32")
    if shape is not None and value.shape != shape:
        raise ValueError(
            f"{name} does not fit the layer: expected the shape {shape}. "
            f"Received: shape={value.shape}. Channels, `kernel_size` and "
            "`reduction_ratio` must be those of training."
        )
    return value


def _bias_values(
    variable: Any, value: np.ndarray, name: str
) -> list[tuple[Any, np.ndarray]]:
    if variable is not None:
        return [(variable, value)]
    if np.any(value):
        raise ValueError(
            f"The biases of {name} are not zero, but the layer has none. "
            "Create it with use_bias=True."
        )
    return []
