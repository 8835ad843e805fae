"""Objects of videos, cut out of frames and flows into files."""

import collections
import contextlib
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.cache import standardize_cache_folder
from keras_sspcab.data.decoding import standardize_channels
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects.boxes import (
    clip_boxes,
    opencv,
    standardize_boxes,
)
from keras_sspcab.data.objects.cube_files import (
    VERSION,
    CubeFile,
    CubeWriter,
    open_cube_file,
)
from keras_sspcab.data.objects.proposals import ObjectProposals
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.video.folder import Video, standardize_videos
from keras_sspcab.data.video.per_frame import FrameSource, zip_frames
from keras_sspcab.data.video.reading import iterate_frames, video_cache_path
from keras_sspcab.files import replacing


def extract_cubes(
    videos: Iterable[Video],
    proposals: ObjectProposals,
    flow: FrameSource,
    folder: Any,
    *,
    num_frames: int = 5,
    size: int = 32,
    channels: int = 3,
    masks: FrameSource | None = None,
) -> tuple[CubeFile, ...]:
    """Cuts the objects of videos out of frames and flows, unless that is done.

    Each video becomes one file; see `keras_sspcab.data.objects.cube_files` for
    the format. An extraction that is interrupted goes on with the next video.
    The name of a file has a digest of the video's files and of all settings: if
    something changes, another file is written, and the older one stays. Memory
    does not grow with the length of a video.

    Args:
        videos: The videos, of different names.
        proposals: What finds objects: `MotionProposals()`, `BoxFiles(...)`,
            `OnnxDetector(...)` or `MergedProposals(...)`.
        flow: `DISFlow()`, `FlowFiles(...)` or an `OpticalFlow` of your own.
        folder: A local folder, made where it is missing.
        num_frames: Frames a cube, of which the last is that of the object.
            Defaults to 5; single crops need 1.
        size: Height and width of the crops, in pixels. Defaults to 32.
        channels: 1 for gray or 3 for color. Defaults to 3.
        masks: What says which pixels belong to objects: `MaskFiles(...)` or
            `MotionMasks(...)`; None (the default) for none.

    Returns:
        A file for each video.

    Raises:
        ValueError: If an argument is out of range, or a video, its boxes or its
            flow cannot be read. Boxes beside the frames are a warning.

    Example:
    >>> files = extract_cubes(  # doctest: +SKIP
    ...     scan_video_folder("avenue").train,
    ...     MotionProposals(),
    ...     DISFlow(),
    ...     folder="objects",
    ... )
    """
    given = standardize_videos(videos)
    (name, count), *_ = collections.Counter(v.name for v in given).most_common()
    if count > 1:
        raise ValueError(
            "The videos must have different names. Received: "
            f"{name!r} more than once"
        )
    length = standardize_int(num_frames, "num_frames", 1)
    size = standardize_int(size, "size", 2)
    channels = standardize_channels(channels)
    folder = standardize_cache_folder(folder)
    opencv()

    def extract(video: Video) -> CubeFile:
        settings = {
            "version": VERSION,
            "num_frames": length,
            "size": size,
            "channels": channels,
            "proposals": proposals.settings,
            "flow": flow.settings,
        }
        more = [*proposals.files(video), *flow.files(video)]
        own_masks = masks if masks is not None and masks.has(video) else None
        if own_masks is not None:
            settings["masks"] = own_masks.settings
            more += own_masks.files(video)
        path = video_cache_path(folder, video, settings, more, ".h5")
        fingerprint = path.removesuffix(".h5").rpartition("-")[2]
        # A broken file is written again.
        with contextlib.suppress(ValueError):
            file = open_cube_file(path)
            if file.fingerprint == fingerprint:
                return file
        with (
            replacing(path) as temporary,
            # Closed before the file is moved.
            contextlib.closing(
                CubeWriter(temporary, length, size, channels, bool(own_masks))
            ) as writer,
        ):
            written = _write_objects(writer, video, proposals, flow, own_masks)
            known = {"fingerprint": fingerprint, "video": video.name}
            writer.finish(settings, **written, **known)
        return open_cube_file(path)

    cubes = tuple(parallel_map(extract, given, "Extracting objects"))
    beside = [
        f"{file.num_skipped} of {file.num_skipped + file.num_objects} in "
        f"{file.name!r}, of {file.frame_size[0]}x{file.frame_size[1]} pixels"
        for file in cubes
        if file.num_skipped
    ]
    if beside:
        warnings.warn(
            "Boxes lie beside the frames of their video and are left out: "
            f"{enumerate_names(beside)}. Are they of frames of another size?",
            stacklevel=2,
        )
    return cubes


