"""Regions of interest: the parts of images that count."""

import base64
import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_number

# Numbers of regions are bytes.
_MAX_REGIONS = 255


@dataclasses.dataclass(frozen=True)
class Region:
    """A part of an image with a threshold of its own.

    Attributes:
        name: Its name, by which its score is reported.
        quantile: Share of normal images in which it shall not be flagged. None
            (the default) shares the false alarms of the model out evenly.
        threshold: The score that it is flagged from, in standard deviations of
            normal images. None (the default) measures it by the quantile.

    Example:
    >>> Region("thread", quantile=0.999).threshold is None
    True
    """

    name: str
    quantile: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(
                f"A region needs a name. Received: name={self.name!r}"
            )
        if self.quantile is not None:
            standardize_number(self.quantile, "quantile", 0, 1, excluded=0)
        if self.threshold is not None:
            standardize_number(self.threshold, "threshold", -math.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class Regions:
    """Where the regions of interest of an image lie.

    Attributes:
        labels: Integers `(height, width)`, as large as the input of a model: 0
            outside, else the number of a region, from 1 on.
        parts: The regions. None (the default) is one, named `"inside"`.

    Raises:
        ValueError: If labels and regions do not fit, or a region is empty.

    Example:
    >>> labels = np.zeros((4, 6), int)
    >>> labels[1:3, 1:5] = 1
    >>> Regions(labels).inside.sum()
    np.int64(8)
    """

    labels: np.ndarray
    parts: tuple[Region, ...] = (Region("inside"),)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        parts = tuple(self.parts)
        names = [part.name for part in parts]
        if labels.ndim != 2 or not 0 < len(parts) <= _MAX_REGIONS:
            raise ValueError(
                "Regions are labels (height, width) and their names, at most "
                f"{_MAX_REGIONS}. Received: labels of shape {labels.shape}, "
                f"{len(parts)} names"
            )
        if len(set(names)) < len(names):
            raise ValueError(
                f"The names of regions must differ. Received: {names}"
            )
        found = set(np.unique(labels).tolist()) - {0}
        known = set(range(1, len(parts) + 1))
        if found - known:
            raise ValueError(
                f"There are {len(parts)} regions, so labels are 0 to "
                f"{len(parts)}. Received: {sorted(found - known)}"
            )
        if known - found:
            empty = [names[number - 1] for number in sorted(known - found)]
            raise ValueError(
                f"Regions must not be empty. No pixel of {labels.shape[0]} x "
                f"{labels.shape[1]} lies in: {', '.join(empty)}. Is it too "
                "small, outside of the image, or below another one?"
            )
        object.__setattr__(self, "labels", labels.astype("uint8"))
        object.__setattr__(self, "parts", parts)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        height, width = self.labels.shape
        return height, width

    @property
    def inside(self) -> np.ndarray:
        """Which pixels lie in any region, bool `(height, width)`."""
        return self.labels > 0

    def to_dict(self) -> dict[str, Any]:
        """Returns all as plain values, for JSON."""
        packed = zlib.compress(self.labels.tobytes(), 9)
        return {
            "image_size": list(self.image_size),
            "labels": base64.b64encode(packed).decode("ascii"),
            "parts": [dataclasses.asdict(part) for part in self.parts],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Regions":
        """Returns what `to_dict` was made of."""
        flat = zlib.decompress(base64.b64decode(values["labels"]))
        labels = np.frombuffer(flat, "uint8").reshape(values["image_size"])
        return cls(labels, tuple(Region(**part) for part in values["parts"]))


def fill_polygon(points: Any, image_size: Sequence[int]) -> np.ndarray:
    """Returns which pixels have their center in a polygon, bool.

    Points are `(x, y)` in pixels, the corner of the image being `(0, 0)`; what
    the outline goes around twice is outside.

    Example:
    >>> fill_polygon([(0, 0), (2, 0), (2, 1), (0, 1)], (2, 3)).astype(int)
    array([[1, 1, 0],
           [0, 0, 0]])
    """
    height, width = image_size
    y = np.arange(height)[:, np.newaxis] + 0.5
    x = np.arange(width)[np.newaxis] + 0.5
    inside = np.zeros((height, width), bool)
    corners = np.asarray(points, float)
    for (x1, y1), (x2, y2) in zip(
        corners, np.roll(corners, -1, axis=0), strict=True
    ):
        if y1 == y2:
            continue
        # Where the row meets the edge; each edge has its upper end only.
        meets = (y >= min(y1, y2)) & (y < max(y1, y2))
        crossing = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
        inside ^= meets & (x < crossing)
    return inside
