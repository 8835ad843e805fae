"""Objects cut out of frames and flows."""

import math
from collections.abc import Sequence

import numpy as np

from keras_sspcab.data.objects._optional import opencv
from keras_sspcab.data.objects.boxes import clip_boxes

#: Rows and columns of a box in an array.
Window = tuple[slice, slice]


def box_window(box: np.ndarray) -> Window:
    """Returns the pixels of a box, whose coordinates are rounded up."""
    x_min, y_min, x_max, y_max = (math.ceil(value) for value in box[:4])
    return slice(y_min, y_max + 1), slice(x_min, x_max + 1)


def usable_boxes(
    boxes: np.ndarray, frame_size: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Clips boxes to a frame and leaves out those without a pixel.

    Args:
        boxes: Array `(n, 5)`.
        frame_size: Height and width.

    Returns:
        The boxes that are left `(m, 5)`, and how many are not.
    """
    clipped = clip_boxes(boxes, frame_size)
    pixels = np.ceil(clipped)
    # Rounding up keeps clipped ends inside: they are whole or smaller.
    keep = (pixels[:, 2:4] >= pixels[:, :2]).all(axis=1)
    return clipped[keep], int((~keep).sum())


def crop(
    array: np.ndarray, window: Window, size: int, nearest: bool = False
) -> np.ndarray:
    """Cuts a window out of a frame or flow and resizes it.

    Bilinear without antialiasing, as `cv2.resize`. The values of a flow stay as
    they are, in pixels of the frame.

    Args:
        array: uint8 or float32 `(height, width, channels)`.
        window: From `box_window`.
        size: Height and width of the result.
        nearest: True takes the nearest neighbor instead, for masks.

    Returns:
        Array `(size, size, channels)`.
    """
    cv2 = opencv()
    resized = cv2.resize(
        np.ascontiguousarray(array[window]),
        (size, size),
        interpolation=cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR,
    )
    return resized.reshape(size, size, array.shape[2])


def crop_all(
    arrays: Sequence[np.ndarray],
    boxes: np.ndarray,
    size: int,
    nearest: bool = False,
) -> np.ndarray:
    """Cuts each box out of each array.

    Args:
        arrays: Frames, flows or masks of one shape.
        boxes: Array `(n, 5)` from `usable_boxes`.
        size: Height and width of the crops.
        nearest: As in `crop`.

    Returns:
        Array `(n, len(arrays), size, size, channels)`.
    """
    first = arrays[0]
    shape = (len(boxes), len(arrays), size, size, first.shape[2])
    crops = np.empty(shape, first.dtype)
    # The same array at a video's start is cut only once.
    for row, box in enumerate(boxes):
        window = box_window(box)
        previous = None
        for step, array in enumerate(arrays):
            if array is previous:
                crops[row, step] = crops[row, step - 1]
            else:
                crops[row, step] = crop(array, window, size, nearest)
            previous = array
    return crops
