"""Reconstruction losses of the block, by the names the papers use."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

LossFunction = Callable[[Any, Any], Any]


@ops.custom_gradient
def _mean_squared_error(target: Any, prediction: Any) -> tuple[Any, Any]:
    # Derived automatically, the gradient passes over the maps three more times,
    # which is a tenth of the block's training step.
    error = prediction - target

    def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any]:
        if upstream is None:
            (upstream,) = arguments
        size = ops.cast(ops.prod(ops.shape(error)), error.dtype)
        slope = error * (2.0 * upstream / size)
        return -slope, slope

    return ops.mean(ops.square(error)), gradient


def _mean_absolute_error(target: Any, prediction: Any) -> Any:
    return ops.mean(ops.absolute(prediction - target))


def _huber(target: Any, prediction: Any) -> Any:
    """Half the squared error up to 1, less one half of the error beyond."""
    error = ops.absolute(prediction - target)
    return ops.mean(
        ops.where(error < 1.0, 0.5 * ops.square(error), error - 0.5)
    )


_BY_NAME: dict[str, LossFunction] = {
    "mse": _mean_squared_error,
    "mae": _mean_absolute_error,
    "huber": _huber,  # SSMCTB paper, section 3.
}


def resolve_loss(identifier: Any) -> LossFunction | None:
    """Returns the function that computes a block's loss as a scalar.

    Args:
        identifier: `"mse"`, `"mae"`, `"huber"`, a `keras.losses.Loss`, the
            config of one, or None.

    Returns:
        A function of target and prediction, or None.

    Raises:
        ValueError: If `identifier` is none of these.

    Example:
    >>> float(resolve_loss("mae")(np.zeros(2), np.array([1.0, 3.0])))
    2.0
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


def serialize_loss(identifier: Any) -> Any:
    """Returns what `resolve_loss` needs to build the same loss again."""
    if isinstance(identifier, keras.losses.Loss):
        return keras.losses.serialize(identifier)
    return identifier
