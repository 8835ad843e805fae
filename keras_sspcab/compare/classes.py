"""The data classes that are compared on."""

import dataclasses
import os

_PARTS = ("train", "test", "ground_truth")


@dataclasses.dataclass(frozen=True)
class DataClass:
    """A folder of images in the layout of MVTec AD.

    Attributes:
        name: Name of the folder.
        path: The folder.
        num_train: Normal images in `train/good` (and `validation/good`).
        num_normal: Normal test images.
        num_defective: Defective test images.
    """

    name: str
    path: str
    num_train: int
    num_normal: int
    num_defective: int


def find_classes(root: str) -> tuple[tuple[DataClass, ...], tuple[str, ...]]:
    """Finds the data classes of a folder, and checks that each is complete.

    Args:
        root: A folder in the layout of MVTec AD, which is one class, or a
            folder of such folders.

    Returns:
        The classes by name, and the names of folders that are none.

    Raises:
        ValueError: If there is no class, or if one lacks images to train on, or
            normal or defective test images. The message names them all.
    """
    root = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(root):
        raise ValueError(
            f"There is no folder of images. Received: --data {root}"
        )
    names = sorted(
        entry.name
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    left_out: tuple[str, ...] = ()
    if _is_class(names):
        paths = [root]
    else:
        has_parts = {
            name: _is_class(os.listdir(os.path.join(root, name)))
            for name in names
        }
        paths = [os.path.join(root, name) for name in names if has_parts[name]]
        left_out = tuple(name for name in names if not has_parts[name])
    if not paths:
        raise ValueError(
            "The folder is no data class, and holds none: a class has the "
            "folders train/good, test/good and test/DEFECT. "
            f"Received: --data {root}"
        )
    return _scan(paths), left_out


def _is_class(names: list[str]) -> bool:
    return any(part in names for part in _PARTS)


def _scan(paths: list[str]) -> tuple[DataClass, ...]:
    from keras_sspcab.data import scan_image_folder

    found, problems = [], []
    for path in paths:
        name = os.path.basename(path)
        try:
            folder = scan_image_folder(path, layout="mvtec")
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        defective = sum(sample.label for sample in folder.test)
        data_class = DataClass(
            name,
            path,
            len(folder.train) + len(folder.validation),
            len(folder.test) - defective,
            defective,
        )
        found.append(data_class)
        if not data_class.num_normal or not data_class.num_defective:
            problems.append(
                f"{name}: there are {data_class.num_normal} normal test images "
                f"(test/good) and {defective} defective ones (test/DEFECT); "
                "metrics need both"
            )
        elif data_class.num_train < 2:
            problems.append(
                f"{name}: there is one image in train/good; one to train on "
                "and one to calibrate on are the least"
            )
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(paths)} data classes cannot be used:\n"
            + "\n".join(problems)
        )
    return tuple(found)
