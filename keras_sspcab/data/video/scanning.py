"""Finds the videos below a folder, with their ground truth."""

import collections
import os
import re
from collections.abc import Callable
from typing import Any

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.file_system import (
    count_extensions,
    describe_folder,
    enumerate_names,
    join,
    list_files,
    require_case,
    require_folder,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS, find_defective
from keras_sspcab.data.video.files import VIDEO_EXTENSIONS
from keras_sspcab.data.video.folder import Video, VideoFolder
from keras_sspcab.data.video.frames import list_frames, natural_key
from keras_sspcab.data.video.ground_truth import (
    attach_files,
    attach_labels,
    attach_tracks,
)
from keras_sspcab.data.video.labels import LABEL_EXTENSIONS

_OF_VIDEOS = (*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS)

# Of files that are no videos but may belong to some.
_KNOWN_EXTENSIONS = (*IMAGE_EXTENSIONS, *LABEL_EXTENSIONS)

_Videos = tuple[Video, ...]
# Train videos, test videos, notes.
_Scan = tuple[_Videos, _Videos, tuple[str, ...]]


def scan_video_folder(
    root: Any, layout: str = "auto", require_train: bool = True
) -> VideoFolder:
    """Lists the videos below a folder, in a fixed order, with ground truth.

    A video is a folder of frames (images, numbered or named in order) or a
    video file; pictures beside video files of the same name are left out. Four
    layouts are known; of all, only normal videos to train on are needed:

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
      `ground_truth/NAME.*` (labels or masks) or `ground_truth/NAME/`, in the
      same sub-folders as the videos. Without a `train` folder every video below
      the root is normal.

    In any layout a folder `tracks` (at the top or in the folder of test videos)
    may hold boxes of anomalies, `NAME.txt`, with `%2F` for each `/` of a name.
    Test videos without ground truth are kept; the summary names them. The
    videos are not decoded: see `check_videos`.

    Args:
        root: Local folder.
        layout: One of the above or `"auto"`, which goes by the names of the
            folders at the top, and says so in the notes.
        require_train: Whether a folder of test videos alone is an error.

    Returns:
        A `VideoFolder`; videos are sorted by name, numbers by value.

    Raises:
        ValueError: If there are no videos, the layout is another one, frames or
            masks are missing, a folder holds videos and other pictures, or
            ground truth belongs to no video.

    Example:
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     open(os.path.join(root, "street.mp4"), "wb").close()
    ...     [video.name for video in scan_video_folder(root).train]
    ['street']
    """
    layout = standardize_choice(layout, ("auto", *_LAYOUTS), "layout")
    root = standardize_path(root)
    if scheme_of(root):
        raise ValueError(
            f"Videos must be on a local disk. Received: root={root!r}"
        )
    require_folder(root, "video")
    tree = _Tree(root)
    notes: tuple[str, ...] = ()
    if layout == "auto":
        layout, reason = _detect_layout(tree)
        notes = (f"layout: {layout}, because {reason}",)
    scan, marks, example = _LAYOUTS[layout]
    require_case(root, tree.files, (*marks, "ground_truth"))
    train_folder, test_folder = marks
    train, test, more = scan(tree)
    for folder in ("tracks", f"{test_folder}/tracks"):
        names = [file for file in tree.below(folder) if file.endswith(".txt")]
        if test and names:
            test = attach_tracks(test, tree.path(folder), names)
    has_train = bool(tree.below(train_folder))
    if not train and (require_train or has_train or not test):
        raise ValueError(
            f"There is no training video. Received: root={root!r}, which holds "
            f"{describe_folder(root)}. The layout {layout!r} is {example}. "
            f"Extensions of frames: {' '.join(IMAGE_EXTENSIONS)}; of videos: "
            f"{' '.join(VIDEO_EXTENSIONS)}"
        )
    notes = (*notes, *more, *tree.notes)
    if tree.others:
        notes += (f"left out, no videos: {count_extensions(tree.others)}",)
    return VideoFolder(root, layout, train=train, test=test, notes=notes)


class _Tree:
    """The files below a folder, hidden ones left out."""

    def __init__(self, root: str) -> None:
        self.root = root
        # Relative paths with forward slashes.
        self.files = list_files(root)
        # What each folder holds; the root is an empty text.
        self._images: dict[str, list[str]] = collections.defaultdict(list)
        self._videos: dict[str, list[str]] = collections.defaultdict(list)
        for file in self.files:
            place = file.rpartition("/")[0]
            if file.lower().endswith(IMAGE_EXTENSIONS):
                self._images[place].append(file)
            elif file.lower().endswith(VIDEO_EXTENSIONS):
                self._videos[place].append(file)
        # Remarks on what was listed, and files that are of no known kind.
        self.notes: list[str] = []
        self.others: list[str] = []

    def path(self, relative: str) -> str:
        return join(self.root, relative)

    def below(self, folder: str) -> list[str]:
        """Lists the files in a folder, at any depth, relative to it."""
        inside = f"{folder}/" if folder else ""
        return [f[len(inside) :] for f in self.files if f.startswith(inside)]

    def names(self, folder: str) -> list[str]:
        """Lists the files and folders in a folder that hold anything."""
        return sorted({file.split("/", 1)[0] for file in self.below(folder)})

    def list_videos(
        self, folder: str, without: tuple[str, ...] = ()
    ) -> _Videos:
        """Makes videos of all folders of frames and video files in a folder.

        It is one video if it holds images itself. Folders whose names end in
        one of `without` are none. Names are paths within it, in natural order.
        """
        inside = f"{folder}/" if folder else ""
        by_name: dict[str, list[Video]] = collections.defaultdict(list)
        for place, images in self._images.items():
            if not f"{place}/".startswith(inside) or place.endswith(without):
                continue
            if place in self._videos:
                self._leave_out(images, self._videos[place])
                continue
            path = self.path(place)
            name = place[len(inside) :]
            name = name or os.path.basename(os.path.abspath(path))
            # Raises if frames are missing.
            list_frames(path)
            by_name[name].append(Video(name, path, "frames", len(images)))
        for file in self.files:
            if not file.startswith(inside):
                continue
            if file.lower().endswith(VIDEO_EXTENSIONS):
                name = os.path.splitext(file[len(inside) :])[0]
                by_name[name].append(Video(name, self.path(file), "file"))
            elif not file.lower().endswith(_KNOWN_EXTENSIONS):
                self.others.append(file)
        for name, videos in by_name.items():
            if len(videos) > 1:
                raise ValueError(
                    "Two videos have the same name. Received: "
                    f"{enumerate_names(v.path for v in videos)}. Keep one, or "
                    f"rename one of {name!r}."
                )
        return tuple(
            by_name[name][0] for name in sorted(by_name, key=natural_key)
        )

    def _leave_out(self, images: list[str], videos: list[str]) -> None:
        """Leaves out pictures that have the name of a video beside them.

        Cameras and programs write such pictures. Others may be frames, so that
        they are an error.
        """
        of_videos = {*videos, *(os.path.splitext(v)[0] for v in videos)}
        loose = [i for i in images if os.path.splitext(i)[0] not in of_videos]
        if loose:
            folder = self.path(loose[0].rpartition("/")[0])
            raise ValueError(
                "A folder must hold the frames of one video, or video files, "
                f"not both. Received: {folder!r} with {enumerate_names(loose)} "
                f"and {enumerate_names(videos)}. Move the frames into a folder "
                "of their own, or other pictures elsewhere"
            )
        self.notes.append(
            f"left out: {len(images)} pictures beside videos of the same name, "
            f"such as {images[0]}"
        )

    def attach(
        self, videos: _Videos, folder: str, names: list[str] | None = None
    ) -> _Videos:
        """Adds the ground truth in a folder, or some of it, to videos."""
        names = self.names(folder) if names is None else names
        if not videos or not names:
            return videos
        return attach_files(videos, self.path(folder), names)

    def attach_list(
        self, videos: _Videos, folder: str, pattern: str
    ) -> tuple[_Videos, tuple[str, ...]]:
        """Adds the labels of all videos from the only file of some name."""
        names = [n for n in self.names(folder) if re.search(pattern, n, re.I)]
        if not videos or not names:
            return videos, ()
        if len(names) > 1:
            raise ValueError(
                "Several files hold frame labels. Received: "
                f"{enumerate_names(names)} in {self.path(folder)!r}. Keep one."
            )
        file = f"{folder}/{names[0]}" if folder else names[0]
        note = f"frame labels: {file}"
        return attach_labels(videos, self.path(file)), (note,)


def _scan_ucsd(tree: _Tree) -> _Scan:
    """Lists UCSD Ped1 or Ped2, as published."""
    test = tree.list_videos("Test", without=("_gt",))
    masks = [name for name in tree.names("Test") if name.endswith("_gt")]
    test = tree.attach(test, "Test", masks)
    test, notes = tree.attach_list(test, "Test", r"\.m$")
    return tree.list_videos("Train"), test, notes


def _scan_avenue(tree: _Tree) -> _Scan:
    """Lists CUHK Avenue, whose ground truth comes in a second archive."""
    test = tree.list_videos("testing_videos")
    masks = [f for f in tree.files if re.search(r"(^|/)\d+_label\.mat$", f)]
    folders = sorted({file.rpartition("/")[0] for file in masks})
    if len(folders) > 1:
        raise ValueError(
            "Several folders hold ground truth. Received: "
            f"root={tree.root!r} with {enumerate_names(folders)}. Keep one."
        )
    for folder in folders:
        test = tree.attach(test, folder, list(map(os.path.basename, masks)))
    return tree.list_videos("training_videos"), test, ()


def _scan_shanghaitech(tree: _Tree) -> _Scan:
    """Lists ShanghaiTech Campus, and what is shared in the same form."""
    notes: tuple[str, ...] = ()
    splits = []
    for split in ("training", "testing"):
        frames = tree.list_videos(f"{split}/frames")
        videos = tree.list_videos(f"{split}/videos")
        if frames and videos:
            note = f"left out: {split}/videos, as there are {split}/frames"
            notes = (*notes, note)
        splits.append(frames or videos)
    train, test = splits
    for base in ("testing/", ""):
        for name in ("test_frame_mask", "test_pixel_mask", "ground_truth"):
            test = tree.attach(test, base + name)
    test, more = tree.attach_list(test, "", r"\.mat$|label.*\.npy$")
    return train, test, notes + more


def _scan_plain(tree: _Tree) -> _Scan:
    """Lists `train`, `test` and `ground_truth`, or normal videos only."""
    folders = [
        name
        for name in ("train", "test", "ground_truth")
        if os.path.isdir(tree.path(name))
    ]
    if not folders:
        return tree.list_videos(""), (), ()
    test = tree.list_videos("test", without=("/tracks",))
    return tree.list_videos("train"), tree.attach(test, "ground_truth"), ()


# By name: what lists it, the folders of normal and of test videos, an example.
_LAYOUTS: dict[str, tuple[Callable[[_Tree], _Scan], tuple[str, str], str]] = {
    "ucsd": (
        _scan_ucsd,
        ("Train", "Test"),
        "Train/TrainNNN/*.tif, Test/TestNNN/*.tif and Test/TestNNN_gt/*",
    ),
    "avenue": (
        _scan_avenue,
        ("training_videos", "testing_videos"),
        "training_videos/*.avi, testing_videos/*.avi and "
        "testing_label_mask/*_label.mat",
    ),
    "shanghaitech": (
        _scan_shanghaitech,
        ("training", "testing"),
        "training/videos/*.avi or training/frames/NAME/*.jpg, "
        "testing/frames/NAME/*.jpg, testing/test_frame_mask/NAME.npy and "
        "testing/test_pixel_mask/NAME.npy",
    ),
    "plain": (
        _scan_plain,
        ("train", "test"),
        "train/NAME/*.jpg or train/NAME.mp4, test/ alike and "
        "ground_truth/NAME.* or ground_truth/NAME/*; or normal videos only",
    ),
}


def _detect_layout(tree: _Tree) -> tuple[str, str]:
    for layout, (_, marks, _) in _LAYOUTS.items():
        for mark in marks:
            # Others have a folder `Train` as well.
            pattern = rf"{mark}\d+" if layout == "ucsd" else ".*"
            if any(re.fullmatch(pattern, name) for name in tree.names(mark)):
                return layout, f"there is a folder {mark}"
    known = {m.lower() for _, marks, _ in _LAYOUTS.values() for m in marks}
    require_case(tree.root, tree.files, known)
    parts = [file.split("/") for file in tree.files]
    inner = sorted(
        {p[0] for p in parts if len(p) > 2 and p[1].lower() in known}
    )
    if inner:
        # As normal videos, abnormal ones would spoil the training.
        raise ValueError(
            f"The data set lies one folder deeper. Received: root={tree.root!r}"
            f". Choose one of: {enumerate_names(inner)}. To train on every "
            'video below it, say layout="plain".'
        )
    if telling := find_defective(
        f for f in tree.files if f.lower().endswith(_OF_VIDEOS)
    ):
        raise ValueError(
            "The names of the folders say that not all videos are normal. "
            f"Received: root={tree.root!r} with {enumerate_names(telling)}. "
            "Put normal videos into train, and others to test with into test. "
            "If all are normal, rename the folders, or train with "
            'layout="plain".'
        )
    return "plain", "there is no train folder: every video counts as normal"
