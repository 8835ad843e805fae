"""The data classes that are compared on: of images, or data sets of videos."""

import dataclasses
import os

from keras_sspcab.compare.kinds import Kind

# Folders of which a data class has one at least.
_PARTS = {
    "image": ("train", "test", "ground_truth"),
    "video": (
        *("Train", "Test"),
        *("training_videos", "testing_videos"),
        *("training", "testing"),
        *("train", "test"),
    ),
}


@dataclasses.dataclass(frozen=True)
class DataClass:
    """A folder of images in the layout of MVTec AD, or a data set of videos."""

    name: str
    path: str
    num_train: int  # images or videos
    num_normal: int  # test images, or frames of test videos
    num_abnormal: int


def find_classes(
    root: str, kind: Kind, layout: str = "auto"
) -> tuple[tuple[DataClass, ...], tuple[str, ...]]:
    """Returns the data classes of a folder, and names of folders that are none.

    The folder is one class or holds them. The error names all that lack normal
    data to train and calibrate on, or normal or abnormal data to test with.
    """
    root = os.path.abspath(os.path.expanduser(root))
    nouns = kind.nouns
    if not os.path.isdir(root):
        raise ValueError(
            f"There is no folder of {nouns.samples}. Received: --data {root}"
        )
    names = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    left_out: tuple[str, ...] = ()
    if _is_class(names, kind):
        paths = [root]
    else:
        has_parts = {
            name: _is_class(_names_in(os.path.join(root, name)), kind)
            for name in names
        }
        paths = [os.path.join(root, name) for name in names if has_parts[name]]
        left_out = tuple(name for name in names if not has_parts[name])
    if not paths:
        raise ValueError(
            f"The folder is no {nouns.data_class}, and holds none: a "
            f"{nouns.data_class} has the folders {nouns.folders}. "
            f"Received: --data {root}"
        )
    return _scan(paths, kind, layout), left_out


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except PermissionError:
        # Such as `lost+found`.
        return []


def _is_class(names: list[str], kind: Kind) -> bool:
    # Names that are right but for their case are told when they are read.
    found = {name.lower() for name in names}
    return any(part.lower() in found for part in _PARTS[kind.name])


def _scan(paths: list[str], kind: Kind, layout: str) -> tuple[DataClass, ...]:
    scan = {"image": _scan_images, "video": _scan_videos}[kind.name]
    classes, problems = [], []
    for path in paths:
        name = os.path.basename(path)
        try:
            classes.append(scan(name, path, layout))
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(paths)} {kind.nouns.data_classes} cannot "
            "be used:\n" + "\n".join(problems)
        )
    return tuple(classes)


def _scan_images(name: str, path: str, layout: str) -> DataClass:
    from keras_sspcab.data import scan_image_folder

    folder = scan_image_folder(path, layout="mvtec")
    defective = sum(sample.label for sample in folder.test)
    num_train = len(folder.train) + len(folder.validation)
    num_normal = len(folder.test) - defective
    if not num_normal or not defective:
        raise ValueError(
            f"there are {num_normal} normal test images (test/good) and "
            f"{defective} defective ones (test/DEFECT); metrics need both"
        )
    if num_train < 2:
        raise ValueError(
            "there is one image in train/good; one to train on and one to "
            "calibrate on are the least"
        )
    return DataClass(name, path, num_train, num_normal, defective)


def _scan_videos(name: str, path: str, layout: str) -> DataClass:
    from keras_sspcab.data.video import frame_labels, scan_video_folder

    folder = scan_video_folder(path, layout)
    known = [video for video in folder.test if video.has_ground_truth]
    if not known:
        raise ValueError(
            f"there are {len(folder.test)} test videos, and none has ground "
            "truth (labels or masks); metrics need it"
        )
    num_train = len(folder.train) + len(folder.validation)
    if num_train < 2:
        raise ValueError(
            "there is one training video; one to train on and one to calibrate "
            "on are the least. Cut a long video into parts"
        )
    labels = [frame_labels(video) for video in known]
    num_abnormal = sum(int(values.sum()) for values in labels)
    num_normal = sum(map(len, labels)) - num_abnormal
    if not num_normal or not num_abnormal:
        raise ValueError(
            f"the test videos have {num_normal} normal and {num_abnormal} "
            "abnormal frames; metrics need both"
        )
    return DataClass(name, path, num_train, num_normal, num_abnormal)
