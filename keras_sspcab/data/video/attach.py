"""Gives videos the files of ground truth that belong to them, by name."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.video.folder import LabelSource, Video
from keras_sspcab.data.video.frames import is_image
from keras_sspcab.data.video.labels import (
    LABEL_EXTENSIONS,
    mat_names,
    read_interval_lists,
    read_vector,
)
from keras_sspcab.data.video.masks import holds_masks
from keras_sspcab.data.video.reading import standardize_videos, total_frames

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
        stay as they are.

    Raises:
        ValueError: If there is ground truth that belongs to no video, or for
            another number of videos or frames.
    """
    given = standardize_videos(videos)
    path = os.path.expanduser(os.fspath(path))
    if not os.path.exists(path):
        raise ValueError(
            f"The ground truth does not exist. Received: path={path!r}"
        )
    if os.path.isdir(path):
        return attach_files(given, path, sorted(os.listdir(path)))
    lower = path.lower()
    if lower.endswith(".m") or (lower.endswith(".mat") and _has_lists(path)):
        count = len(read_interval_lists(path))
        if count != len(given):
            raise ValueError(
                f"There must be intervals for each video. Received: {path!r} "
                f"for {count} videos, and {len(given)} videos"
            )
        return tuple(
            dataclasses.replace(video, labels=LabelSource(path, entry=entry))
            for entry, video in enumerate(given)
        )
    if len(given) == 1:
        return _attach(given, {given[0].name: path})
    if not lower.endswith(".npy"):
        raise ValueError(
            "One file with the labels of several videos must be .npy, .mat "
            f"with the cell `gt`, or .m. Received: path={path!r}"
        )
    labels, frames = read_vector(path).size, total_frames(given)
    if labels != frames:
        raise ValueError(
            f"There must be one label a frame. Received: {labels} labels in "
            f"{path!r} for {len(given)} videos of {frames} frames together"
        )
    return tuple(
        dataclasses.replace(
            video,
            labels=LabelSource(path, offset=total_frames(given[:position])),
        )
        for position, video in enumerate(given)
    )


def attach_files(
    videos: Sequence[Video], folder: str, names: Iterable[str]
) -> tuple[Video, ...]:
    """Adds files and folders of ground truth, one a video.

    Raises:
        ValueError: If one belongs to no video, or two of the same kind to one.
    """
    usable = [
        name
        for name in names
        if name[0] != "."
        and (
            name.lower().endswith(LABEL_EXTENSIONS)
            or os.path.isdir(os.path.join(folder, name))
        )
    ]
    pairs = match_names([video.name for video in videos], folder, usable)
    return _attach(videos, pairs)


def attach_tracks(
    videos: Sequence[Video], folder: str, names: Iterable[str]
) -> tuple[Video, ...]:
    """Adds text files of tracks, named exactly like their videos."""
    files = {name.removesuffix(".txt") for name in names}
    unmatched = files - {video.name for video in videos}
    if unmatched:
        _raise_unmatched(folder, sorted(unmatched), videos[0].name)
    return tuple(
        dataclasses.replace(v, tracks=os.path.join(folder, v.name + ".txt"))
        if v.name in files
        else v
        for v in videos
    )


def match_names(
    videos: Sequence[str], folder: str, names: Sequence[str]
) -> dict[str, str]:
    """Returns the path of the file of each video that has one.

    Names match without extension and without `_label`, `_mask` or `_gt` at the
    end, or by their number where both are numbers.
    """
    by_name = {_key(video): video for video in videos}
    pairs: dict[str, str] = {}
    unmatched = []
    for name in names:
        stem = name
        if name.lower().endswith(LABEL_EXTENSIONS):
            stem = os.path.splitext(name)[0]
        video = by_name.get(_key(stem), by_name.get(_key(_bare(stem))))
        if video is None:
            unmatched.append(name)
        elif video in pairs:
            raise ValueError(
                f"The video {video!r} has two files of ground truth. Received: "
                f"{os.path.basename(pairs[video])} and {name} in {folder!r}. "
                "Keep one."
            )
        else:
            pairs[video] = os.path.join(folder, name)
    if unmatched:
        _raise_unmatched(folder, unmatched, videos[0])
    return pairs


def _attach(
    videos: Sequence[Video], paths: Mapping[str, str]
) -> tuple[Video, ...]:
    def attach(video: Video) -> Video:
        path = paths.get(video.name)
        if path is None:
            return video
        if os.path.isdir(path):
            _require_as_many(video, path)
        if os.path.isdir(path) or holds_masks(path):
            return dataclasses.replace(video, masks=path)
        return dataclasses.replace(video, labels=LabelSource(path))

    return tuple(attach(video) for video in videos)


def _require_as_many(video: Video, folder: str) -> None:
    masks = [name for name in os.listdir(folder) if is_image(name)]
    masks = [name for name in masks if name[0] != "."]
    if video.num_frames is not None and len(masks) != video.num_frames:
        raise ValueError(
            f"There must be one mask a frame. Received: {len(masks)} masks in "
            f"{folder!r} for the {video.num_frames} frames of {video.path!r}"
        )


def _has_lists(path: str) -> bool:
    return "gt" in mat_names(path)


def _bare(stem: str) -> str:
    return _SUFFIX.sub("", stem)


def _key(name: str) -> str:
    """`01` and `1` are the same name."""
    return str(int(name)) if name.isdecimal() else name


def _raise_unmatched(folder: str, names: Sequence[str], example: str) -> None:
    raise ValueError(
        f"{len(names)} files of ground truth belong to no test video. "
        f"Received: {enumerate_names(names)} in {folder!r}. They must be named "
        f"like the videos, such as {example!r}."
    )
