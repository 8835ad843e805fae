"""Decodes every video once, before training, and reports all bad ones."""

import dataclasses
import warnings
from collections.abc import Iterable

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.checking import BadImagesError, ImageProblem
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.labels import read_labels
from keras_sspcab.data.video.masks import iterate_masks
from keras_sspcab.data.video.reading import iterate_frames, standardize_videos


class BadVideosError(BadImagesError):
    """Raised for videos that cannot be used; `problems` lists all of them."""


def check_videos(
    videos: Iterable[Video], on_error: str = "raise", progress: bool = True
) -> tuple[Video, ...]:
    """Decodes all videos and reads all ground truth, and reports what is bad.

    A video is bad if it cannot be decoded to its end, if frames are missing or
    change their size, or if its labels or masks are not one a frame, or masks
    not of the size of the frames.

    Args:
        videos: Videos from `scan_video_folder`.
        on_error: `"raise"`, or `"skip"` to go on without the bad ones and warn
            with their names.
        progress: False hides the progress bar.

    Returns:
        The good videos in their order, with `num_frames`.

    Raises:
        BadVideosError: With all bad videos and the reasons, if there are any
            and `on_error="raise"`, or if there is no good one.
        ImportError: If there are video files and PyAV is missing.
    """
    on_error = standardize_choice(on_error, ("raise", "skip"), "on_error")
    given = standardize_videos(videos)
    found = parallel_map(_check, given, "Checking videos", progress)
    problems = [item for item in found if isinstance(item, ImageProblem)]
    good = tuple(item for item in found if isinstance(item, Video))
    if problems and (on_error == "raise" or not good):
        raise BadVideosError(problems, len(given))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        warnings.warn(
            f"{len(problems)} bad videos among {len(given)}:\n{lines}\n"
            f"{len(good)} videos remain.",
            stacklevel=2,
        )
    return good


def _check(video: Video) -> Video | ImageProblem:
    try:
        count = 0
        size: tuple[int, ...] = ()
        for frame in iterate_frames(video, channels=1):
            count += 1
            size = frame.shape[:2]
        checked = dataclasses.replace(video, num_frames=count)
        if checked.labels is not None:
            read_labels(checked.labels, count)
        if checked.masks is not None:
            for mask in iterate_masks(checked):
                if mask.shape != size:
                    raise ValueError(
                        "Masks must have the size of the frames. Received: "
                        f"{mask.shape[0]}x{mask.shape[1]} pixels in "
                        f"{checked.masks!r}, frames of {size[0]}x{size[1]}"
                    )
        return checked
    except ValueError as error:
        return ImageProblem(video.path, str(error))
