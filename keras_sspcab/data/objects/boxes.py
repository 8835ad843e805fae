"""Arrays of boxes: checks, clipping, and which of them to keep.

Boxes are rows `x_min, y_min, x_max, y_max, confidence` in pixels. Both ends
belong to a box, as in `keras_sspcab.metrics`: `x_min=0, x_max=9` is 10 pixels
wide.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_number
from keras_sspcab.imports import import_optional

BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max", "confidence")

#: What boxes `(n, 4)` or `(n, 5)` of other conventions look like: a sentence,
#: and which of them do.
BOX_FAULTS: dict[str, Callable[[np.ndarray], Any]] = {
    # COCO has boxes of no width.
    "an end before its start: is it a width and height?": (
        lambda boxes: (boxes[:, 2:4] < boxes[:, :2] - 1).any(axis=1)
    ),
    "a confidence that is not from 0 to 1": (
        lambda boxes: ((boxes[:, 4:] < 0) | (boxes[:, 4:] > 1.01)).any(axis=1)
    ),
    # Zeros are what some detectors fill up with.
    "no number above 1: are they shares of the frame?": (
        lambda boxes: np.full(
            len(boxes),
            (boxes[:, :4] <= 1).all() and (boxes[:, :4] % 1 > 0).any(),
        )
    ),
}


def standardize_boxes(values: Any, what: str) -> np.ndarray:
    """Returns float64 boxes `(n, 5)`, or raises an error about `what`."""
    boxes = np.asarray(values, "float64")
    if boxes.size == 0:
        return np.empty((0, 5))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ValueError(
            f"{what} must be an array (n, 5) of {', '.join(BOX_COLUMNS)}. "
            f"Received: shape {boxes.shape}"
        )
    if not np.isfinite(boxes).all():
        row = int(np.argmin(np.isfinite(boxes).all(axis=1)))
        raise ValueError(
            f"{what} must be finite. Received: {boxes[row].tolist()} in row "
            f"{row}"
        )
    for fault, find in BOX_FAULTS.items():
        if (is_faulty := find(boxes)).any():
            row = int(np.argmax(is_faulty))
            raise ValueError(
                f"{what} must be pixels {', '.join(BOX_COLUMNS)}. Received: "
                f"{boxes[row].tolist()} in row {row} has {fault}"
            )
    return with_confidence(boxes)


def with_confidence(boxes: np.ndarray) -> np.ndarray:
    """Returns boxes `(n, 5)`, with a confidence of 1 where they have none."""
    if boxes.shape[1] == 5:
        return boxes
    return np.column_stack([boxes, np.ones(len(boxes))])


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas `(n,)` in pixels; 0 if an end is before its start."""
    return np.maximum(boxes[:, 2:4] - boxes[:, :2] + 1, 0).prod(axis=1)


def clip_boxes(
    boxes: np.ndarray, frame_size: tuple[int, ...], margin: float = 0
) -> np.ndarray:
    """Enlarges boxes by a margin and clips them to `(height, width)`.

    A box beside the frame gets an end before its start.
    """
    height, width = frame_size[:2]
    clipped = boxes.copy()
    clipped[:, :2] = (boxes[:, :2] - margin).clip(0, None)
    last = np.array([width - 1, height - 1])
    clipped[:, 2:4] = np.minimum(boxes[:, 2:4] + margin, last)
    return clipped


@dataclasses.dataclass(frozen=True)
class BoxFilter:
    """Leaves out boxes that are unsure, small or covered.

    A `min_confidence` of 0 keeps all, even those of confidence 0.
    """

    min_confidence: float = 0.0
    min_area: float = 0.0
    cover_threshold: float | None = None

    def __post_init__(self) -> None:
        standardize_number(
            self.min_confidence, "min_confidence", 0, 1, excluded=1
        )
        standardize_number(self.min_area, "min_area")
        if self.cover_threshold is not None:
            standardize_number(self.cover_threshold, "cover_threshold", 0, 1)

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Returns the boxes `(m, 5)` that are left, in their order."""
        keep = box_areas(boxes) >= self.min_area
        if self.min_confidence > 0:
            keep &= boxes[:, 4] > self.min_confidence
        boxes = boxes[keep]
        if self.cover_threshold is None:
            return boxes
        return drop_covered(boxes, self.cover_threshold)


def drop_covered(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Leaves out boxes of which a larger one covers more than a share.

    The larger one counts whether it stays or not; of equally large ones the
    later counts as larger.
    """
    areas = box_areas(boxes)
    order = np.argsort(areas, kind="stable")
    keep = np.ones(len(boxes), bool)
    for position, row in enumerate(order):
        larger = boxes[order[position + 1 :]]
        start = np.maximum(boxes[row, :2], larger[:, :2])
        end = np.minimum(boxes[row, 2:4], larger[:, 2:4])
        covered = np.maximum(end - start + 1, 0).prod(axis=1)
        keep[row] = not np.any(covered > threshold * areas[row])
    return boxes[keep]


def opencv() -> Any:
    """Returns the module `cv2`."""
    return import_optional(
        "cv2", "Finding and cutting out objects needs OpenCV", "video"
    )
