"""Checks of labels, masks and scores that all metrics share."""

from typing import Any

import numpy as np


def standardize_binary(values: Any, name: str) -> np.ndarray:
    """Returns `values` as booleans; only 0 and 1 are taken.

    Args:
        values: Array of booleans, integers or floats.
        name: The argument's name, for the error.

    Raises:
        ValueError: If a value is neither 0 nor 1.
    """
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
    """Returns `values` in `dtype`, or raises if one is not finite.

    Args:
        values: Array of numbers.
        name: The argument's name, for the error.
        dtype: The floating-point type that the metric counts in.

    Raises:
        ValueError: If `values` is not numeric, or holds NaN or infinity (also
            if a finite value does not fit `dtype`).
    """
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
