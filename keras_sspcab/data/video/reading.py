"""The frames of a video, whatever it is stored as."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from keras_sspcab.data.cache import cache_path
from keras_sspcab.data.decoding import standardize_channels, standardize_size
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.video.files import (
    DEFAULT_RATE,
    brightest_value_of_file,
    count_file,
    file_rate,
    iterate_file,
)
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import (
    brightest_value,
    iterate_folder,
    list_frames,
    read_frame,
)
from keras_sspcab.preprocessing import WHITE_LEVELS, Preprocessing

# Changes when decoded pixels would: what was made of others is not used then.
_DECODING = 3


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
        Iterator of uint8 arrays `(height, width, channels)`. It raises a
        ValueError if a frame, which it names, cannot be decoded or has another
        size than the first, or there are not as many as stated.

    Example:
    >>> frames = iterate_frames(Video("street", "street.mp4"), (240, 320))
    >>> next(frames).shape  # doctest: +SKIP
    (240, 320, 3)
    """
    timed = iterate_timed_frames(video, image_size, channels)
    return (frame for _, frame in timed)


def iterate_timed_frames(
    video: Video, image_size: Any = None, channels: int = 3
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the frames of a video in order, each with its time in seconds.

    The first is shown at 0. Folders of frames have 25 a second.

    Example:
    >>> timed = iterate_timed_frames(Video("street", "street.mp4"))
    >>> [seconds for seconds, _ in timed]  # doctest: +SKIP
    [0.0, 0.04, 0.08, 0.2]
    """
    size = None if image_size is None else standardize_size(image_size)
    channels = standardize_channels(channels)
    if video.kind == "file":
        return iterate_file(
            video.path, size, channels, video.num_frames, video.preprocessing
        )
    paths = frame_paths(video)
    frames = iterate_folder(paths, size, channels, video.preprocessing)
    rate = float(DEFAULT_RATE)
    return ((number / rate, frame) for number, frame in enumerate(frames))


def read_frames(
    video: Video, positions: Iterable[int], channels: int = 3
) -> dict[int, np.ndarray]:
    """Returns some frames of a video, from 0, by position, as `iterate_frames`.

    A file is decoded up to the last one.

    Example:
    >>> frames = read_frames(video, [0, 99])  # doctest: +SKIP
    >>> frames[99].shape  # doctest: +SKIP
    (240, 320, 3)
    """
    wanted = set(positions)
    frames: dict[int, np.ndarray] = {}
    if video.kind == "frames":
        for position, path in enumerate(frame_paths(video)):
            if position in wanted:
                frames[position] = read_frame(
                    path, None, channels, preprocessing=video.preprocessing
                )
    elif wanted:
        stream = iterate_frames(video, None, channels)
        for position, frame in zip(
            range(max(wanted) + 1), stream, strict=False
        ):
            if position in wanted:
                frames[position] = frame
    if missing := sorted(wanted - set(frames)):
        raise ValueError(
            f"The video {video.path!r} has no such frames. "
            f"Received: positions {missing}"
        )
    return frames


def frame_paths(video: Video) -> list[str]:
    """Lists the files of a video that is a folder of frames."""
    paths = list_frames(video.path)
    if video.num_frames not in (None, len(paths)):
        raise ValueError(
            f"The video {video.path!r} must have {video.num_frames} frames. "
            f"Received: {len(paths)}. Have the files changed?"
        )
    return paths


def measure_white(videos: Sequence[Video]) -> Preprocessing:
    """Returns the preprocessing that fits frames, which must be readable."""

    def measure(video: Video) -> int:
        if video.kind == "file":
            return brightest_value_of_file(video.path) or 0
        paths = frame_paths(video)
        if brightest_value(paths[0]) is None:
            return 0
        return max(brightest_value(path) or 0 for path in paths)

    values = parallel_map(measure, videos, "Measuring frames")
    return Preprocessing.covering(max(values, default=0) or WHITE_LEVELS[-1])


def video_cache_path(
    folder: str,
    video: Video,
    settings: dict[str, Any],
    more_files: Iterable[str] = (),
    suffix: str = ".npy",
) -> str:
    """Returns where something made of a video is kept; see `cache_path`."""
    own = [video.path] if video.kind == "file" else frame_paths(video)
    settings = {
        **settings,
        "decoding": _DECODING,
        "white_level": video.preprocessing.white_level,
    }
    return cache_path(folder, video.name, [*own, *more_files], settings, suffix)


def count_frames(video: Video) -> int:
    """Returns how many frames a video has, without decoding it.

    Example:
    >>> count_frames(Video("street", "street.mp4", num_frames=250))
    250
    """
    if video.num_frames is not None:
        return video.num_frames
    if video.kind == "file":
        return count_file(video.path)
    return len(list_frames(video.path))


def frame_rate(video: Video) -> Fraction:
    """Returns the mean frames a second of a video: 25 where none are stated.

    The time of each frame comes from `iterate_timed_frames`.

    Example:
    >>> frame_rate(Video("street", "street/", "frames"))
    Fraction(25, 1)
    """
    return file_rate(video.path) if video.kind == "file" else DEFAULT_RATE
