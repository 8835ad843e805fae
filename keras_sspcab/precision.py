"""Precision of computations that half precision is too coarse for."""

from typing import Any

import keras
from keras import ops


def at_least_float32(x: Any) -> Any:
    """Returns a tensor in float32, or in float64 if that is what it has.

    Example:
    >>> at_least_float32(np.ones(2, "float16")).dtype.name
    'float32'
    >>> at_least_float32(np.ones(2, "float64")).dtype.name
    'float64'
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, keras.backend.result_type(dtype, "float32"))
