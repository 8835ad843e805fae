"""The kinds of block that a host can hold, by name."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_sspcab.checks import standardize_choice
from keras_sspcab.layers.ssmctb import SSMCTBLayer
from keras_sspcab.layers.sspcab import SSPCABLayer

_BLOCKS = {"sspcab": SSPCABLayer, "ssmctb": SSMCTBLayer}

BLOCK_TYPES = tuple(_BLOCKS)


def block_layer(
    options: Mapping[str, Any] | None = None, **defaults: Any
) -> keras.layers.Layer:
    """Returns a new block, of the type that the options name.

    Args:
        options: `"type"`, which is `"sspcab"` or `"ssmctb"` and the former
            unless it is given, and arguments of that layer, `SSPCABLayer` or
            `SSMCTBLayer`. Hosts take these as `sspcab_options`.
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
