"""The frames of a video, whatever it is stored as."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_sspcab.data.decoding import standardize_channels, standardize_size
from keras_sspcab.data.video.files import count_file, iterate_file
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import (
    iterate_folder,
    list_frames,
    read_frame,
)


def iterate_frames(
    video: Video, image_size: Any = None, channels: int = 3
) -> Iterator[np.ndarray]:
    """Yields the frames of a video in order, in constant memory.

    Args:
        video: A video from `scan_video_folder` or `make_video`.
        image_size: Height and width, in pixels; None (the default) keeps the
            video's.
        channels: 1 for gray or 3 for color. Defaults to 3.

    Returns:
        Iterator of uint8 arrays `(height, width, channels)`.

    Raises:
        ValueError: When a frame cannot be decoded or has another size than
            those before, or if there are not as many as stated. The error
            names file and frame.
        ImportError: If a video file is to be read and PyAV is missing.
    """
    size = None if image_size is None else standardize_size(image_size)
    channels = standardize_channels(channels)
    if video.kind == "file":
        return iterate_file(video.path, size, channels, video.num_frames)
    return iterate_folder(frame_paths(video), size, channels)


def read_frames(
    video: Video, positions: Iterable[int], channels: int = 3
) -> dict[int, np.ndarray]:
    """Returns some frames of a video; a file is decoded up to the last one.

    Args:
        video: A video.
        positions: Positions of the frames, from 0.
        channels: 1 for gray or 3 for color. Defaults to 3.

    Returns:
        uint8 arrays `(height, width, channels)` by position.

    Raises:
        ValueError: If a frame cannot be decoded or does not exist.
    """
    wanted = set(positions)
    found: dict[int, np.ndarray] = {}
    if video.kind == "frames":
        paths = frame_paths(video)
        for position in sorted(wanted.intersection(range(len(paths)))):
            found[position] = read_frame(paths[position], None, channels)
    elif wanted:
        frames = iterate_frames(video, channels=channels)
        for position, frame in zip(
            range(max(wanted) + 1), frames, strict=False
        ):
            if position in wanted:
                found[position] = frame
    if missing := sorted(wanted - set(found)):
        raise ValueError(
            f"The video {video.path!r} has no such frames. "
            f"Received: positions {missing}"
        )
    return found


def frame_paths(video: Video) -> list[str]:
    """Lists the files of a video that is a folder of frames.

    Raises:
        ValueError: If frames are missing, or their number is not that of the
            video.
    """
    paths = list_frames(video.path)
    if video.num_frames not in (None, len(paths)):
        raise ValueError(
            f"The video {video.path!r} must have {video.num_frames} frames. "
            f"Received: {len(paths)}. Have the files changed?"
        )
    return paths


def count_frames(video: Video) -> int:
    """Returns how many frames a video has, without decoding it.

    Raises:
        ValueError: If the video cannot be read.
    """
    if video.num_frames is not None:
        return video.num_frames
    if video.kind == "file":
        return count_file(video.path)
    return len(list_frames(video.path))


def standardize_videos(videos: Any) -> tuple[Video, ...]:
    """Returns a tuple of at least one video, or raises a ValueError."""
    given = (videos,) if isinstance(videos, Video) else tuple(videos)
    wrong = [video for video in given if not isinstance(video, Video)]
    if wrong or not given:
        raise ValueError(
            "The `videos` argument must hold at least one `Video`, as "
            "`scan_video_folder` and `make_video` give. Received: "
            + (repr(wrong[0]) if wrong else "videos with no entry")
        )
    return given


def total_frames(videos: Iterable[Video]) -> int:
    """Returns how many frames the videos have together."""
    return sum(count_frames(video) for video in videos)
