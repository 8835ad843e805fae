"""Decodes every video once, before training, and reports all bad ones."""

import dataclasses
from collections.abc import Iterable

from keras_sspcab.data.checking import FileProblem, check_samples
from keras_sspcab.data.video.folder import Video, standardize_videos
from keras_sspcab.data.video.labels import read_labels
from keras_sspcab.data.video.masks import iterate_masks
from keras_sspcab.data.video.reading import iterate_frames


def check_videos(
    videos: Iterable[Video], on_error: str = "raise", progress: bool = True
) -> tuple[Video, ...]:
    """Decodes all videos and reads all ground truth, and reports what is bad.

    A video is bad if it cannot be decoded to its end, if frames are missing or
    change their size, or if its labels or masks do not fit the frames.

    Args:
        videos: Videos from `scan_video_folder`.
        on_error: `"raise"`, or `"skip"` to go on without the bad ones and warn
            with their names.
        progress: False hides the progress bar.

    Returns:
        The good videos in their order, with `num_frames`.

    Raises:
        BadFilesError: With all bad videos and the reasons, if there are any
            and `on_error="raise"`, or if there is no good one.
        ImportError: If there are video files and PyAV is missing.

    Example:
    >>> check_videos(Video("a", "nowhere", "frames"))
    Traceback (most recent call last):
    ...
    keras_sspcab.data.checking.BadFilesError: 1 bad files among 1 videos:
      nowhere: Cannot read the folder of frames 'nowhere': No such file ...
    """
    given = standardize_videos(videos)
    return check_samples(given, _check, "videos", on_error, progress)


def _check(video: Video) -> tuple[Video, list[FileProblem]]:
    try:
        count = 0
        size: tuple[int, ...] = ()
        for frame in iterate_frames(video, channels=1):
            count += 1
            size = frame.shape[:2]
        video = dataclasses.replace(video, num_frames=count)
        if video.labels is not None:
            read_labels(video.labels, count)
        if video.masks is not None:
            for mask in iterate_masks(video):
                if mask.shape != size:
                    raise ValueError(
                        "Masks must have the size of the frames. Received: "
                        f"{mask.shape[0]}x{mask.shape[1]} pixels in "
                        f"{video.masks!r}, frames of {size[0]}x{size[1]}"
                    )
    except ValueError as error:
        return video, [FileProblem(video.path, str(error))]
    return video, []
