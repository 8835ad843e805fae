"""Optical flow that gradients pass through, for losses on motion."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_int,
    standardize_number,
    standardize_odd,
)
from keras_sspcab.layers.base import at_least_float32

#: Takes two frames `(batch, height, width, channels)` in [0, 1], gives the
#: flow from the first to the second, `(batch, rows, columns, 2)`.
FlowEstimator = Callable[[Any, Any], Any]


def lucas_kanade(
    first: Any,
    second: Any,
    levels: int = 3,
    iterations: int = 3,
    window: int = 7,
    regularization: float = 1e-3,
) -> Any:
    """Estimates how far each pixel has moved from one frame to the next.

    The method of Lucas and Kanade, from coarse to fine: the motion `u` of a
    window minimizes the squared error of the linearized brightness constancy,
    `sum (first - second(x + u) - grad first . du)^2`, plus `regularization`
    times `|du|^2`, which leaves at rest what has no texture. Each step is a
    2 x 2 system in closed form, followed by a mean over 3 x 3 pixels of the
    motion: nothing is learned, and gradients flow into both frames.

    References:
    - Lucas and Kanade, "An iterative image registration technique with an
      application to stereo vision", IJCAI 1981
    - Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker",
      2000, for the pyramid

    Args:
        first: Tensor `(batch, height, width, channels)` in [0, 1]; the mean of
            the channels counts. Height and width are multiples of
            `2 ** (levels - 1)`.
        second: Tensor of the same shape.
        levels: Resolutions, each half of the one before. Defaults to 3, for
            motion of up to some ten pixels.
        iterations: Steps at each resolution. Defaults to 3.
        window: Odd integer, side of the window in pixels. Defaults to 7.
        regularization: Positive number, in squared units of brightness a pixel.

    Returns:
        Tensor `(batch, height, width, 2)`, at least float32: motion to the
        right and down, in pixels.

    Raises:
        ValueError: If an argument is out of its range, or the frames have
            another size.

    Example:
    >>> frame = np.tile(np.sin(np.arange(32) / 3), (1, 32, 1))[..., None]
    >>> moved = np.roll(frame, 1, axis=2)  # One pixel to the right.
    >>> flow = lucas_kanade(frame, moved)
    >>> round(float(ops.median(flow[0, 8:24, 8:24, 0])))
    1
    """
    levels = standardize_int(levels, "levels", 1)
    iterations = standardize_int(iterations, "iterations", 1)
    standardize_odd(window, "window")
    standardize_number(regularization, "regularization", excluded=0)
    multiple = 2 ** (levels - 1)
    if any(side is not None and side % multiple for side in first.shape[1:3]):
        raise ValueError(
            f"Height and width of frames must be multiples of {multiple}. "
            f"Received: frames of shape {tuple(first.shape)}, levels={levels}. "
            "Crop the frames, or take fewer levels"
        )

    def window_mean(x: Any) -> Any:
        return _pool(x, window, strides=1)

    pyramid = [(_gray(first), _gray(second))]
    for _ in range(levels - 1):
        pyramid.append(
            tuple(_pool(frame, 2, strides=2) for frame in pyramid[-1])
        )
    flow = None
    for source, target in reversed(pyramid):
        slope_x, slope_y = _slope(source, 2), _slope(source, 1)
        xx = window_mean(slope_x * slope_x) + regularization
        yy = window_mean(slope_y * slope_y) + regularization
        xy = window_mean(slope_x * slope_y)
        determinant = xx * yy - xy * xy
        if flow is None:
            flow = ops.concatenate([0.0 * source, 0.0 * source], axis=-1)
        else:
            flow = 2.0 * ops.repeat(ops.repeat(flow, 2, axis=1), 2, axis=2)
        for _ in range(iterations):
            error = source - _warp(target, flow)
            x, y = window_mean(slope_x * error), window_mean(slope_y * error)
            step = ops.concatenate([yy * x - xy * y, xx * y - xy * x], axis=-1)
            # A mean over neighbors damps what noise adds at each step.
            flow = _pool(flow + step / determinant, 3, strides=1)
    return flow


def resolve_flow(identifier: Any) -> FlowEstimator | None:
    """Returns the function that estimates optical flow.

    Args:
        identifier: `"lucas_kanade"`, `"none"` or None, the path of a `.keras`
            file (read when first used), a Keras model, or another callable of
            two frames. A model takes the frames as two inputs, or one behind
            the other in the channels; it is not trained.

    Raises:
        ValueError: If `identifier` is none of these.

    Example:
    >>> resolve_flow("lucas_kanade") is lucas_kanade
    True
    """
    if identifier is None or identifier == "none":
        return None
    if identifier == "lucas_kanade":
        return lucas_kanade
    if identifier == "custom":
        return _missing
    if isinstance(identifier, str) and identifier.endswith(".keras"):
        return _of_file(identifier)
    if isinstance(identifier, keras.Model):
        return _of_model(identifier)
    if callable(identifier):
        return identifier
    raise ValueError(
        "`flow_estimator` must be 'lucas_kanade', 'none', the path of a "
        ".keras file, or a function of two frames. Received: "
        f"flow_estimator={identifier!r}"
    )


def _missing(first: Any, second: Any) -> Any:
    raise ValueError(
        "This model was trained with a flow estimator of your own, which its "
        "file does not hold. Give it to `set_flow_estimator` before you train "
        "on or evaluate losses"
    )


def _of_file(path: str) -> FlowEstimator:
    @functools.cache
    def load() -> FlowEstimator:
        try:
            return _of_model(keras.models.load_model(path, compile=False))
        # Whatever a damaged file leads to, in Keras, HDF5, ZIP or JSON.
        except Exception as error:
            raise ValueError(
                f"The flow estimator {path} cannot be loaded: {error}"
            ) from error

    return lambda first, second: load()(first, second)


def _of_model(model: keras.Model) -> FlowEstimator:
    is_sequential = isinstance(model, keras.Sequential)
    if not is_sequential and not hasattr(model, "operations"):
        raise ValueError(
            "A flow estimator must be a functional or Sequential model, whose "
            f"inputs are known. Received: {type(model).__name__}. Give a "
            "function of two frames instead"
        )

    def estimate(first: Any, second: Any) -> Any:
        frames: Any = [first, second]
        if len(model.inputs) == 1:
            frames = ops.concatenate(frames, axis=-1)
        return model(frames, training=False)

    return estimate


def _gray(frames: Any) -> Any:
    return ops.mean(at_least_float32(frames), axis=-1, keepdims=True)


def _pool(x: Any, size: int, strides: int) -> Any:
    return ops.average_pool(
        x, size, strides, padding="same", data_format="channels_last"
    )


def _slope(x: Any, axis: int) -> Any:
    """Half the difference of both neighbors; the border is repeated."""
    padding = [(0, 0)] * 4
    padding[axis] = (1, 1)
    padded = ops.pad(x, padding, mode="symmetric")
    if axis == 1:
        return (padded[:, 2:] - padded[:, :-2]) / 2.0
    return (padded[:, :, 2:] - padded[:, :, :-2]) / 2.0


def _warp(image: Any, flow: Any) -> Any:
    """Reads `image` at the places that `flow` leads to, between pixels too."""
    batch, height, width, _ = ops.shape(image)
    rows = ops.cast(ops.arange(height), flow.dtype)[None, :, None]
    columns = ops.cast(ops.arange(width), flow.dtype)[None, None, :]

    def neighbors(place: Any, side: Any) -> tuple[Any, Any]:
        last = ops.cast(side - 1, flow.dtype)
        place = ops.clip(place, 0.0, last)
        # One before the last at most, so that the next one exists.
        before = ops.minimum(ops.floor(place), ops.maximum(last - 1.0, 0.0))
        before = ops.stop_gradient(before)
        return ops.cast(before, "int32"), place - before

    x, right = neighbors(columns + flow[..., 0], width)
    y, below = neighbors(rows + flow[..., 1], height)
    flat = ops.reshape(image, (batch, height * width))

    def read(y: Any, x: Any) -> Any:
        y = ops.minimum(y, height - 1)
        x = ops.minimum(x, width - 1)
        places = ops.reshape(y * width + x, (batch, height * width))
        values = ops.take_along_axis(flat, places, axis=1)
        return ops.reshape(values, (batch, height, width))

    above = read(y, x) * (1.0 - right) + read(y, x + 1) * right
    under = read(y + 1, x) * (1.0 - right) + read(y + 1, x + 1) * right
    return ops.expand_dims(above * (1.0 - below) + under * below, -1)
