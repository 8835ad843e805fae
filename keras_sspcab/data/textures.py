"""Writes the demo data: photographs of textures with drawn defects."""

import importlib.resources
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.data.defects import DEFECTS, draw_defect
from keras_sspcab.data.file_system import (
    enumerate_names,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.folder import ImageFolder
from keras_sspcab.data.scanning import scan_image_folder

#: Photographs in scikit-image's wheel, 512 x 512, gray, CC0.
TEXTURES = ("brick", "grass", "gravel")

# Columns of the photographs: training never sees what the test shows.
_TRAIN_COLUMNS = slice(0, 320)
_TEST_COLUMNS = slice(320, 512)

_MARKER = "dataset.json"
_WRITER = "keras_sspcab.data.write_texture_folder"


def write_texture_folder(
    root: Any,
    texture: str = "brick",
    image_size: int = 128,
    num_train: int = 200,
    num_test_good: int = 40,
    num_test_defective: int = 50,
    seed: int = 0,
    defects: Sequence[str] = tuple(DEFECTS),
) -> ImageFolder:
    """Writes a data set in the MVTec AD layout, from photographs on board.

    Normal images are square crops of one photograph at its own resolution, some
    mirrored, and up to 4 % brighter or darker. Training crops come from its
    columns 0 to 319 and test crops from 320 to 511: no pixel is in both. Into
    the defective ones a defect is drawn (`draw_defect`): scratch, stain, hole,
    foreign (a patch of another texture) or blur. The mask marks the pixels
    where the defect has an opacity of at least 0.1; all others are those of the
    photograph. Nothing is downloaded.

    The folder is built beside `root` and moved there when it is complete.

    Args:
        root: Local folder to write. One that this function wrote before is
            replaced, unless other files are in it.
        texture: `"brick"`, `"grass"` or `"gravel"`.
        image_size: Height and width, 32 to 192 pixels. Defaults to 128.
        num_train: Normal training images. Defaults to 200.
        num_test_good: Normal test images. Defaults to 40.
        num_test_defective: Defective test images, dealt evenly to the types.
            Defaults to 50.
        seed: Integer, 0 or more. The same arguments write the same images.
        defects: Types of defects; all by default.

    Returns:
        The folder as `scan_image_folder` sees it.

    Raises:
        ValueError: If an argument is out of range, or `root` holds files that
            this function did not write.
    """
    texture = standardize_choice(texture, TEXTURES, "texture")
    image_size = standardize_int(image_size, "image_size", 32)
    largest = _TEST_COLUMNS.stop - _TEST_COLUMNS.start
    if image_size > largest:
        raise ValueError(
            f"The `image_size` argument must be at most {largest}, the width "
            "of the part of the photograph kept for the test. "
            f"Received: image_size={image_size}"
        )
    num_train = standardize_int(num_train, "num_train", 1)
    num_good = standardize_int(num_test_good, "num_test_good", 0)
    num_bad = standardize_int(num_test_defective, "num_test_defective", 0)
    seed = standardize_int(seed, "seed", 0)
    defects = tuple(
        standardize_choice(d, tuple(DEFECTS), "defects") for d in defects
    )
    if not defects:
        raise ValueError(
            "The `defects` argument must name at least one type. "
            f"Received: defects={defects!r}"
        )
    root = _standardize_target(root)

    photographs = {name: _photograph(name) for name in TEXTURES}
    ground = photographs.pop(texture)
    files: dict[str, np.ndarray] = {}
    for i in range(num_train):
        rng = np.random.default_rng([seed, 0, i])
        image = _normal(ground[:, _TRAIN_COLUMNS], image_size, rng)
        files[f"train/good/{i:03d}.png"] = image
    for i in range(num_good):
        rng = np.random.default_rng([seed, 1, i])
        image = _normal(ground[:, _TEST_COLUMNS], image_size, rng)
        files[f"test/good/{i:03d}.png"] = image
    for i in range(num_bad):
        rng = np.random.default_rng([seed, 2, i])
        number, kind = divmod(i, len(defects))
        image = _normal(ground[:, _TEST_COLUMNS], image_size, rng)
        other = photographs[rng.choice(sorted(photographs))]
        defective, mask = draw_defect(
            image / 255.0,
            defects[kind],
            rng,
            foreign=_crop(other, image_size, rng) / 255.0,
        )
        name = f"{defects[kind]}/{number:03d}"
        files[f"test/{name}.png"] = np.round(defective * 255.0).astype("uint8")
        files[f"ground_truth/{name}_mask.png"] = mask * np.uint8(255)

    card = {
        "written_by": _WRITER,
        "photograph": f"skimage.data.{texture} (CC0)",
        "train_columns": [_TRAIN_COLUMNS.start, _TRAIN_COLUMNS.stop],
        "test_columns": [_TEST_COLUMNS.start, _TEST_COLUMNS.stop],
        "arguments": {
            "texture": texture,
            "image_size": image_size,
            "num_train": num_train,
            "num_test_good": num_good,
            "num_test_defective": num_bad,
            "seed": seed,
            "defects": list(defects),
        },
        "files": sorted(files),
    }
    _write(root, files, card)
    return scan_image_folder(root, layout="mvtec")


# === Images ===


def _photograph(name: str) -> np.ndarray:
    """Reads a photograph from scikit-image's wheel; never downloads."""
    file = importlib.resources.files("skimage.data") / f"{name}.png"
    if not file.is_file():
        raise ValueError(
            f"The photograph {name}.png is not in this scikit-image. "
            f"Received: {file}. Install the wheel again: "
            "pip install --force-reinstall scikit-image"
        )
    with file.open("rb") as stream, Image.open(stream) as image:
        return np.asarray(image.convert("L"))


def _normal(
    photograph: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """A crop, perhaps mirrored, with a little more or less light."""
    image = _crop(photograph, size, rng).astype(float)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    image = image * rng.uniform(0.96, 1.04)
    return np.round(np.clip(image, 0.0, 255.0)).astype("uint8")


def _crop(
    photograph: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    top, left = (rng.integers(0, n - size + 1) for n in photograph.shape)
    return photograph[top : top + size, left : left + size]


# === Files ===


def _standardize_target(root: Any) -> str:
    root = standardize_path(root)
    if scheme_of(root):
        raise ValueError(
            "The demo data is written to a local folder. "
            f"Received: root={root!r}"
        )
    root = os.path.realpath(root)
    if os.path.lexists(root) and not os.path.isdir(root):
        raise ValueError(
            f"There is a file in place of {root!r}. Choose another."
        )
    if os.path.isdir(root) and os.listdir(root):
        _require_own(root)
    return root


def _require_own(root: str) -> None:
    """Raises unless every file below `root` was written by this module."""
    try:
        with open(os.path.join(root, _MARKER), encoding="utf-8") as file:
            card = json.load(file)
        own = card["written_by"] == _WRITER and set(card["files"])
    except (OSError, ValueError, KeyError, TypeError):
        own = False
    if not own:
        raise ValueError(
            "The folder is not empty and was not written by "
            f"write_texture_folder, so it is left alone. Received: "
            f"root={root!r} with {enumerate_names(sorted(os.listdir(root)))}. "
            "Choose another folder."
        )
    found = {
        os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
        for folder, _, names in os.walk(root)
        for name in names
    }
    strangers = sorted(found - own - {_MARKER})
    if strangers:
        raise ValueError(
            "The folder holds files that write_texture_folder did not write, "
            f"so it is left alone. Received: root={root!r} with "
            f"{enumerate_names(strangers)}. Move them away, or choose another "
            "folder."
        )


def _write(root: str, files: dict[str, np.ndarray], card: dict) -> None:
    """Writes a folder beside `root`, then puts it in its place."""
    parent, name = os.path.split(root)
    token = uuid.uuid4().hex[:8]
    new = os.path.join(parent, f".{name}.{token}.new")
    old = os.path.join(parent, f".{name}.{token}.old")
    os.makedirs(new)
    try:
        for path, pixels in files.items():
            target = os.path.join(new, *path.split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            Image.fromarray(pixels).save(target)
        with open(os.path.join(new, _MARKER), "w", encoding="utf-8") as file:
            json.dump(card, file, indent=2)
        replaces = os.path.isdir(root)
        if replaces:
            os.rename(root, old)
        try:
            os.rename(new, root)
        except OSError:
            if replaces:
                os.rename(old, root)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
