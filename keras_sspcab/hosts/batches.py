"""Batches of images from what users pass, and samples of many maps."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from keras import ops


def image_batches(data: Any, batch_size: int = 32) -> Iterable[Any]:
    """Yields batches of images from an array or an iterable of batches."""
    if hasattr(data, "shape"):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size]
        return
    for batch in data:
        if isinstance(batch, Mapping):
            raise ValueError(
                "Calibration data must yield batches of images, or tuples "
                "that begin with one. Received a dict with the keys "
                f"{sorted(batch)}"
            )
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield ops.convert_to_numpy(images)


def thin_out(maps: list[np.ndarray], limit: int) -> np.ndarray:
    """Returns at most about `limit` values, evenly spread over the maps."""
    if not maps:
        return np.empty(0, "float32")
    step = max(1, -(-sum(part.size for part in maps) // limit))
    return np.concatenate([part.ravel()[::step] for part in maps])
