"""Reconstruction losses of the block, by the names the papers use."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

LossFunction = Callable[[Any, Any], Any]


def mean_squared_error(target: Any, prediction: Any) -> Any:
    """Mean over all elements of the squared error; a scalar."""
    return _mean_squared_error(target, prediction)


@ops.custom_gradient
def _mean_squared_error(target: Any, prediction: Any) -> tuple[Any, Any]:
    # Derived automatically, the gradient passes over the maps thrice more,
    # which is a tenth of the block's training step.
    error = prediction - target

    def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any]:
        if upstream is None:
            (upstream,) = arguments
        size = ops.cast(ops.prod(ops.shape(error)), error.dtype)
        slope = error * (2.0 * upstream / size)
        return -slope, slope

    return ops.mean(ops.square(error)), gradient


def mean_absolute_error(target: Any, prediction: Any) -> Any:
    """Mean over all elements of the absolute error; a scalar."""
    return ops.mean(ops.absolute(prediction - target))


def huber(target: Any, prediction: Any) -> Any:
    """Mean over all elements of the Huber loss with threshold 1; a scalar.

    Half the squared error below an absolute error of 1, and the absolute error
    less one half above (SSMCTB paper, section 3).
    """
    error = ops.absolute(prediction - target)
    return ops.mean(
        ops.where(error < 1.0, 0.5 * ops.square(error), error - 0.5)
    )


_BY_NAME: dict[str, LossFunction] = {
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "huber": huber,
}


def resolve(identifier: Any) -> LossFunction | None:
    """Returns the function that computes a block's loss as a scalar.

    Args:
        identifier: `"mse"`, `"mae"`, `"huber"`, a `keras.losses.Loss`, the
            config of one, or None.

    Returns:
        A function of target and prediction, or None.

    Raises:
        ValueError: If `identifier` is none of these.
    """
    if identifier is None:
        return None
    if isinstance(identifier, str) and identifier.lower() in _BY_NAME:
        return _BY_NAME[identifier.lower()]
    if isinstance(identifier, dict):
        identifier = keras.losses.deserialize(identifier)
    if isinstance(identifier, keras.losses.Loss):
        loss = identifier
        # A loss with reduction=None gives one value a sample.
        return lambda target, prediction: ops.mean(loss(target, prediction))
    raise ValueError(
        f"The `loss` argument must be one of {list(_BY_NAME)}, a "
        f"keras.losses.Loss, or None. Received: loss={identifier!r}"
    )


def serialize(identifier: Any) -> Any:
    """Returns what `resolve` needs to build the same loss again."""
    if isinstance(identifier, keras.losses.Loss):
        return keras.losses.serialize(identifier)
    return identifier
