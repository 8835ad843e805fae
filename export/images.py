"""Takes the images that a check or a quantization is given."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_sspcab.export.inference import Inference

# Pixels of all images that are used, at most.
_MAX_PIXELS = 2**25

#: How many representative images are used, at most.
MAX_REPRESENTATIVE_IMAGES = 100


def collect_images(
    inference: Inference, images: Any, limit: int, argument: str = "images"
) -> dict[str, np.ndarray]:
    """Returns the first images, at least one, by name of the model's input.

    Of large ones there are fewer than the limit.

    They are given as an array, a dict of arrays by input name, or an iterable
    of such batches, of which tuples count by their first part.
    """
    parts: dict[str, list[np.ndarray]] = {n: [] for n in inference.input_names}
    count = 0
    for batch in _batches(images, argument):
        arrays = _standardize(inference, batch, argument)
        pixels = max(math.prod(a.shape[1:-1]) for a in arrays.values())
        limit = min(limit, max(1, _MAX_PIXELS // pixels))
        for name, array in arrays.items():
            if parts[name] and parts[name][0].shape[1:] != array.shape[1:]:
                raise ValueError(
                    f"`{argument}` must all have one size, also where the "
                    "model takes any. Received: shapes "
                    f"{parts[name][0].shape} and {array.shape}"
                )
            parts[name].append(array[: limit - count])
        count += len(parts[name][-1])
        if count >= limit:
            break
    if count == 0:
        raise ValueError(
            f"`{argument}` holds no image. Pass real images, as the model "
            "will see them in use."
        )
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def collect_representative(
    inference: Inference, data: Any, batch_size: int = 1
) -> dict[str, np.ndarray]:
    """Returns the images on which integers measure their ranges."""
    if data is None:
        raise ValueError(
            'precision="int8" needs `representative_data`: real normal images '
            "(a hundred, say) on which the ranges of activations are measured."
        )
    inputs = collect_images(
        inference, data, MAX_REPRESENTATIVE_IMAGES, "representative_data"
    )
    count = len(next(iter(inputs.values())))
    if count < batch_size:
        raise ValueError(
            "`representative_data` must fill one batch at least. Received: "
            f"{count} images, batch_size={batch_size}"
        )
    return inputs


def _batches(images: Any, argument: str) -> Iterable[Any]:
    if not hasattr(images, "__iter__") or isinstance(images, (str, bytes)):
        raise ValueError(
            f"`{argument}` must be an array, a dict of arrays or batches of "
            f"them. Received: {images!r}"
        )
    if hasattr(images, "shape") or isinstance(images, Mapping):
        return [images]
    return (
        batch[0] if isinstance(batch, (tuple, list)) else batch
        for batch in images
    )


def _standardize(
    inference: Inference, batch: Any, argument: str
) -> dict[str, np.ndarray]:
    if not isinstance(batch, Mapping):
        batch = {inference.input_names[0]: batch}
    if set(batch) != set(inference.input_names):
        raise ValueError(
            f"`{argument}` must hold the inputs of {inference.model.name}: "
            f"{list(inference.input_names)}. Received: {list(batch)}"
        )
    arrays = {}
    for spec in inference.specs:
        array = np.asarray(batch[spec.name])
        if not spec.shape.is_compatible_with(array.shape):
            raise ValueError(
                f"{inference.model.name} takes {spec.name} of shape "
                f"{tuple(spec.shape)}. Received in `{argument}`: shape "
                f"{array.shape}"
            )
        if spec.dtype.is_floating:
            _check_values(array, inference.value_range(spec.name), argument)
        arrays[spec.name] = array.astype(spec.dtype.as_numpy_dtype)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"The inputs in `{argument}` differ in number. Received: {counts}"
        )
    return arrays


def _check_values(
    array: np.ndarray, limits: tuple[float, float] | None, argument: str
) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"`{argument}` must be float. Received: dtype={array.dtype}. "
            "Divide 8-bit images by 255."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"`{argument}` holds values that are not finite.")
    if limits is None or not array.size:
        return
    low, high = limits
    if array.min() < low or array.max() > high:
        raise ValueError(
            f"`{argument}` must lie in [{low:g}, {high:g}], as in training. "
            f"Received: values from {array.min():g} to {array.max():g}"
        )
