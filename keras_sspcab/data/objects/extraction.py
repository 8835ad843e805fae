"""Objects of videos, cut out into files."""

import collections
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.cache import standardize_cache_folder
from keras_sspcab.data.decoding import standardize_channels
from keras_sspcab.data.flow.cache import cached_flows
from keras_sspcab.data.flow.optical_flow import FlowSource
from keras_sspcab.data.objects._optional import opencv
from keras_sspcab.data.objects.boxes import standardize_boxes
from keras_sspcab.data.objects.cropping import crop_all, usable_boxes
from keras_sspcab.data.objects.cube_files import (
    VERSION,
    CubeFile,
    CubeWriter,
    open_cube_file,
)
from keras_sspcab.data.objects.masks import MaskSource
from keras_sspcab.data.objects.proposals import ObjectProposals
from keras_sspcab.data.video._storage import cache_path
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import iterate_frames, standardize_videos
from keras_sspcab.runs import files


def extract_cubes(
    videos: Iterable[Video],
    proposals: ObjectProposals,
    flow: FlowSource,
    folder: Any,
    *,
    num_frames: int = 5,
    size: int = 32,
    channels: int = 3,
    masks: MaskSource | None = None,
    flow_cache: Any = None,
    progress: bool = True,
) -> tuple[CubeFile, ...]:
    """Cuts the objects of videos out of frames and flows, unless that is done.

    Each video becomes one file; see `keras_sspcab.data.objects.cube_files` for
    the format. A file appears only when it is complete, so that an extraction
    that is interrupted goes on with the next video. Its name has a digest of
    the video's files and of all settings: what has changed is made anew under
    another name, and files of older settings stay until they are deleted.

    A video of any length is processed in constant memory. The flow between two
    frames is computed once, at the size of the frames.

    Args:
        videos: The videos, of different names.
        proposals: What finds objects: `MotionProposals()`, `BoxFiles(...)`,
            `OnnxDetector(...)` or `merge(...)`.
        flow: `DISFlow()`, `FlowFiles(...)` or an `OpticalFlow` of your own.
        folder: A local folder, made where it is missing.
        num_frames: Frames a cube, of which the last is that of the object.
            Defaults to 5; single crops need 1.
        size: Height and width of the crops, in pixels. Defaults to 32.
        channels: 1 for gray or 3 for color. Defaults to 3.
        masks: What says which pixels belong to objects: `MaskFiles(...)` or
            `MotionMasks(...)`; files of videos that it has none of, and with
            None (the default) all, are without.
        flow_cache: A local folder for flows, see `cached_flows`, which rounds
            them to half precision; None (the default) keeps none.
        progress: False hides the progress bar.

    Returns:
        A file for each video.

    Raises:
        ValueError: If an argument is out of range, a video, a box or a flow
            cannot be read, or there are not as many as frames.
        ImportError: If OpenCV is missing.
    """
    given = standardize_videos(videos)
    names = [video.name for video in given]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            "The videos must have different names. Received: "
            f"{enumerate_names(repeated)} more than once"
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
            "flow_type": "float32" if flow_cache is None else "float16",
        }
        more = [*proposals.files(video), *flow.files(video)]
        mask_source = masks if masks is not None and masks.has(video) else None
        if mask_source is not None:
            settings["masks"] = mask_source.settings
            more += mask_source.files(video)
        path = cache_path(folder, video, settings, more)
        path = f"{os.path.splitext(path)[0]}.h5"
        fingerprint = path[:-3].rsplit("-", 1)[1]
        if not _is_complete(path, fingerprint):
            with (
                files.replacing(path) as temporary,
                # Closed before the file is moved.
                contextlib.closing(
                    CubeWriter(
                        temporary,
                        length,
                        size,
                        channels,
                        with_masks=mask_source is not None,
                    )
                ) as writer,
            ):
                facts = _write(
                    writer, video, proposals, flow, flow_cache, mask_source
                )
                writer.finish(
                    settings, fingerprint=fingerprint, video=video.name, **facts
                )
        return open_cube_file(path)

    return tuple(parallel_map(extract, given, "Extracting objects", progress))


def _is_complete(path: str, fingerprint: str) -> bool:
    """Says whether a file is there and whole."""
    try:
        return open_cube_file(path).fingerprint == fingerprint
    except ValueError:
        return False


def _write(
    writer: CubeWriter,
    video: Video,
    proposals: ObjectProposals,
    flow: FlowSource,
    flow_cache: Any,
    mask_source: MaskSource | None,
) -> dict[str, Any]:
    """Writes the objects of a video and returns the file's attributes."""
    frames = iterate_frames(video, channels=writer.channels)
    first = next(frames)
    frame_size = first.shape[:2]
    flows: Iterable[np.ndarray]
    if flow_cache is None:
        flows = flow.iterate(video, frame_size)
    else:
        (flows,) = cached_flows([video], flow, flow_cache, frame_size, False)
    parts: dict[str, Iterable[Any]] = {
        "frames": itertools.chain([first], frames),
        "flows": _with_next(flows),
        "boxes": proposals.boxes(video),
    }
    if mask_source is not None:
        parts["masks"] = mask_source.iterate(video, frame_size)
    steps = _in_step(video, **parts)
    seen: collections.deque = collections.deque(maxlen=writer.length)
    moved: collections.deque = collections.deque(maxlen=writer.length)
    num_skipped = 0
    position = -1
    for position, (frame, motions, found, *mask) in enumerate(steps):
        motion, next_motion = motions
        copies = 1 if position else writer.length
        seen.extend([frame] * copies)
        moved.extend([motion] * copies)
        what = f"The boxes in frame {position} of {video.path!r}"
        # As they are stored, so that the file's boxes give its crops.
        given = standardize_boxes(found, what).astype("float32")
        boxes, skipped = usable_boxes(given, frame_size)
        num_skipped += skipped
        if len(boxes):
            masked = {}
            if mask:
                pixels = mask[0].astype("uint8")[..., np.newaxis]
                masked["mask"] = crop_all(
                    [pixels], boxes, writer.size, nearest=True
                )[:, 0]
            writer.append(
                **masked,
                appearance=crop_all(seen, boxes, writer.size),
                motion=crop_all(moved, boxes, writer.size),
                next_motion=crop_all([next_motion], boxes, writer.size)[:, 0],
                boxes=boxes,
                frames=np.full(len(boxes), position, "int32"),
            )
    return {
        "num_frames": position + 1,
        "frame_size": np.array(frame_size, "int32"),
        "num_skipped": num_skipped,
    }


def _with_next(
    flows: Iterable[np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each flow and the one after it, which is 0 at the end."""
    current: Any = None
    for following in flows:
        following = np.asarray(following, "float32")
        if current is not None:
            yield current, following
        current = following
    if current is not None:
        yield current, np.zeros_like(current)


def _in_step(video: Video, **parts: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Yields what belongs to each frame; there must be as much of each."""
    ended = object()
    steps = itertools.zip_longest(*parts.values(), fillvalue=ended)
    for position, step in enumerate(steps):
        short = [
            name
            for name, value in zip(parts, step, strict=True)
            if value is ended
        ]
        if short:
            raise ValueError(
                "There must be one of each of these a frame: "
                f"{', '.join(parts)}. "
                f"Received: {position} {' and '.join(short)} alone for "
                f"{video.path!r}"
            )
        yield step
