"""Pixel masks of videos: which pixels of each frame are abnormal."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import list_frames, read_frame
from keras_sspcab.data.video.labels import (
    load_mat,
    mat_names,
    read_labels,
)
from keras_sspcab.data.video.reading import count_frames

#: The variable with the masks in Avenue's MATLAB files.
AVENUE_VARIABLE = "volLabel"


def iterate_masks(video: Video, image_size: Any = None) -> Iterator[np.ndarray]:
    """Yields the mask of each frame.

    Masks are a folder of images (pixels above 0 are abnormal), an `.npy` file
    `(frames, height, width)`, or a `.mat` file with a cell of masks, one a
    frame. They belong to the frames by their order, wherever their numbering
    starts.

    Args:
        video: A video with masks.
        image_size: Height and width that masks are resized to, by the nearest
            neighbor; None (the default) keeps theirs.

    Yields:
        bool arrays `(height, width)`, one a frame.

    Raises:
        ValueError: If the video has no masks, there are not as many as frames,
            or one cannot be read.
    """
    size = None if image_size is None else standardize_size(image_size)
    path = video.masks
    if path is None:
        raise ValueError(f"The video {video.name!r} has no masks.")
    if os.path.isdir(path):
        count, masks = _from_folder(path)
    elif path.lower().endswith(".npy"):
        count, masks = _from_npy(path)
    elif path.lower().endswith(".mat"):
        count, masks = _from_mat(path)
    else:
        raise ValueError(
            "Masks must be a folder of images, an .npy or a .mat file. "
            f"Received: {path!r}"
        )
    frames = count_frames(video)
    if count != frames:
        raise ValueError(
            f"There must be one mask a frame. Received: {count} masks in "
            f"{path!r} for the {frames} frames of {video.path!r}"
        )
    first = None
    for frame, mask in enumerate(masks):
        first = first or mask.shape
        if mask.ndim != 2 or mask.shape != first:
            raise ValueError(
                "The masks of a video must have one size, (height, width). "
                f"Received: mask {frame} of shape {mask.shape} in {path!r}, "
                f"others of {first}"
            )
        yield mask if size is None else _nearest(mask, size)


def frame_labels(video: Video) -> np.ndarray:
    """Returns which frames of a video are abnormal.

    They are those of the video's `labels`; or else, of its masks: a frame is
    abnormal if one of its pixels is.

    Args:
        video: A video with labels or masks.

    Returns:
        uint8 array `(frames,)`: 0 normal, 1 abnormal.

    Raises:
        ValueError: If the video has neither, or they do not fit it. The error
            names the file.
    """
    if video.labels is not None:
        return read_labels(video.labels, count_frames(video))
    if video.masks is None:
        raise ValueError(
            "The video has no ground truth. Received: "
            f"{video.name!r}. Add it with `attach_labels`."
        )
    return np.array([mask.any() for mask in iterate_masks(video)], "uint8")


def holds_masks(path: str) -> bool:
    """Says whether an `.npy` or `.mat` file holds masks rather than labels.

    Raises:
        ValueError: If it cannot be read.
    """
    if path.lower().endswith(".npy"):
        return _load_npy(path).ndim == 3
    if path.lower().endswith(".mat"):
        return AVENUE_VARIABLE in mat_names(path)
    return False


def _from_folder(path: str) -> tuple[int, Iterator[np.ndarray]]:
    files = list_frames(path)
    masks = (read_frame(file, channels=1)[..., 0] > 0 for file in files)
    return len(files), masks


def _from_npy(path: str) -> tuple[int, Iterator[np.ndarray]]:
    values = _load_npy(path)
    if values.ndim != 3:
        raise ValueError(
            "Masks must be an array (frames, height, width). Received: shape "
            f"{values.shape} in {path!r}"
        )
    return len(values), (np.asarray(mask) > 0 for mask in values)


def _from_mat(path: str) -> tuple[int, Iterator[np.ndarray]]:
    cells = load_mat(path).get(AVENUE_VARIABLE)
    if cells is None or cells.dtype != object:
        raise ValueError(
            f"A .mat file of masks must hold the cell `{AVENUE_VARIABLE}`. "
            f"Received: {path!r}"
        )
    return cells.size, (np.asarray(mask) > 0 for mask in cells.ravel())


def _load_npy(path: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"Cannot read {path!r}: {error}") from error


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Does what `keras_sspcab.data.resize_mask` does, without TensorFlow."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype("int64")
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
