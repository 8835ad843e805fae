"""The kinds of block that a host can hold, by name."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_sspcab.checks import standardize_choice
from keras_sspcab.layers.sspcab import SSPCABLayer

_BLOCKS: dict[str, type[keras.layers.Layer]] = {"sspcab": SSPCABLayer}

BLOCK_TYPES = tuple(_BLOCKS)


def block_layer(
    options: Mapping[str, Any] | None = None, **defaults: Any
) -> keras.layers.Layer:
    """Returns a new block, of the type that the options name.

    Args:
        options: `"type"`, which is `"sspcab"` unless it is given, and the
            arguments of that layer. They are plain values in a file of
            settings: the argument `sspcab_options` of a host.
        **defaults: Arguments that hold unless `options` says otherwise.

    Raises:
        ValueError: If there is no such type, or it has no such argument.

    Example:
    >>> block_layer({"loss_weight": 0.5}, name="block")
    <SSPCABLayer name=block, built=False>
    """
    arguments = {"type": "sspcab", **defaults, **(options or {})}
    kind = standardize_choice(arguments.pop("type"), BLOCK_TYPES, "type")
    return _BLOCKS[kind](**arguments)
