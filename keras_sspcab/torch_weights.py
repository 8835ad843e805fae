"""Loads weights of PyTorch: into the block, and into whole networks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import keras
import numpy as np

from keras_sspcab.layers import (
    AttentionMemory,
    ChannelTransformer,
    WeightNormConv2D,
)
from keras_sspcab.layers.predictive_block import PredictiveBlock

Values = list[tuple[Any, np.ndarray]]
Block = TypeVar("Block", bound=PredictiveBlock)

# What the convolutions of a block are called, in the order of its corners (top
# left, top right, bottom left, bottom right), by their number of spatial axes;
# and both layers of the channel attention.
_CONV_NAMES: dict[str, dict[int, tuple[str, ...]]] = {
    "the authors": {
        2: ("conv1", "conv3", "conv2", "conv4"),
        3: (
            *("conv1_1", "conv1", "conv3_3", "conv3"),
            *("conv2_2", "conv2", "conv4_4", "conv4"),
        ),
    },
    "anomalib": {2: tuple(f"masked_conv{index}" for index in range(1, 5))},
}
_ATTENTION_NAMES = {
    "the authors": ("se.fc1", "se.fc2"),
    "anomalib": ("attention_module.fc1", "attention_module.fc2"),
}
# The transformer of a block, of maps and of volumes.
_TRANSFORMER_NAMES = {2: "transformer", 3: "transformer_sspcab"}

# Of layers that have arrays in PyTorch: the variable in Keras, the name there,
# and the order of the axes there; an empty one is a vector in any shape.
_VECTOR: tuple[int, ...] = ()
_BIAS = ("bias", "bias", _VECTOR)
_ARRAYS: dict[type, tuple[tuple[str, str, tuple[int, ...]], ...]] = {
    keras.layers.BatchNormalization: (
        ("gamma", "weight", _VECTOR),
        ("beta", "bias", _VECTOR),
        ("moving_mean", "running_mean", _VECTOR),
        ("moving_variance", "running_var", _VECTOR),
    ),
    keras.layers.Conv2D: (("kernel", "weight", (2, 3, 1, 0)), _BIAS),
    keras.layers.Conv2DTranspose: (("kernel", "weight", (2, 3, 1, 0)), _BIAS),
    keras.layers.DepthwiseConv2D: (("kernel", "weight", (2, 3, 0, 1)), _BIAS),
    keras.layers.Dense: (("kernel", "weight", (1, 0)), _BIAS),
    WeightNormConv2D: (
        ("kernel", "conv.weight_v", (2, 3, 1, 0)),
        ("length", "conv.weight_g", _VECTOR),
        ("bias", "conv.bias", _VECTOR),
        ("gamma", "gamma", _VECTOR),
        ("beta", "beta", _VECTOR),
    ),
}


def from_torch_state_dict(
    layer: Block, state_dict: Mapping[str, Any], prefix: str = ""
) -> Block:
    """Copies the weights of a PyTorch block into a layer.

    The layer must have the same channels, `kernel_size` and, for the attention,
    the same bottleneck; then both give the same outputs, to 1e-5. Dilation is
    not part of the weights: set `dilation_rate` as in training. Blocks of
    anomalib have no ReLU: set `activation=None`.

    Args:
        layer: A `SSPCABLayer`, built or not, with `attention="channel"` or
            `"channel_spatial"` if the attention is to be loaded, or None to
            leave it out; or a `SSMCTBLayer` with `attention="authors"` or
            None.
        state_dict: Arrays by name: `conv1.weight` `(c, c, k', k')` and
            `conv1.bias` `(c,)` to `conv4`, `se.fc1.weight` `(c // r, c)`,
            `se.fc2.weight` `(c, c // r)` and their biases; or the same as
            anomalib calls them, `masked_conv1` and `attention_module.fc1`. Of
            the transformer block, `transformer.pos_embedding` and so on
            instead of the attention; for volumes there are eight convolutions
            `conv1`, `conv1_1` to `conv4_4`, and the transformer is called
            `transformer_sspcab`. NumPy arrays or anything that
            `numpy.asarray` accepts; other names are left alone.
        prefix: What stands before these names, such as `"decoder.block."`.

    Returns:
        The same layer.

    Raises:
        ValueError: If a name is missing, a shape does not fit, or the weights
            have biases for which the layer has no place. The layer is left as
            it was.

    Source: the key names and the order of the corners are those of the authors'
    public code (see the SSPCAB paper's repository) and of anomalib's.

    Example:
    >>> shapes = {"se.fc1": (1, 8), "se.fc2": (8, 1)}
    >>> shapes |= {f"conv{i}": (8, 8, 1, 1) for i in range(1, 5)}
    >>> state = {f"{n}.weight": np.ones(shape) for n, shape in shapes.items()}
    >>> state |= {f"{n}.bias": np.zeros(s[0]) for n, s in shapes.items()}
    >>> layer = from_torch_state_dict(SSPCABLayer(), state)
    >>> tuple(layer.masked_conv.kernel.shape)
    (2, 2, 8, 8)
    """
    for variable, value in _block_values(layer, state_dict, prefix)[0]:
        variable.assign(value)
    return layer


def find_block(
    state_dict: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any] | None:
    """Returns the options of `block_layer` for a block in a state dict.

    None where there is no block behind the prefix.
    """
    for source, convs in _CONV_NAMES.items():
        weight = state_dict.get(f"{prefix}{convs[2][0]}.weight")
        if weight is None or (rank := np.ndim(weight) - 2) not in convs:
            continue
        options: dict[str, Any] = {"kernel_size": np.shape(weight)[-1]}
        transformer = f"{prefix}{_TRANSFORMER_NAMES[rank]}"
        position = state_dict.get(f"{transformer}.pos_embedding")
        if position is not None:
            token_dim = np.shape(position)[-1]
            width = len(_fetch(state_dict, f"{transformer}.mha.to_qkv.weight"))
            pooled = _fetch(state_dict, f"{transformer}.projection.weight")
            return {
                **options,
                "type": "ssmctb",
                "attention": "authors",
                "token_dim": token_dim,
                "num_heads": width // (3 * token_dim),
                "pool_size": round(pooled.shape[-1] ** (1 / rank)),
            }
        name = f"{prefix}{_ATTENTION_NAMES[source][0]}.weight"
        squeeze = state_dict.get(name)
        if squeeze is None:
            options["attention"] = None
        else:
            hidden, channels = np.shape(squeeze)
            options["reduction_ratio"] = channels // hidden
        if source == "anomalib":
            options["activation"] = None
        return options
    return None


def _block_values(
    layer: PredictiveBlock, state_dict: Mapping[str, Any], prefix: str
) -> tuple[Values, set[str]]:
    """Returns new values of a block's variables, and where they are from."""
    source = "the authors"
    if f"{prefix}masked_conv1.weight" in state_dict:
        source = "anomalib"
    convs = _CONV_NAMES[source]
    first = _fetch(state_dict, f"{prefix}{convs[2][0]}.weight")
    rank = first.ndim - 2
    if rank not in convs or layer.rank not in (0, rank):
        fitting = [r for r in convs if layer.rank in (0, r)] or list(convs)
        raise ValueError(
            f"{prefix}{convs[2][0]}.weight must have "
            f"{' or '.join(str(r + 2) for r in fitting)} dimensions (output "
            "and input channels, then the axes of space). "
            f"Received: shape={first.shape}"
        )
    channels = first.shape[1]
    if not layer.built:
        shape: list[int | None] = [None] * (rank + 2)
        shape[-1 if layer.data_format == "channels_last" else 1] = channels
        layer.build(tuple(shape))

    kernel = np.empty(layer.masked_conv.kernel.shape, "float32")
    biases = np.zeros((2**rank, channels), "float32")
    size = layer.kernel_size
    used: set[str] = set()

    def fetch(name: str, shape: tuple[int, ...]) -> np.ndarray:
        used.add(prefix + name)
        return _fetch(state_dict, prefix + name, shape)

    sizes = *kernel.shape[:-3:-1], *(size for _ in range(rank))
    space = tuple(range(2, rank + 2))
    for index, corner in enumerate(layer.masked_conv.corners):
        weight = fetch(f"{convs[rank][index]}.weight", sizes)
        sides = tuple(slice(s * size, (s + 1) * size) for s in corner)
        kernel[sides] = weight.transpose(*space, 1, 0)
        biases[index] = fetch(f"{convs[rank][index]}.bias", (channels,))
    values: Values = [(layer.masked_conv.kernel, kernel)]
    values += _bias_values(layer.masked_conv.bias, biases, prefix + "conv")

    gate = layer.channel_attention
    names: Iterable[tuple[Any, str]] = ()
    if isinstance(gate, ChannelTransformer):
        if gate.variant != "authors":
            raise ValueError(
                "The authors' transformer is not the one of their paper. "
                'Create the layer with attention="authors". '
                f"Received: attention={layer.attention!r}"
            )
        name = _TRANSFORMER_NAMES[rank]
        position = fetch(f"{name}.pos_embedding", (1, *gate.position.shape))
        values.append((gate.position, position[0]))
        (attention,) = gate.blocks
        names = (
            (gate.projection, f"{name}.projection"),
            (attention.qkv, f"{name}.mha.to_qkv"),
            (attention.output_projection, f"{name}.mha.to_out.0"),
        )
    elif gate is not None:
        parts = gate.squeeze, gate.excite
        names = zip(parts, _ATTENTION_NAMES[source], strict=True)
    for dense, name in names:
        inputs, units = dense.kernel.shape
        values.append(
            (dense.kernel, fetch(f"{name}.weight", (units, inputs)).T)
        )
        if dense.use_bias or f"{prefix}{name}.bias" in state_dict:
            bias = fetch(f"{name}.bias", (units,))
            values += _bias_values(dense.bias, bias, prefix + name)
    return values, used


def assign_torch_arrays(
    layers: Iterable[keras.layers.Layer],
    arrays: Mapping[str, np.ndarray],
    torch_name: Callable[[str], str | None],
    ignored: tuple[str, ...],
    source: str,
) -> None:
    """Sets the weights of a network from the arrays of one in PyTorch.

    Layers that PyTorch has no arrays for are left alone, and so are blocks that
    the arrays do not hold. If an array is missing, has another shape than its
    variable, or has none, a ValueError lists them and nothing is changed.

    Args:
        layers: The layers of the network, built; of models in it, their layers
            count.
        arrays: Arrays by name, as in a state dict of PyTorch.
        torch_name: Gives the name of a layer there from its name in Keras, or
            None for a layer that is left alone.
        ignored: What the names of arrays begin with that have no layer.
        source: How messages begin: what does not fit.
    """
    values: Values = []
    used: set[str] = set()
    missing: list[str] = []
    for layer in _flat(layers):
        prefix = torch_name(layer.name)
        if prefix is None:
            continue
        if isinstance(layer, PredictiveBlock):
            if find_block(arrays, f"{prefix}."):
                new, names = _block_values(layer, arrays, f"{prefix}.")
                values += new
                used |= names
            continue
        for name, variable, convert in _torch_variables(layer, prefix):
            if name not in arrays:
                missing.append(name)
                continue
            used.add(name)
            value = convert(np.asarray(arrays[name], "float32"))
            if value.shape != tuple(variable.shape):
                raise ValueError(
                    f"{source}: the array {name!r} does not fit. The model has "
                    f"the shape {tuple(variable.shape)}. Received: "
                    f"{value.shape}"
                )
            values.append((variable, value))
    unknown = sorted(
        name
        for name in set(arrays) - used
        if not name.startswith(ignored)
        and not name.endswith("num_batches_tracked")
    )
    if missing:
        raise ValueError(
            f"{source}: it has no array {_enumerate(missing)}"
            + (f"; it holds {_enumerate(unknown)}" if unknown else "")
        )
    if unknown:
        raise ValueError(
            f"{source}: it holds arrays that the model has not: "
            f"{_enumerate(unknown)}"
        )
    for variable, value in values:
        variable.assign(value)


def _flat(
    layers: Iterable[keras.layers.Layer],
) -> Iterator[keras.layers.Layer]:
    for layer in layers:
        if isinstance(layer, keras.Model):
            yield from _flat(layer.layers)
        else:
            yield layer


def _torch_variables(
    layer: keras.layers.Layer, name: str
) -> Iterator[tuple[str, Any, Callable[[np.ndarray], np.ndarray]]]:
    """Yields names in PyTorch, variables, and how values become theirs."""
    if isinstance(layer, AttentionMemory):
        # There, maps are flattened with the channels first.
        height, width, channels = layer.input.shape[1:]

        def reorder(slots: np.ndarray) -> np.ndarray:
            if slots.shape != tuple(layer.slots.shape):
                return slots
            maps = slots.reshape(-1, channels, height, width)
            return maps.transpose(0, 2, 3, 1).reshape(slots.shape)

        yield f"{name}.memMatrix", layer.slots, reorder
    kinds = (kind for kind in type(layer).__mro__ if kind in _ARRAYS)
    for attribute, leaf, axes in _ARRAYS.get(next(kinds, object), ()):
        variable = getattr(layer, attribute)
        if variable is None:
            continue

        def convert(
            value: np.ndarray, axes: tuple[int, ...] = axes
        ) -> np.ndarray:
            if axes == _VECTOR:
                return value.reshape(-1)
            return value.transpose(axes) if value.ndim == len(axes) else value

        yield f"{name}.{leaf}", variable, convert


def _enumerate(names: list[str]) -> str:
    text = ", ".join(map(repr, names[:5]))
    return text if len(names) <= 5 else f"{text} and {len(names) - 5} more"


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
        # NumPy has no such type.
        if "bfloat16" in str(value.dtype):
            value = value.float()
    value = np.asarray(value, dtype="float32")
    if shape is not None and value.shape != shape:
        raise ValueError(
            f"{name} does not fit the layer: expected the shape {shape}. "
            f"Received: shape={value.shape}. Channels, `kernel_size` and "
            "the sizes of the attention must be those of training."
        )
    return value


def _bias_values(variable: Any, value: np.ndarray, name: str) -> Values:
    if variable is not None:
        return [(variable, value)]
    if np.any(value):
        raise ValueError(
            f"The biases of {name} are not zero, but the layer has none. "
            "Create it with use_bias=True."
        )
    return []
