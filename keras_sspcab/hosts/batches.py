"""The data that hosts are given: arrays, dicts of arrays, and data sets."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.utils import PyDataset

from keras_sspcab.checks import FAR_TOO_HIGH


def is_endless(data: Any) -> bool:
    """Whether a TensorFlow or Keras dataset is known to be infinite."""
    if isinstance(data, PyDataset):
        return data.num_batches is None
    cardinality = getattr(data, "cardinality", None)
    # tf.data.INFINITE_CARDINALITY
    return callable(cardinality) and int(cardinality()) == -1


def count_batches(data: Any, batch_size: int) -> int | None:
    """Returns how many batches data have; None where it is not known.

    The batch size is that of a dict of arrays.
    """
    if isinstance(data, Mapping):
        return -(-len(next(iter(data.values()))) // batch_size)
    if isinstance(data, PyDataset):
        return data.num_batches
    if hasattr(data, "cardinality"):
        return max(int(data.cardinality()), 0) or None
    return None


def iterate_batches(
    data: Any, batch_size: int, are_dicts: bool
) -> Iterator[tuple[Any, Any]]:
    """Yields pairs of a batch and what came with it in a tuple, or None.

    The data are an array, a dict of arrays, or an iterable of batches or of
    tuples that begin with one; with `are_dicts`, batches must be dicts.
    """
    if is_endless(data):
        raise ValueError(
            "The data have no end. Received: "
            f"{type(data).__name__}, as of `repeat()`. Take a part of them"
        )
    if hasattr(data, "shape") or isinstance(data, Mapping):
        _check_batch(data, are_dicts)
        check_values(data)
        for start in range(0, len(keras.tree.flatten(data)[0]), batch_size):
            yield _rows(data, slice(start, start + batch_size)), None
        return
    for batch in data:
        inputs, *others = _parts(batch)
        _check_batch(inputs, are_dicts)
        inputs = keras.tree.map_structure(ops.convert_to_numpy, inputs)
        check_values(inputs)
        yield inputs, others[0] if others else None


def _check_batch(batch: Any, are_dicts: bool) -> None:
    is_dict = isinstance(batch, Mapping)
    if is_dict != are_dicts:
        expected = (
            "objects, as dicts of arrays"
            if are_dicts
            else "images or clips, as arrays"
        )
        received = f"a dict with the keys {sorted(batch)}" if is_dict else ""
        raise ValueError(
            f"The data must yield batches of {expected}, or tuples that begin "
            f"with one. Received: {received or type(batch).__name__}"
        )


def check_values(data: Any) -> None:
    """Raises a ValueError for values that are not finite or go up to 255."""
    for part in keras.tree.flatten(data):
        values = ops.convert_to_numpy(part)
        received = None
        if values.dtype.kind in "biu" and values.ndim > 2:
            received = str(values.dtype)
        if values.dtype.kind == "f":
            num_bad = values.size - int(np.isfinite(values).sum())
            if num_bad:
                raise ValueError(
                    "What is scored must be finite. Received: an input with "
                    f"{num_bad} of {values.size} values NaN or infinite"
                )
            # Of objects there are parts with other units.
            highest = values.max(initial=0)
            if highest > FAR_TOO_HIGH and not isinstance(data, Mapping):
                received = f"values up to {highest:g}"
        if received:
            raise ValueError(
                "Images must be numbers from 0 to 1, as float32. Received: "
                f"{received}. Divide 8-bit images by 255"
            )


def _rows(data: Any, rows: slice) -> Any:
    return keras.tree.map_structure(lambda array: array[rows], data)


def _parts(batch: Any) -> tuple[Any, ...]:
    """Returns inputs, and what came with them, as Keras takes them apart."""
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def hold_out(data: Any, options: dict[str, Any]) -> Any:
    """Splits off the last images for validation, as Keras does.

    Takes `validation_split` from `options`, and puts `validation_data` in.
    """
    share = options.get("validation_split") or 0.0
    if not share or options.get("validation_data") is not None:
        # Keras lets the data given go before the split.
        options.pop("validation_split", None)
        return data
    arrays = keras.tree.flatten(data)
    if not all(hasattr(array, "shape") for array in arrays):
        raise ValueError(
            "`validation_split` takes apart arrays. Received: "
            f"{type(data).__name__}. Pass `validation_data` instead"
        )
    del options["validation_split"]
    rows = len(arrays[0])
    first = math.floor(rows * (1.0 - share))
    if not 0 < first < rows:
        raise ValueError(
            f"validation_split={share} leaves no image on one of its sides. "
            f"Received: {rows} images"
        )
    options["validation_data"] = _rows(data, slice(first, None))
    return _rows(data, slice(first))


def scoring_data(data: Any, steps: int | None, is_trained_on: bool) -> Any:
    """Returns what `fit_scoring` can read to its end, after the training.

    That is the data, or the first `steps` batches of data without an end.
    """
    if is_trained_on and isinstance(data, Iterator):
        raise ValueError(
            "Images must be there to be read again after the training, when "
            f"the scoring is fitted to them. Received: {type(data).__name__}, "
            "which can be read only once. Give an array, a tf.data.Dataset or "
            "a keras.utils.PyDataset"
        )
    if not is_endless(data):
        return data
    if steps is None:
        raise ValueError(
            "Images must have an end, as the scoring is fitted to all of them. "
            f"Received: {type(data).__name__} without an end. Say with "
            "`steps_per_epoch` how many batches count"
        )
    return _FirstBatches(data, steps)


class _FirstBatches:
    """The first batches of a dataset, which can be read repeatedly."""

    def __init__(self, data: Any, count: int) -> None:
        self._data = data
        self._count = count

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._data), self._count)


def is_paired(data: Any) -> bool:
    """Whether batches are pairs of inputs and targets."""
    is_keras = isinstance(data, PyDataset)
    batch = data[0] if is_keras else getattr(data, "element_spec", None)
    return len(_parts(batch)) > 1


def first_images(data: Any) -> Any:
    """Returns an array, or the first batch of a TensorFlow or Keras dataset."""
    if hasattr(data, "shape"):
        return data
    images: Any = ()
    if isinstance(data, PyDataset):
        images = _parts(data[0])[0]
    elif hasattr(data, "element_spec") and hasattr(data, "take"):
        for batch in data.take(1):
            images = _parts(batch)[0]
    # Of objects there are parts with other units.
    return () if isinstance(images, Mapping) else images


def as_tensorflow_dataset(data: PyDataset) -> Any:
    """Returns the images of a data set of Keras, epoch by epoch."""
    import tensorflow as tf

    def batches() -> Iterator[Any]:
        for batch in data:
            yield _parts(batch)[0]
        data.on_epoch_end()

    shape = ops.shape(next(batches()))[1:]
    dataset = tf.data.Dataset.from_generator(
        batches,
        output_signature=tf.TensorSpec((None, *shape), "float32"),
    )
    if data.num_batches is None:
        return dataset
    return dataset.apply(
        tf.data.experimental.assert_cardinality(data.num_batches)
    )
