"""Puts the block into models that exist already."""

import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_sspcab.layers import SSPCABLayer
from keras_sspcab.layers.base import set_all_weights

_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def replace_penultimate_conv(
    model: keras.Model,
    layer_name: str | None = None,
    block: Callable[..., keras.layers.Layer] = SSPCABLayer,
    **block_args: Any,
) -> keras.Model:
    """Clones a functional model with one convolution replaced by the block.

    The paper places one block instead of the host's penultimate convolution.
    Only a convolution that keeps the size and the number of channels can be
    replaced. By default that is the last but one spatial convolution (those
    of 1x1 do not count); where it does not qualify, the nearest one before it
    that does, with a warning. All other layers keep their weights; the given
    model is not changed.

    The block brings its own ReLU: an activation inside the replaced convolution
    goes with it. Layers behind it, such as batch normalization, stay. Its input
    should not be negative, that is, come from a ReLU.

    Args:
        model: Any functional or Sequential model, those of
            `keras.applications` included. Models nested in it are not searched.
        layer_name: Name of the convolution to replace. None takes the
            penultimate one.
        block: The class of the block, such as `SSMCTBLayer`, or a function
            that makes one from its arguments. Convolutions of volumes need a
            block that takes these. Defaults to `SSPCABLayer`.
        **block_args: Arguments of the block, such as `loss_weight`. They always
            include `data_format` and `dtype`, by default those of the replaced
            convolution; the name of an `SSPCABLayer` defaults to `"sspcab"`.

    Returns:
        A new functional (or Sequential) model with the same name, not compiled.

    Raises:
        TypeError: If the model is neither functional nor Sequential.
        ValueError: If it is not built, if the named layer does not exist or
            does not qualify, or if no layer does. The message names the
            candidates.

    Source: SSPCAB paper, section 4.3 and supplementary 6.1.

    Example:
    >>> network = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
    ...     keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
    ...     keras.layers.Conv2D(3, 3, padding="same"),
    ... ])
    >>> detector = replace_penultimate_conv(network, loss_weight=0.1)
    >>> [layer.name for layer in detector.layers if "sspcab" in layer.name]
    ['sspcab']
    """
    is_sequential = isinstance(model, keras.Sequential)
    # `operations` is the graph of a functional model.
    if not is_sequential and not hasattr(model, "operations"):
        raise TypeError(
            "`replace_penultimate_conv` needs a functional or Sequential "
            "model, whose layers are known as a graph. "
            f"Received: {type(model).__name__}. In a subclassed model, put "
            "a block in place of the convolution yourself."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built. Give it a keras.Input, or "
            "call `build` first."
        )
    convolutions = [
        layer for layer in model.layers if isinstance(layer, _CONVOLUTIONS)
    ]
    if layer_name is None:
        replaced = _penultimate(model, convolutions)
    else:
        replaced = _by_name(model, convolutions, layer_name)
    if block is SSPCABLayer:
        block_args.setdefault("name", "sspcab")
    inserted = block(
        **{
            "data_format": replaced.data_format,
            "dtype": replaced.dtype_policy,
            **block_args,
        }
    )

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer is replaced:
            return inserted
        return layer.__class__.from_config(layer.get_config())

    # Without new inputs, those of a clone would lose their names.
    inputs = None
    if not is_sequential:
        names = {
            id(layer.output): layer.name
            for layer in model.layers
            if isinstance(layer, keras.layers.InputLayer)
        }
        inputs = keras.tree.map_structure(
            lambda tensor: keras.Input(
                batch_shape=tensor.shape,
                dtype=tensor.dtype,
                name=names[id(tensor)],
            ),
            model.input,
        )
    result = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=clone
    )
    for old, new in zip(model.layers, result.layers, strict=True):
        if new is not inserted:
            set_all_weights(new, old.get_weights())
    return result


def _penultimate(
    model: keras.Model, convolutions: list[keras.layers.Layer]
) -> keras.layers.Layer:
    spatial = [conv for conv in convolutions if max(conv.kernel_size) > 1]
    for conv in reversed(spatial[:-1]):
        if _obstacle(conv) is None:
            if conv is not spatial[-2]:
                warnings.warn(
                    f"The penultimate convolution {spatial[-2].name!r} "
                    f"{_obstacle(spatial[-2])}; {conv.name!r}, the nearest "
                    "one before it that qualifies, was replaced.",
                    stacklevel=3,
                )
            return conv
    raise ValueError(
        f"No convolution of the model {model.name!r} before its last can be "
        "replaced by the block. " + _candidates(spatial, reasons=True)
    )


def _by_name(
    model: keras.Model, convolutions: list[keras.layers.Layer], name: str
) -> keras.layers.Layer:
    layer = {layer.name: layer for layer in model.layers}.get(name)
    if layer is None:
        problem = f"The model {model.name!r} has no layer {name!r}"
    elif layer not in convolutions:
        kind = type(layer).__name__
        problem = f"The layer {name!r} is a {kind}, not a convolution"
    elif obstacle := _obstacle(layer):
        problem = f"The layer {name!r} cannot be replaced: it {obstacle}"
    else:
        return layer
    raise ValueError(f"{problem}. {_candidates(convolutions)}")


def _obstacle(conv: keras.layers.Layer) -> str | None:
    """Says why a convolution cannot be replaced, or None if it can."""
    axis = -1 if conv.data_format == "channels_last" else 1
    inputs, outputs = conv.input.shape[axis], conv.output.shape[axis]
    if inputs != outputs:
        return f"has {inputs} input and {outputs} output channels"
    if max(conv.strides) > 1:
        return f"has strides {tuple(conv.strides)}"
    if max(conv.kernel_size) > 1 and conv.padding != "same":
        return f"has padding {conv.padding!r} and changes the size"
    return None


def _candidates(
    convolutions: list[keras.layers.Layer], reasons: bool = False
) -> str:
    if not convolutions:
        return "It has no convolution at all."
    obstacles = {conv.name: _obstacle(conv) for conv in convolutions}
    fitting = [name for name, obstacle in obstacles.items() if not obstacle]
    others = [f"{name} {text}" for name, text in obstacles.items() if text]
    parts = []
    if others and (reasons or not fitting):
        parts.append("; ".join(others) + ".")
    if fitting:
        parts.append(f"Layers that qualify by name: {fitting}")
    return " ".join(parts)
