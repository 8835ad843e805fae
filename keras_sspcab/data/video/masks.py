"""Pixel masks of videos: which pixels of each frame are abnormal."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.file_system import naming
from keras_sspcab.data.masks import read_mask, resize_mask
from keras_sspcab.data.video.folder import Video, standardize_videos
from keras_sspcab.data.video.frames import list_frames
from keras_sspcab.data.video.labels import read_labels
from keras_sspcab.data.video.mat_files import load_mat, mat_names
from keras_sspcab.data.video.per_frame import load_array, require_one_a_frame
from keras_sspcab.data.video.reading import count_frames
from keras_sspcab.metrics.pixel_level import EIGHT_NEIGHBORS

# The variable with the masks in Avenue's MATLAB files.
_AVENUE_VARIABLE = "volLabel"

_TRACK_COLUMNS = ("track", "frame", "x_min", "y_min", "x_max", "y_max")


def iterate_masks(video: Video, image_size: Any = None) -> Iterator[np.ndarray]:
    """Yields the mask of each frame, bool `(height, width)`.

    Masks are a folder of images, read like those of images, an `.npy` file
    `(frames, height, width)`, or a `.mat` file with a cell of masks, one a
    frame: pixels above 0 are abnormal. They belong to the frames by their
    order, wherever their numbering starts. To an `image_size`, height and
    width, they are resized without loss of small regions.

    Example:
    >>> next(iterate_masks(Video("street", "street.mp4")))
    Traceback (most recent call last):
    ...
    ValueError: The video 'street' has no masks.
    """
    size = None if image_size is None else standardize_size(image_size)
    path = video.masks
    if path is None:
        raise ValueError(f"The video {video.name!r} has no masks.")
    masks: Any = None
    if os.path.isdir(path):
        masks = list_frames(path)
    elif path.lower().endswith(".npy"):
        array = load_array(path, "masks")
        masks = array if array.ndim == 3 else None
    elif path.lower().endswith(".mat"):
        cell = load_mat(path).get(_AVENUE_VARIABLE)
        if cell is not None and cell.dtype == object:
            kinds = {getattr(mask, "dtype", cell.dtype) for mask in cell.flat}
            masks = None if cell.dtype in kinds else cell.ravel()
    if masks is None:
        raise ValueError(
            "Masks must be a folder of images, an .npy file of an array "
            "(frames, height, width), or a .mat file with the cell "
            f"`{_AVENUE_VARIABLE}`. Received: {path!r}"
        )
    require_one_a_frame(len(masks), video, "mask", path)
    first = None
    for frame, item in enumerate(masks):
        if isinstance(item, str):
            with naming(f"the mask {item!r}"):
                mask = read_mask(item)
        elif np.isnan(item).any():
            raise ValueError(
                "Masks must be numbers. Received: NaN in mask "
                f"{frame} of {path!r}"
            )
        else:
            mask = item > 0
        first = first or mask.shape
        if mask.ndim != 2 or mask.shape != first:
            raise ValueError(
                "The masks of a video must have one size, (height, width). "
                f"Received: mask {frame} of shape {mask.shape} in {path!r}, "
                f"others of {first}"
            )
        yield mask if size is None else resize_mask(mask, size)[0]


def frame_labels(video: Video) -> np.ndarray:
    r"""Returns which frames of a video are abnormal.

    That is uint8 `(frames,)` of 0 and 1, read from its labels, or else from its
    masks: a frame is abnormal if one of its pixels is. A ValueError names what
    does not fit.

    Example:
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("start,end\n2,4\n")
    ...     file.flush()
    ...     labels = LabelSource(file.name)
    ...     frame_labels(Video("a", "a.mp4", num_frames=6, labels=labels))
    array([0, 0, 1, 1, 1, 0], dtype=uint8)
    """
    if video.labels is not None:
        return read_labels(video.labels, count_frames(video))
    if video.masks is None:
        raise ValueError(
            "The video has no ground truth. Received: "
            f"{video.name!r}. Add it with `attach_labels`."
        )
    return np.array([mask.any() for mask in iterate_masks(video)], "uint8")


def has_masks(path: str) -> bool:
    """Returns whether a file holds masks rather than labels."""
    if path.lower().endswith(".npy"):
        return load_array(path, "labels or masks").ndim == 3
    return path.lower().endswith(".mat") and _AVENUE_VARIABLE in mat_names(path)


def tracks_from_masks(
    videos: Iterable[Video],
) -> dict[str, np.ndarray]:
    """Derives tracks from pixel masks, for `keras_sspcab.metrics.rbdc_tbdc`.

    A substitute where no tracks are published. In each frame, connected pixels
    (8 neighbors) are a region. Regions of consecutive frames that share a pixel
    belong to one track, and so do two that merge or part: at each frame, a
    track has the box around all its regions.

    Args:
        videos: Videos with masks. Those without are taken for normal ones.

    Returns:
        Dict of arrays `(n,)` as `keras_sspcab.metrics.write_tracks` takes them.

    Example:
    >>> tracks_from_masks([Video("street", "street.mp4")])["frame"].size
    0
    """
    rows = [
        (video.name, row)
        for video in standardize_videos(videos)
        if video.masks is not None
        for row in _track(video)
    ]
    table = np.array([row for _, row in rows], "int64")
    columns = table.reshape(-1, len(_TRACK_COLUMNS)).T
    return {
        "video": np.array([name for name, _ in rows], dtype=str),
        **dict(zip(_TRACK_COLUMNS, columns, strict=True)),
    }


def _track(video: Video) -> list[tuple[int, ...]]:
    """Returns the rows of a video, by track and frame."""
    # Regions, numbered through all frames, and pairs that share a pixel.
    boxes: list[tuple[int, Any]] = []
    pairs = [np.empty((0, 2), "int64")]
    previous = None
    for frame, mask in enumerate(iterate_masks(video)):
        regions, _ = ndimage.label(mask, EIGHT_NEIGHBORS)
        # -1 is no region.
        current = np.where(regions, regions + len(boxes), 0) - 1
        boxes += [(frame, box) for box in ndimage.find_objects(regions)]
        if previous is not None:
            both = (previous >= 0) & (current >= 0)
            shared = np.stack([previous[both], current[both]], axis=1)
            pairs.append(np.unique(shared, axis=0))
        previous = current

    if not boxes:
        return []
    edges = np.concatenate(pairs).T
    graph = coo_array((np.ones(edges.shape[1]), edges), (len(boxes),) * 2)
    # They are numbered by their earliest regions.
    _, tracks = connected_components(graph, directed=False)
    merged: dict[tuple[int, int], list[int]] = {}
    for track, (frame, (rows, columns)) in zip(
        tracks.tolist(), boxes, strict=True
    ):
        box = [columns.start, rows.start, columns.stop - 1, rows.stop - 1]
        old = merged.get((track, frame), box)
        ends = map(max, old[2:], box[2:])
        merged[track, frame] = [*map(min, old[:2], box[:2]), *ends]
    return sorted((*place, *box) for place, box in merged.items())
