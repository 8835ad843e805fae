"""Flows on disk, so that each is computed only once."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.cache import standardize_cache_folder
from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.flow.optical_flow import FlowSource
from keras_sspcab.data.video._storage import (
    cache_path,
    open_array,
    write_frames,
)
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import standardize_videos

# Changes when the flows would: older files are not used then.
_VERSION = 1

_LARGEST = float(np.finfo("float16").max)


def cached_flows(
    videos: Iterable[Video],
    flow: FlowSource,
    cache: Any,
    image_size: Any = None,
    progress: bool = True,
) -> list[np.ndarray]:
    """Computes the flows of each video into an array on disk, unless done.

    Each video is a `.npy` file of 4 bytes a pixel and frame. Half precision
    keeps a flow of 10 pixels to 1/256 pixel. A file appears only when it is
    complete. It is made anew if the video's files, those with flows, the size
    or the settings of `flow` have changed.

    Args:
        videos: The videos.
        flow: `DISFlow()`, `FlowFiles(...)` or an `OpticalFlow` of your own.
        cache: A local folder, made where it is missing.
        image_size: Height and width of the flows, in pixels, which are their
            unit as well; None (the default) for those of the frames.
        progress: False hides the progress bar.

    Returns:
        Read-only float16 arrays `(frames, height, width, 2)`, mapped from the
        files: only what is used is read. At each frame, the flow from the frame
        before.

    Raises:
        ValueError: If a video or a flow cannot be read.
    """
    size = None if image_size is None else standardize_size(image_size)
    folder = standardize_cache_folder(cache)

    def load(video: Video) -> np.ndarray:
        settings = {
            "flow": flow.settings,
            "size": size,
            "version": _VERSION,
        }
        path = cache_path(folder, video, settings, flow.files(video))
        flows = open_array(path)
        if flows is None:
            computed = _bounded(flow.iterate(video, size))
            flows = write_frames(path, computed, "<f2")
        return flows

    given = standardize_videos(videos)
    return parallel_map(load, given, "Computing flows", progress)


def _bounded(flows: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for flow in flows:
        yield np.clip(flow, -_LARGEST, _LARGEST)
