"""Photographs that come with scikit-image, and demo data made of them."""

import importlib.resources
import json
import os
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
from keras_sspcab.data.image_files import load_photo
from keras_sspcab.data.scanning import scan_image_folder
from keras_sspcab.files import replacing_folder

#: Photographs in scikit-image's wheel, 512 x 512, gray, CC0.
TEXTURES = ("brick", "grass", "gravel")

# Of the columns of a photograph: training never sees what the test shows.
_TRAIN_SHARE = 0.625

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
    """Writes a demo data set in the MVTec AD layout.

    Normal images are square crops of a photograph, some mirrored, and up to 4 %
    brighter or darker. Training crops come from the left five eighths of its
    columns and test crops from the others: no pixel is in both.
    Into the defective ones a defect is drawn. The mask marks the pixels where
    it has an opacity of at least 0.1; all others are those of the photograph.

    Args:
        root: Local folder to write. One that this function wrote before is
            replaced; others, and files in it from elsewhere, are refused.
        texture: `"brick"`, `"grass"` or `"gravel"`, which come with
            scikit-image, or the path of a photograph, which is read as gray.
        image_size: Height and width, at least 32 pixels, at most the width of
            the test part, 192 of those that come along. Defaults to 128.
        num_train: Normal training images. Defaults to 200.
        num_test_good: Normal test images. Defaults to 40.
        num_test_defective: Defective test images, dealt evenly to the types.
            Defaults to 50.
        seed: Integer, 0 or more. The same arguments write the same images.
        defects: Types of defects: `"scratch"`, `"stain"`, `"hole"`, `"foreign"`
            (a patch of another texture) and `"blur"`, all by default.

    Returns:
        The folder as `scan_image_folder` sees it.

    Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = write_texture_folder(
    ...         root, num_train=3, num_test_good=2, num_test_defective=1
    ...     )
    >>> len(folder.train), len(folder.test)
    (3, 3)
    """
    texture = os.fspath(texture)
    ground = _photograph(texture)
    image_size = standardize_int(image_size, "image_size", 32)
    middle = round(_TRAIN_SHARE * ground.shape[1])
    largest = min(ground.shape[1] - middle, ground.shape[0])
    if image_size > largest:
        raise ValueError(
            f"The `image_size` argument must be at most {largest}, the size "
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

    photographs = {
        # They may be smaller than a photograph of one's own.
        name: _enlarge(_photograph(name), image_size)
        for name in TEXTURES
        if name != texture
    }
    train, test = ground[:, :middle], ground[:, middle:]
    with replacing_folder(root) as folder:
        files = []

        def save(name: str, pixels: np.ndarray) -> None:
            path = os.path.join(folder, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Image.fromarray(pixels).save(path)
            files.append(name)

        for i in range(num_train):
            rng = np.random.default_rng([seed, 0, i])
            save(f"train/good/{i:03d}.png", _normal(train, image_size, rng))
        for i in range(num_good):
            rng = np.random.default_rng([seed, 1, i])
            save(f"test/good/{i:03d}.png", _normal(test, image_size, rng))
        for i in range(num_bad):
            rng = np.random.default_rng([seed, 2, i])
            number, kind = divmod(i, len(defects))
            image = _normal(test, image_size, rng) / 255.0
            other = photographs[rng.choice(sorted(photographs))]
            other = _crop(other, image_size, rng) / 255.0
            image, mask = draw_defect(image, defects[kind], rng, foreign=other)
            name = f"{defects[kind]}/{number:03d}"
            save(f"test/{name}.png", np.round(image * 255.0).astype("uint8"))
            save(f"ground_truth/{name}_mask.png", mask * np.uint8(255))

        card = {
            "written_by": _WRITER,
            "photograph": (
                f"skimage.data.{texture} (CC0)"
                if texture in TEXTURES
                else os.path.basename(texture)
            ),
            "train_columns": [0, middle],
            "test_columns": [middle, ground.shape[1]],
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
        path = os.path.join(folder, _MARKER)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(card, file, indent=2)
    return scan_image_folder(root, layout="mvtec")


def _photograph(texture: str) -> np.ndarray:
    """Reads a photograph as gray, by its name or path."""
    if texture in TEXTURES:
        return read_photograph(f"{texture}.png", "L")
    path = os.path.expanduser(texture)
    if not os.path.isfile(path):
        raise ValueError(
            f"The `texture` argument must be one of {list(TEXTURES)}, or the "
            f"path of a photograph. Received: texture={texture!r}"
        )
    return np.asarray(load_photo(path).convert("L"))


def _enlarge(photograph: np.ndarray, size: int) -> np.ndarray:
    """Continues a photograph by its mirror image where it is smaller."""
    missing = [(0, max(0, size - n)) for n in photograph.shape]
    return np.pad(photograph, missing, "symmetric")


def read_photograph(name: str, mode: str) -> np.ndarray:
    """Reads a picture from scikit-image's wheel in Pillow's mode of colors."""
    resource = importlib.resources.files("skimage.data") / name
    if not resource.is_file():
        raise ValueError(
            f"The picture {name} is not in this scikit-image. Received: "
            f"{resource}. Install the wheel again: pip install "
            "--force-reinstall scikit-image"
        )
    with resource.open("rb") as stream, Image.open(stream) as image:
        return np.asarray(image.convert(mode))


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


def _standardize_target(root: Any) -> str:
    """Returns a local folder that nothing of somebody else is in."""
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
        own = _own_files(root)
        # All of them, hidden ones too: what is here will be replaced.
        found = {
            os.path.relpath(os.path.join(folder, name), root)
            for folder, folders, names in os.walk(root)
            for name in (*names, *(n for n in folders if n.startswith(".")))
        }
        strange = sorted({p.replace(os.sep, "/") for p in found} - own)
        if strange or not own:
            raise ValueError(
                "The folder holds files that write_texture_folder did not "
                f"write, so it is left alone. Received: root={root!r} with "
                f"{enumerate_names(strange)}. Move them away, or choose "
                "another folder."
            )
    return root


def texture_in(root: str | os.PathLike[str]) -> str | None:
    """Names the texture of a folder that `write_texture_folder` has written.

    It is None of all other folders.
    """
    return _read_card(os.fspath(root))["arguments"].get("texture")


def _own_files(root: str) -> set[str]:
    """Returns the files that were written by this module, as the card says."""
    files = _read_card(root)["files"]
    return {*files, _MARKER} if files else set()


def _read_card(root: str) -> dict[str, Any]:
    """Returns the arguments and files that this module has noted, if any."""
    nothing: dict[str, Any] = {"arguments": {}, "files": []}
    try:
        with open(os.path.join(root, _MARKER), encoding="utf-8") as file:
            card = json.load(file)
        arguments = dict(card.get("arguments", {}))
        own = {"arguments": arguments, "files": [*card["files"]]}
        return own if card["written_by"] == _WRITER else nothing
    except (AttributeError, OSError, ValueError, KeyError, TypeError):
        return nothing
