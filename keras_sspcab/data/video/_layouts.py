"""How data sets of videos are laid out: one function a layout.

Each takes a `Tree` and returns the training videos, the test videos and notes.
"""

import os
import re

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.video._tree import Tree
from keras_sspcab.data.video.attach import (
    attach_files,
    attach_labels,
    attach_tracks,
)
from keras_sspcab.data.video.folder import Video

Scan = tuple[tuple[Video, ...], tuple[Video, ...], tuple[str, ...]]


def scan_ucsd(tree: Tree) -> Scan:
    """UCSD Ped1 and Ped2, as published."""
    train = tree.list_videos("Train")
    test = tree.list_videos("Test", without=("_gt",))
    masks = [name for name in tree.names("Test") if name.endswith("_gt")]
    test = _attach(tree, test, "Test", masks)
    scripts = [name for name in tree.names("Test") if name.endswith(".m")]
    notes: tuple[str, ...] = ()
    if test and len(scripts) == 1:
        test = attach_labels(test, tree.path(f"Test/{scripts[0]}"))
        notes = (f"frame labels: Test/{scripts[0]}",)
    return train, _with_tracks(tree, test, "Test"), notes


def scan_avenue(tree: Tree) -> Scan:
    """CUHK Avenue, as published; the ground truth comes in a second archive."""
    train = tree.list_videos("training_videos")
    test = tree.list_videos("testing_videos")
    masks = [f for f in tree.files if re.search(r"(^|/)\d+_label\.mat$", f)]
    folders = sorted({file.rpartition("/")[0] for file in masks})
    if len(folders) > 1:
        raise ValueError(
            "Several folders hold ground truth. Received: "
            f"root={tree.root!r} with {enumerate_names(folders)}. Keep one."
        )
    for folder in folders:
        names = [file.rpartition("/")[2] for file in masks]
        test = _attach(tree, test, folder, names)
    return train, _with_tracks(tree, test, "testing_videos"), ()


def scan_shanghaitech(tree: Tree) -> Scan:
    """ShanghaiTech Campus, and what is shared in the same form."""
    train, train_notes = _frames_or_videos(tree, "training")
    test, test_notes = _frames_or_videos(tree, "testing")
    notes = train_notes + test_notes
    for base in ("testing/", ""):
        for name in ("test_frame_mask", "test_pixel_mask", "ground_truth"):
            folder = base + name
            test = _attach(tree, test, folder, tree.names(folder))
    lists = [
        name
        for name in tree.names("")
        if re.search(r"\.mat$|label.*\.npy$", name, re.IGNORECASE)
    ]
    if test and len(lists) == 1:
        test = attach_labels(test, tree.path(lists[0]))
        notes += (f"frame labels: {lists[0]}",)
    return train, _with_tracks(tree, test, "testing"), notes


def scan_plain(tree: Tree) -> Scan:
    """Folders `train`, `test` and `ground_truth`, or normal videos only."""
    if not tree.has("train"):
        if tree.has("test") or tree.has("ground_truth"):
            return (), (), ()
        return tree.list_videos(""), (), ()
    test = tree.list_videos("test", without=("/tracks",))
    test = _attach(tree, test, "ground_truth", tree.names("ground_truth"))
    return tree.list_videos("train"), _with_tracks(tree, test, "test"), ()


def _frames_or_videos(
    tree: Tree, split: str
) -> tuple[tuple[Video, ...], tuple[str, ...]]:
    """Takes folders of frames where there are some, or else video files."""
    frames = tree.list_videos(f"{split}/frames")
    videos = tree.list_videos(f"{split}/videos")
    if frames and videos:
        note = f"left out: {split}/videos, as there are {split}/frames"
        return frames, (note,)
    return frames or videos, ()


def _attach(
    tree: Tree, videos: tuple[Video, ...], folder: str, names: list[str]
) -> tuple[Video, ...]:
    if not videos or not names:
        return videos
    return attach_files(videos, tree.path(folder), names)


def _with_tracks(
    tree: Tree, videos: tuple[Video, ...], split: str
) -> tuple[Video, ...]:
    for folder in ("tracks", f"{split}/tracks"):
        names = [n for n in tree.names(folder) if n.endswith(".txt")]
        if videos and names:
            path = os.path.join(tree.path(folder))
            videos = attach_tracks(videos, path, names)
    return videos
