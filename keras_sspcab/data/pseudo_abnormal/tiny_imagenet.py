"""The classes of Tiny ImageNet that count as abnormal."""

from typing import Any

from keras_sspcab.data.file_system import (
    enumerate_names,
    is_folder,
    join,
    require_folder,
    standardize_path,
)

# fmt: off
#: WordNet identifiers of the 68 classes that the framework's authors name.
TINY_IMAGENET_CLASSES = (
    "n01443537", "n01629819", "n01641577", "n01644900", "n01698640",
    "n01742172", "n01768244", "n01770393", "n01774384", "n01774750",
    "n01784675", "n01855672", "n01882714", "n01910747", "n01917289",
    "n01944390", "n01945685", "n01950731", "n01983481", "n01984695",
    "n02002724", "n02056570", "n02058221", "n02074367", "n02165456",
    "n02190166", "n02206856", "n02226429", "n02231487", "n02233338",
    "n02236044", "n02268443", "n02279972", "n02281406", "n02321529",
    "n02395406", "n02666196", "n02999410", "n03400231", "n03424325",
    "n03544143", "n03706229", "n03804744", "n03937543", "n04067472",
    "n04179913", "n04265275", "n04275548", "n04328186", "n04398044",
    "n04399382", "n04596742", "n04597913", "n07579787", "n07583066",
    "n07614500", "n07695742", "n07715103", "n07720875", "n07734744",
    "n07747607", "n07749582", "n07753592", "n07768694", "n07871810",
    "n07873807", "n07875152", "n09256479",
)
# fmt: on


def tiny_imagenet_folders(root: Any) -> tuple[str, ...]:
    """Returns the folders of the abnormal classes, for `FolderPictures`.

    Args:
        root: Tiny ImageNet as it is distributed (`tiny-imagenet-200`), or its
            `train` folder.

    Raises:
        ValueError: If a class has no folder there.
    """
    root = standardize_path(root)
    require_folder(root)
    train = join(root, "train")
    base = train if is_folder(train) else root
    folders = tuple(join(base, name) for name in TINY_IMAGENET_CLASSES)
    missing = [folder for folder in folders if not is_folder(folder)]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(folders)} classes have no folder. "
            f"Received: root={root!r} without {enumerate_names(missing)}"
        )
    return folders
