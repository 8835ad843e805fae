"""Checks of arguments, for all parts of the package.

Each returns the value as the package needs it, or raises a ValueError that
names the argument and shows what was received.
"""

import difflib
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

#: What no image reaches, however it was changed, times the highest value that
#: is meant; those from 0 to 255 do.
FAR_TOO_HIGH = 16


def standardize_int(value: Any, name: str, minimum: int) -> int:
    """Returns `value` as an int of at least `minimum`."""
    is_integer = isinstance(value, numbers.Integral)
    if isinstance(value, bool) or not is_integer or value < minimum:
        raise ValueError(
            f"The `{name}` argument must be an integer of at least {minimum}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def standardize_odd(value: Any, name: str) -> int:
    """Returns `value` as an odd int of at least 1."""
    if standardize_int(value, name, 1) % 2 == 0:
        raise ValueError(
            f"The `{name}` argument must be odd. Received: {name}={value!r}"
        )
    return int(value)


def standardize_number(
    value: Any,
    name: str,
    low: float = 0.0,
    high: float = math.inf,
    excluded: float | None = None,
) -> float:
    """Returns `value` as a finite float from `low` to `high`.

    One of the limits can be `excluded`.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        not is_number
        or not low <= value <= high
        or math.isinf(value)
        or value == excluded
    ):
        limits = f"above {low:g}" if excluded == low else f"of at least {low:g}"
        if math.isinf(low):
            limits = "that is finite"
        if not math.isinf(high):
            end = "below" if excluded == high else "at most"
            limits = f"{limits} and {end} {high:g}"
        raise ValueError(
            f"The `{name}` argument must be a number {limits}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def standardize_range(value: Any, name: str) -> tuple[float, float]:
    """Returns a number, or a pair in order, from 0 to 1 as a pair."""
    try:
        low, high = value
    except (TypeError, ValueError):
        low, high = value, value
    low = standardize_number(low, name, 0.0, 1.0)
    high = standardize_number(high, name, 0.0, 1.0)
    if low > high:
        raise ValueError(
            f"The `{name}` argument must be a pair: lowest, then highest. "
            f"Received: {name}={value!r}"
        )
    return low, high


def standardize_choice(value: Any, choices: Sequence[str], name: str) -> str:
    """Returns `value` if it is one of `choices`; case counts."""
    if value not in choices:
        raise ValueError(
            f"The `{name}` argument must be one of {list(choices)}. "
            f"Received: {name}={value!r}{did_you_mean(value, choices, '.')}"
        )
    return value


def did_you_mean(
    word: Any, choices: Iterable[str], end: str = "", form: str = "{!r}"
) -> str:
    """Returns a sentence with the choice that a word is nearly; or nothing.

    `end` ends the sentence before.
    """
    names = [choice for choice in choices if isinstance(choice, str)]
    close = difflib.get_close_matches(str(word).lower(), names, 1)
    return f"{end} Did you mean {form.format(close[0])}?" if close else ""


def standardize_data_format(value: str | None) -> str:
    """Returns a data format; None is the global setting of Keras."""
    if value is None:
        import keras

        return keras.config.image_data_format()
    return standardize_choice(
        value, ("channels_last", "channels_first"), "data_format"
    )


def standardize_binary(values: Any, name: str) -> np.ndarray:
    """Returns an array of booleans or numbers, of which all are 0 or 1."""
    array = np.asarray(values)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"The `{name}` argument must hold booleans or the numbers 0 and "
            f"1. Received: {name} of dtype {array.dtype}"
        )
    is_one = array == 1
    others = array[~is_one & (array != 0)]
    if others.size:
        raise ValueError(
            f"The `{name}` argument must hold 0 (normal) and 1 (anomalous) "
            f"only. Received: {name} with the value {others.flat[0]}. For "
            f"a mask of 0 and 255, pass `mask > 127`."
        )
    return is_one


def standardize_scores(values: Any, name: str, dtype: str) -> np.ndarray:
    """Returns an array of finite numbers in the floating-point `dtype`."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"The `{name}` argument must hold numbers. "
            f"Received: {name} of dtype {array.dtype}"
        )
    with np.errstate(over="ignore"):
        array = array.astype(dtype, copy=False)
    num_bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if num_bad:
        raise ValueError(
            f"The `{name}` argument must be finite. Received: {name} with "
            f"{num_bad} of {array.size} values NaN or infinite. Has the "
            "training diverged?"
        )
    return array


def require_both_classes(
    num_normal: int, num_anomalous: int, what: str
) -> None:
    """Raises a ValueError unless there are normal and anomalous samples."""
    if num_normal == 0 or num_anomalous == 0:
        raise ValueError(
            f"This metric compares normal with anomalous {what} and needs at "
            f"least one of each. Received: {num_normal} normal and "
            f"{num_anomalous} anomalous {what}"
        )
