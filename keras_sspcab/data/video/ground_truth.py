"""Finds the ground truth of videos by name, and checks that it fits them."""

import dataclasses
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from keras_sspcab.data.checking import FileProblem, check_samples
from keras_sspcab.data.file_system import (
    describe_folder,
    enumerate_names,
    list_files,
)
from keras_sspcab.data.masks import find_doubt
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.data.video.folder import (
    LabelSource,
    Video,
    standardize_videos,
)
from keras_sspcab.data.video.frames import list_by_name
from keras_sspcab.data.video.labels import (
    LABEL_EXTENSIONS,
    read_interval_lists,
    read_labels,
    read_vector,
)
from keras_sspcab.data.video.masks import has_masks, iterate_masks
from keras_sspcab.data.video.mat_files import mat_names
from keras_sspcab.data.video.per_frame import require_one_a_frame
from keras_sspcab.data.video.reading import count_frames, iterate_frames

_SUFFIX = re.compile(r"[_-]?(labels?|masks?|gt)$", re.IGNORECASE)


def attach_labels(videos: Iterable[Video], path: str) -> tuple[Video, ...]:
    """Adds ground truth from a file or a folder to videos.

    Args:
        videos: The test videos, in the order of the ground truth.
        path: One of:

            - a folder with a file (labels, see `frame_labels`, or masks) or a
              folder of masks for each video, of the same name, or with the
              same number as in `1_label.mat`;
            - a `.mat` file with the cell `gt` of intervals, as Liu et al.
              publish it, or a `.m` file of UCSD;
            - an `.npy` file with the labels of all frames of all videos, one
              video after the other, as MNAD publishes it;
            - for a single video, a file with its labels.

    Returns:
        The videos with `labels` or `masks`. In a folder, those without a file
        stay as they are; ground truth of no video is an error.

    Example:
    >>> import os, tempfile
    >>> video = Video("01", "01.mp4", num_frames=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(os.path.join(folder, "01.npy"), [0, 0, 1, 1])
    ...     attach_labels(video, folder)[0].has_ground_truth
    True
    """
    given = standardize_videos(videos)
    path = os.path.expanduser(os.fspath(path))
    if not os.path.exists(path):
        raise ValueError(
            f"The ground truth does not exist. Received: path={path!r}"
        )
    if os.path.isdir(path):
        attached = attach_files(given, path, sorted(os.listdir(path)))
        if given and attached == given:
            raise ValueError(
                "The folder holds no ground truth that can be read. Received: "
                f"path={path!r} with {describe_folder(path)}. It takes "
                f"folders, and files with {', '.join(LABEL_EXTENSIONS)}"
            )
        return attached
    extension = os.path.splitext(path)[1].lower()
    if extension == ".m" or (extension == ".mat" and "gt" in mat_names(path)):
        count = len(read_interval_lists(path))
        if count != len(given):
            raise ValueError(
                f"There must be intervals for each video. Received: {path!r} "
                f"for {count} videos, and {len(given)} videos"
            )
        sources = [LabelSource(path, entry=entry) for entry in range(count)]
    elif len(given) == 1:
        return (_attach(given[0], path),)
    elif extension == ".npy":
        labels = read_vector(path).size
        *offsets, frames = np.cumsum([0, *map(count_frames, given)]).tolist()
        if labels != frames:
            raise ValueError(
                f"There must be one label a frame. Received: {labels} labels "
                f"in {path!r} for {len(given)} videos of {frames} frames"
            )
        sources = [LabelSource(path, offset=offset) for offset in offsets]
    else:
        raise ValueError(
            "One file with the labels of several videos must be .npy, .mat "
            f"with the cell `gt`, or .m. Received: path={path!r}"
        )
    return tuple(
        dataclasses.replace(video, labels=source)
        for video, source in zip(given, sources, strict=True)
    )


def attach_files(
    videos: Sequence[Video], folder: str, names: Iterable[str]
) -> tuple[Video, ...]:
    """Adds files and folders of ground truth, one a video.

    Names match without extension and without `_label`, `_mask` or `_gt` at the
    end, or by their number where both are numbers. Videos in sub-folders have
    theirs in the same ones.
    """
    by_name = {_key(video.name): video.name for video in videos}
    # Two names may be one number.
    by_name |= {video.name: video.name for video in videos}
    above = {str(p) for v in videos for p in PurePosixPath(v.name).parents}
    paths: dict[str, str] = {}
    unmatched = []
    for name in _look_into(folder, names, above - by_name.keys()):
        path = os.path.join(folder, name)
        is_file = name.lower().endswith(LABEL_EXTENSIONS)
        if name[0] == "." or not (is_file or os.path.isdir(path)):
            continue
        stem = os.path.splitext(name)[0] if is_file else name
        bare = _SUFFIX.sub("", stem)
        tried = stem, _key(stem), bare, _key(bare)
        video = next((by_name[key] for key in tried if key in by_name), None)
        if video is None:
            unmatched.append(name)
        elif video in paths:
            raise ValueError(
                f"The video {video!r} has two files of ground truth. Received: "
                f"{os.path.basename(paths[video])} and {name} in {folder!r}. "
                "Keep one."
            )
        else:
            paths[video] = path
    _require_matches(unmatched, folder, videos)
    return tuple(_attach(video, paths.get(video.name)) for video in videos)


