"""Anomaly maps on disk."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def save_map(path: str, anomaly_map: "np.ndarray") -> None:
    """Writes a map to show it; half precision is plenty for that."""
    import numpy as np

    # The range of half precision is not.
    limit = np.finfo("float16").max
    np.save(path, np.clip(anomaly_map, -limit, limit).astype("float16"))
