"""Checks of constructor arguments that several layers share."""

import numbers
from collections.abc import Sequence
from typing import Any

import keras


def standardize_int(value: Any, name: str, minimum: int) -> int:
    """Returns `value` as an int, or raises a ValueError that names it."""
    is_integer = isinstance(value, numbers.Integral)
    if isinstance(value, bool) or not is_integer or value < minimum:
        raise ValueError(
            f"The `{name}` argument must be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def standardize_choice(value: Any, choices: Sequence[str], name: str) -> str:
    """Returns `value` in lower case if it is one of `choices`."""
    lowered = value.lower() if isinstance(value, str) else value
    if lowered not in choices:
        raise ValueError(
            f"The `{name}` argument must be one of {list(choices)}. "
            f"Received: {name}={value!r}"
        )
    return lowered


def standardize_data_format(value: str | None) -> str:
    """Resolves None to the global setting and checks the rest."""
    if value is None:
        return keras.config.image_data_format()
    return standardize_choice(
        value, ("channels_last", "channels_first"), "data_format"
    )
