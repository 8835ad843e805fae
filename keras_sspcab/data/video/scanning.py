"""Finds the videos below a folder, with their ground truth."""

import re
from collections.abc import Callable
from typing import Any

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.file_system import (
    describe_folder,
    enumerate_names,
    require_folder,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.data.video._layouts import (
    scan_avenue,
    scan_plain,
    scan_shanghaitech,
    scan_ucsd,
)
from keras_sspcab.data.video._tree import Tree
from keras_sspcab.data.video.files import VIDEO_EXTENSIONS
from keras_sspcab.data.video.folder import Video, VideoFolder

# Train videos, test videos, notes.
_Scan = Callable[
    [Tree], tuple[tuple[Video, ...], tuple[Video, ...], tuple[str, ...]]
]

_SCANS: dict[str, _Scan] = {
    "ucsd": scan_ucsd,
    "avenue": scan_avenue,
    "shanghaitech": scan_shanghaitech,
    "plain": scan_plain,
}

LAYOUTS = ("auto", *_SCANS)

#: What each layout looks like, for messages.
TREES = {
    "ucsd": "Train/TrainNNN/*.tif, Test/TestNNN/*.tif and Test/TestNNN_gt/*",
    "avenue": "training_videos/*.avi, testing_videos/*.avi and "
    "testing_label_mask/*_label.mat",
    "shanghaitech": "training/videos/*.avi or training/frames/NAME/*.jpg, "
    "testing/frames/NAME/*.jpg, testing/test_frame_mask/NAME.npy and "
    "testing/test_pixel_mask/NAME.npy",
    "plain": "train/NAME/*.jpg or train/NAME.mp4, test/ alike and "
    "ground_truth/NAME.* or ground_truth/NAME/*; or normal videos only",
}

# Folders at the top that give a layout away.
_MARKS = {
    "ucsd": ("Train", "Test"),
    "avenue": ("training_videos", "testing_videos"),
    "shanghaitech": ("training", "testing"),
    "plain": ("train", "test"),
}


def scan_video_folder(root: Any, layout: str = "auto") -> VideoFolder:
    """Lists the videos below a folder, in a fixed order, with ground truth.

    A video is a folder of frames (images, numbered or named in order) or a
    video file. Four layouts are known; of all, only normal videos to train on
    are needed:

    - `"ucsd"`: UCSD Ped1 and Ped2 as they are published: `Train/Train001`,
      `Test/Test001`, masks in `Test/Test001_gt`, intervals of abnormal frames
      in `Test/*.m`.
    - `"avenue"`: CUHK Avenue as it is published: `training_videos/01.avi`,
      `testing_videos/01.avi`, and masks `1_label.mat` at any depth.
    - `"shanghaitech"`: ShanghaiTech Campus, and other data sets in the form
      that works on frame prediction share: `training/videos` or
      `training/frames`, `testing/frames` or `testing/videos`; ground truth in
      `testing` or beside it: `test_frame_mask/NAME.npy` (labels),
      `test_pixel_mask/NAME.npy` (masks) or `ground_truth/NAME/` (images of
      masks), or a file `*.mat` or `*label*.npy` at the top with the labels of
      all test videos.
    - `"plain"`: videos in `train` and, optionally, in `test`, with
      `ground_truth/NAME.*` (labels or masks) or `ground_truth/NAME/`. Without a
      `train` folder every video below the root is normal.

    In any layout a folder `tracks` (at the top or in the folder of test videos)
    may hold boxes of anomalies, `NAME.txt`. Test videos without ground truth
    are kept; the summary names them. The videos are not decoded: see
    `check_videos`.

    Args:
        root: Local folder.
        layout: One of the above or `"auto"`, which goes by the names of the
            folders at the top, and says so in the notes.

    Returns:
        A `VideoFolder`; videos are sorted by name, numbers by value.

    Raises:
        ValueError: If the folder does not exist, holds no videos, or does not
            follow the layout; if frames or masks are missing; or if ground
            truth belongs to no video.
    """
    layout = standardize_choice(layout, LAYOUTS, "layout")
    root = standardize_path(root)
    if scheme_of(root):
        raise ValueError(
            f"Videos must be on a local disk. Received: root={root!r}"
        )
    require_folder(root, "video")
    tree = Tree(root)
    notes: tuple[str, ...] = ()
    if layout == "auto":
        layout, reason = _detect_layout(tree)
        notes = (f"layout: {layout}, because {reason}",)
    train, test, more = _SCANS[layout](tree)
    if not train:
        raise ValueError(
            f"There is no training video. Received: root={root!r}, which holds "
            f"{describe_folder(root)}. The layout {layout!r} is "
            f"{TREES[layout]}. Extensions of frames: "
            f"{' '.join(IMAGE_EXTENSIONS)}; of videos: "
            f"{' '.join(VIDEO_EXTENSIONS)}"
        )
    return VideoFolder(
        root, layout, train=train, test=test, notes=(*notes, *more)
    )


def _detect_layout(tree: Tree) -> tuple[str, str]:
    for layout, marks in _MARKS.items():
        for mark in marks:
            if tree.has(mark) and _fits(layout, tree, mark):
                return layout, f"there is a folder {mark}"
    marks_of_all = {mark for marks in _MARKS.values() for mark in marks}
    inner = sorted(
        {
            file.split("/", 1)[0]
            for file in tree.files
            if file.count("/") > 1 and file.split("/")[1] in marks_of_all
        }
    )
    if inner:
        # As normal videos, abnormal ones would spoil the training.
        raise ValueError(
            f"The data set lies one folder deeper. Received: root={tree.root!r}"
            f". Choose one of: {enumerate_names(inner)}. To train on every "
            'video below it, say layout="plain".'
        )
    return "plain", "there is no train folder: every video counts as normal"


def _fits(layout: str, tree: Tree, mark: str) -> bool:
    """Tells `Train/Train001` from other folders called `Train`."""
    if layout != "ucsd":
        # File systems that ignore case take `Train` for `train`.
        return any(file.startswith(f"{mark}/") for file in tree.files)
    return any(re.fullmatch(rf"{mark}\d+", n) for n in tree.names(mark))
