"""Decoded frames on disk, so that any clip is at hand at once.

Going to a frame within a compressed video means decoding all since the last
key frame. Clips in random order are therefore cut from arrays.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.cache import standardize_cache_folder
from keras_sspcab.data.decoding import standardize_channels, standardize_size
from keras_sspcab.data.video._storage import (
    cache_path,
    open_array,
    write_frames,
)
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import (
    count_frames,
    iterate_frames,
    standardize_videos,
)

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

    Each video is a `.npy` file of `frames * height * width * channels` bytes. A
    file appears only when it is complete. It is made anew if the video's files,
    the size or the channels have changed; delete the folder to free the space.

    Args:
        videos: The videos.
        image_size: Height and width, in pixels.
        channels: 1 for gray or 3 for color.
        cache: A local folder, made where it is missing.
        progress: False hides the progress bar.

    Returns:
        Read-only uint8 arrays `(frames, height, width, channels)`, mapped from
        the files: only what is used is read.

    Raises:
        ValueError: If a video cannot be decoded; see `iterate_frames`.
    """
    size = standardize_size(image_size)
    channels = standardize_channels(channels)
    folder = standardize_cache_folder(cache)
    settings = {"frames": [*size, channels], "version": _VERSION}

    def load(video: Video) -> np.ndarray:
        path = cache_path(folder, video, settings)
        frames = open_array(path)
        if frames is None or len(frames) != (video.num_frames or len(frames)):
            decoded = iterate_frames(video, size, channels)
            frames = write_frames(path, decoded, "|u1")
        return frames

    given = standardize_videos(videos)
    return parallel_map(load, given, "Decoding videos", progress)


def cache_bytes(videos: Iterable[Video], image_size: Any, channels: int) -> int:
    """Returns how much space `cached_frames` takes on disk, in bytes."""
    height, width = standardize_size(image_size)
    return height * width * channels * sum(map(count_frames, videos))
