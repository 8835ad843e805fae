"""Batches from what users pass, and samples of many maps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def iterate_batches(
    data: Any, batch_size: int = 32, are_dicts: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Yields pairs of a batch and what came with it in a tuple, or None.

    Args:
        data: An array, a dict of arrays, or an iterable of batches or tuples
            that begin with one.
        batch_size: Rows a batch, of arrays.
        are_dicts: Whether batches must be dicts of arrays; else they must be
            arrays.

    Raises:
        ValueError: If they are not.
    """
    if hasattr(data, "shape") or isinstance(data, Mapping):
        _check_batch(data, are_dicts)
        for start in range(0, len(keras.tree.flatten(data)[0]), batch_size):
            rows = slice(start, start + batch_size)
            if isinstance(data, Mapping):
                yield {name: part[rows] for name, part in data.items()}, None
            else:
                yield data[rows], None
        return
    for batch in data:
        inputs, *others = batch if isinstance(batch, (tuple, list)) else [batch]
        _check_batch(inputs, are_dicts)
        yield _arrays(inputs), others[0] if others else None


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


def _arrays(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return {name: _arrays(part) for name, part in batch.items()}
    return ops.convert_to_numpy(batch)


def highest_by_frame(
    scores: Sequence[np.ndarray], indices: Sequence[Any]
) -> np.ndarray:
    """Joins scores; where indices name frames, the highest of each counts.

    Args:
        scores: Scores `(batch,)` of each batch.
        indices: What came with each batch.
    """
    joined = np.concatenate(scores) if scores else np.empty(0)
    keys = ("video", "frame")
    if not indices or not all(
        isinstance(index, Mapping) and set(keys) <= set(index)
        for index in indices
    ):
        return joined
    places = np.stack(
        [
            np.concatenate([np.asarray(index[key]) for index in indices])
            for key in keys
        ],
        axis=-1,
    )
    _, where = np.unique(places, axis=0, return_inverse=True)
    highest = np.full(where.max(initial=-1) + 1, -np.inf)
    np.maximum.at(highest, where.ravel(), joined)
    return highest


def thin_out(maps: Sequence[np.ndarray], limit: int) -> np.ndarray:
    """Returns at most about `limit` values, evenly spread over the maps."""
    if not maps:
        return np.empty(0, "float32")
    step = max(1, -(-sum(part.size for part in maps) // limit))
    return np.concatenate([part.ravel()[::step] for part in maps])