def _look_into(
    folder: str, names: Iterable[str], above: set[str]
) -> Iterator[str]:
    """Yields names, but of folders that hold videos those inside them.

    `above` are the names of these folders.
    """
    for name in names:
        path = os.path.join(folder, name)
        if name in above and os.path.isdir(path):
            inner = {file.split("/", 1)[0] for file in list_files(path)}
            below = (f"{name}/{each}" for each in sorted(inner))
            yield from _look_into(folder, below, above)
        else:
            yield name


def attach_tracks(
    videos: Sequence[Video], folder: str, names: Sequence[str]
) -> tuple[Video, ...]:
    """Adds text files of tracks, named exactly like their videos.

    `%2F` in their names stands for `/`.
    """
    if nested := [name for name in names if "/" in name]:
        raise ValueError(
            "Files of tracks must lie side by side, with %2F for each / in the "
            f"name of a video. Received: {enumerate_names(nested)} in "
            f"{folder!r}. Move and rename them, such as "
            f"{nested[0].replace('/', '%2F')}."
        )
    # As `keras_sspcab.metrics.write_tracks` names them.
    paths = {
        name.removesuffix(".txt").replace("%2F", "/"): os.path.join(
            folder, name
        )
        for name in names
    }
    unmatched = sorted(paths.keys() - {video.name for video in videos})
    _require_matches(unmatched, folder, videos)
    return tuple(
        dataclasses.replace(video, tracks=paths.get(video.name, video.tracks))
        for video in videos
    )


def _attach(video: Video, path: str | None) -> Video:
    if path is None:
        return video
    is_folder = os.path.isdir(path)
    if is_folder and video.num_frames is not None:
        masks = list_by_name(path, IMAGE_EXTENSIONS)
        require_one_a_frame(len(masks), video, "mask", path)
    if is_folder or has_masks(path):
        return dataclasses.replace(video, masks=path)
    return dataclasses.replace(video, labels=LabelSource(path))


def _key(name: str) -> str:
    """Returns the same for `01` and `1`, also in a folder."""
    place, slash, last = name.rpartition("/")
    return f"{place}{slash}{int(last)}" if last.isdecimal() else name


def _require_matches(
    unmatched: Sequence[str], folder: str, videos: Sequence[Video]
) -> None:
    if unmatched:
        raise ValueError(
            f"{len(unmatched)} files of ground truth belong to no test video. "
            f"Received: {enumerate_names(unmatched)} in {folder!r}. They must "
            f"be named like the videos, such as {videos[0].name!r}."
        )


# === Checks ===


def check_videos(
    videos: Iterable[Video], on_error: str = "raise"
) -> tuple[Video, ...]:
    """Decodes all videos and reads all ground truth, and reports what is bad.

    A video is bad if it cannot be decoded to its end, if frames are missing or
    change their size, or if its labels or masks do not fit the frames. A
    warning tells of videos whose masks mark most of their frames.

    Args:
        videos: Videos from `scan_video_folder`.
        on_error: `"raise"` a `BadFilesError` that lists all bad videos, or
            `"skip"` them with a warning, unless nothing would be left.

    Returns:
        The good videos in their order, with `num_frames`.

    Example:
    >>> check_videos(Video("a", "nowhere", "frames"))
    Traceback (most recent call last):
    ...
    keras_sspcab.data.checking.BadFilesError: 1 bad files among 1 videos:
      nowhere: Cannot read the folder of frames 'nowhere': No such file ...
    """
    given = standardize_videos(videos)
    are_full: dict[Video, bool] = {}

    def check(video: Video) -> tuple[Video, list[FileProblem]]:
        checked, problems, are_full[checked] = _check(video)
        return checked, problems

    good = check_samples(given, check, "videos", on_error)
    if full := [str(video.masks) for video in good if are_full[video]]:
        warnings.warn(
            f"Masks of {len(full)} videos mark most of their frames: "
            f"{enumerate_names(full)}. What is above 0 counts as abnormal; the "
            "background must be black",
            stacklevel=2,
        )
    return good


def _check(video: Video) -> tuple[Video, list[FileProblem], bool]:
    """Returns it with its length, its faults, and whether masks are doubtful.

    That is, if most masks that mark anything mark most of their frame.
    """
    num_marked = num_full = 0
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
                num_marked += bool(mask.any())
                num_full += find_doubt(mask, 1) == "full"
    except ValueError as error:
        return video, [FileProblem(video.path, str(error))], False
    return video, [], 2 * num_full > num_marked