def _write_objects(
    writer: CubeWriter,
    video: Video,
    proposals: ObjectProposals,
    flow: FrameSource,
    masks: FrameSource | None,
) -> dict[str, Any]:
    """Writes the objects of a video and returns the file's attributes."""
    frames = iterate_frames(video, channels=writer.channels)
    first = next(frames)
    frame_size = first.shape[:2]
    parts: dict[str, Iterable[Any]] = {
        "frames": itertools.chain([first], frames),
        "flows": _with_next(flow.iterate(video, frame_size)),
        "boxes": proposals.boxes(video),
    }
    if masks is not None:
        parts["masks"] = masks.iterate(video, frame_size)
    last_frames: collections.deque = collections.deque(maxlen=writer.length)
    last_flows: collections.deque = collections.deque(maxlen=writer.length)
    num_skipped = 0
    position = -1
    for position, (frame, motions, given, *mask) in enumerate(
        zip_frames(video, parts)
    ):
        motion, next_motion = motions
        copies = 1 if position else writer.length
        last_frames.extend([frame] * copies)
        last_flows.extend([motion] * copies)
        what = f"The boxes in frame {position} of {video.path!r}"
        # As they are stored, so that the file's boxes give its crops.
        boxes = standardize_boxes(given, what).astype("float32")
        boxes = _with_pixels(boxes)
        total = len(boxes)
        # Rounding up keeps clipped ends inside: they are whole or smaller.
        boxes = _with_pixels(clip_boxes(boxes, frame_size))
        num_skipped += total - len(boxes)
        if not len(boxes):
            continue
        rows = {
            "appearance": _crop_all(last_frames, boxes, writer.size),
            "motion": _crop_all(last_flows, boxes, writer.size),
            "next_motion": _crop_all([next_motion], boxes, writer.size)[:, 0],
            "boxes": boxes,
            "frames": np.full(len(boxes), position, "int32"),
        }
        if mask:
            pixels = mask[0].astype("uint8")[..., np.newaxis]
            crops = _crop_all([pixels], boxes, writer.size, nearest=True)
            rows["mask"] = crops[:, 0]
        writer.append(**rows)
    return {
        "num_frames": position + 1,
        "frame_size": np.array(frame_size, "int32"),
        "num_skipped": num_skipped,
    }


def _with_next(
    flows: Iterable[np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each flow and the one after it, which is 0 at the end."""
    floats: Iterator[Any] = (np.asarray(flow, "float32") for flow in flows)
    for flow, following in itertools.pairwise(itertools.chain(floats, [None])):
        yield flow, np.zeros_like(flow) if following is None else following


def _with_pixels(boxes: np.ndarray) -> np.ndarray:
    """Leaves out boxes without a pixel, as crops are cut."""
    pixels = np.ceil(boxes)
    return boxes[(pixels[:, 2:4] >= pixels[:, :2]).all(axis=1)]


def _crop_all(
    arrays: Sequence[np.ndarray],
    boxes: np.ndarray,
    size: int,
    nearest: bool = False,
) -> np.ndarray:
    """Returns crops `(n, len(arrays), size, size, channels)` of boxes.

    Coordinates are rounded up. Bilinear without antialiasing, or the nearest
    neighbor.
    """
    cv2 = opencv()
    interpolation = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    first = arrays[0]
    shape = (len(boxes), len(arrays), size, size, first.shape[2])
    crops = np.empty(shape, first.dtype)
    for row, box in enumerate(boxes):
        x_min, y_min, x_max, y_max = (math.ceil(value) for value in box[:4])
        previous = None
        for step, array in enumerate(arrays):
            # The same array at a video's start is cut only once.
            if array is previous:
                crops[row, step] = crops[row, step - 1]
                continue
            piece = array[y_min : y_max + 1, x_min : x_max + 1]
            piece = np.ascontiguousarray(piece)
            crop = cv2.resize(piece, (size, size), interpolation=interpolation)
            crops[row, step] = crop.reshape(shape[2:])
            previous = array
    return crops
