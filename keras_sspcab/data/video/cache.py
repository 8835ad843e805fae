"""What is computed for each frame of a video, kept on disk.

Going to a frame within a compressed video means decoding all since the last
key frame. Clips in random order are therefore cut from arrays.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_sspcab.data.cache import (
    cache_path,
    open_array,
    standardize_cache_folder,
    write_array,
)
from keras_sspcab.data.decoding import standardize_channels, standardize_size
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.video.folder import Video, standardize_videos
from keras_sspcab.data.video.reading import frame_paths, iterate_frames

# Changes when the pixels would: older files are not used then.
_VERSION = 1


def cached_frames(
    videos: Iterable[Video],
    image_size: Any,
    channels: int,
    cache: Any,
    progress: bool = True,
) -> list[np.ndarray]:
    """Decodes each video once into an array on disk, unless that is done.

    Each video is a `.npy` file in the folder `cache`, of `frames * height *
    width * channels` bytes. If the video's files, the size or the channels
    change, another file is written; delete the folder to free the space.

    Returns:
        Read-only uint8 arrays `(frames, height, width, channels)`, mapped from
        the files: only what is used is read.
    """
    size = standardize_size(image_size)
    channels = standardize_channels(channels)
    folder = standardize_cache_folder(cache)
    settings = {"frames": [*size, channels], "version": _VERSION}

    def load(video: Video) -> np.ndarray:
        path = video_cache_path(folder, video, settings)
        frames = open_array(path)
        if frames is None or video.num_frames not in (None, len(frames)):
            decoded = iterate_frames(video, size, channels)
            frames = write_array(path, decoded, "uint8")
        return frames

    given = standardize_videos(videos)
    return parallel_map(load, given, "Decoding videos", progress)


def video_cache_path(
    folder: str,
    video: Video,
    settings: dict[str, Any],
    more_files: Iterable[str] = (),
    suffix: str = ".npy",
) -> str:
    """Returns where something made of a video is kept; see `cache_path`."""
    own = [video.path] if video.kind == "file" else frame_paths(video)
    return cache_path(folder, video.name, [*own, *more_files], settings, suffix)
