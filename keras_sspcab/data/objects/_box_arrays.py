"""Boxes in `.npy` files."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from keras_sspcab.data.objects._box_tables import Rows, standardize_rows
from keras_sspcab.data.objects.boxes import standardize_boxes
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import natural_key


def is_array(path: str) -> bool:
    """Says whether a file is an array, by its extension."""
    return path.lower().endswith(".npy")


def list_arrays(folder: str) -> list[str]:
    """Lists the arrays in a folder in the order of their names, if any."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    names = [name for name in names if is_array(name) and name[0] != "."]
    names.sort(key=natural_key)
    return [os.path.join(folder, name) for name in names]


def array_boxes(path: str, first_frame: int, num_frames: int | None) -> Rows:
    """Reads rows of frame, box and maybe confidence."""
    array = _load(path)
    if array.size == 0:
        array = np.empty((0, 6))
    if array.ndim != 2 or array.shape[1] not in (5, 6):
        raise ValueError(
            "The boxes of a video must be an array (n, 5 or 6) of rows frame, "
            "x_min, y_min, x_max, y_max and maybe confidence. Received: shape "
            f"{array.shape} in {path!r}. Boxes of one frame belong into a "
            "folder with the video's name, one file a frame."
        )
    values = array.astype("float64")
    places = [f"row {row}" for row in range(len(values))]
    return standardize_rows(values, path, places, first_frame, num_frames)


def frame_arrays_boxes(
    files: Sequence[str], video: Video, num_frames: int
) -> Iterator[np.ndarray]:
    """Yields the boxes in a file for each frame."""
    if len(files) != num_frames:
        raise ValueError(
            "There must be one array of boxes a frame. Received: "
            f"{len(files)} arrays in {os.path.dirname(files[0])!r} for the "
            f"{num_frames} frames of {video.path!r}"
        )
    for path in files:
        yield standardize_boxes(_load(path), f"The boxes in {path!r}")


def _load(path: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise ValueError(
                "Pickled arrays are not read, as they can run any code. "
                f"Received: {path!r}, an array of objects. If you trust it, "
                "convert it once: for number, boxes in enumerate(numpy.load("
                "path, allow_pickle=True)): numpy.save(f'{number:06d}.npy', "
                "numpy.asarray(boxes, 'float32')), for each video in a folder "
                "with its name."
            ) from error
        raise ValueError(f"Cannot read the boxes {path!r}: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        kind = getattr(array, "dtype", type(array).__name__)
        raise ValueError(
            f"Boxes must be an array of numbers. Received: {kind} in {path!r}"
        )
    return array
