"""Lists the images below a folder and derives labels from its layout."""

import collections
import dataclasses
import glob
import itertools
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.file_system import (
    count_extensions,
    describe_folder,
    enumerate_names,
    has_pattern,
    is_folder,
    join,
    list_files,
    match_urls,
    require_case,
    require_folder,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.folder import GOOD, ImageFolder, ImageSample
from keras_sspcab.data.mask_pairs import pair_masks

#: Extensions of files that are taken for images, in any case.
# fmt: off
IMAGE_EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff",
)
# fmt: on

_LEFT_OUT = "left out, no images"
_EXTENSIONS = f"Extensions of images: {' '.join(IMAGE_EXTENSIONS)}"

# Names that say of folders what their images are, in lower case.
_NORMAL = {GOOD, "ok", "normal"}
_DEFECTIVE = {
    *("bad", "ng", "nok", "defect", "defects", "defective"),
    *("abnormal", "anomalous", "anomaly", "anomalies"),
}

# What a folder in the layout of MVTec AD consists of.
_SPLITS = ("train", "validation", "test", "ground_truth")

_MVTEC_TREE = (
    "The MVTec AD layout is train/good/*, test/good/*, test/DEFECT/* and "
    "ground_truth/DEFECT/NAME_mask.png; only train/good is needed."
)


def scan_image_folder(
    root: Any, layout: str = "auto", require_train: bool = True
) -> ImageFolder:
    """Lists the images below a folder, in a fixed order, with their labels.

    Three layouts are known:

    - `"mvtec"`, that of MVTec AD. `train/good` holds the normal images to train
      on. Optional: `validation/good` with more normal images; `test/good` and
      `test/DEFECT`, whose names are the labels: what lies in `good` is normal,
      all else defective; `ground_truth/DEFECT` with the masks, each named like
      its image, with or without `_mask` at the end, in any image format. A
      folder with that name holds several masks of one image, as in MVTec LOCO.
    - `"plain"`: every image below the folder, at any depth, is normal and
      belongs to `train`.
    - `"products"`: a folder for each of several products, laid out as one of
      the others; see `find_products`. It is never taken for that unasked.

    Nothing is split off silently: see `ImageFolder.with_validation`. Hidden
    files and Synology's `@eaDir` are left out. Case counts: `Train` in the
    place of `train` is an error.

    Args:
        root: Local folder or URL, such as `s3://`, `gs://` or `http://`, which
            fsspec and its plugins read (the extra `[io]`). A web server must
            show an index page with links to what is in a folder.
        layout: `"mvtec"`, `"plain"`, `"products"` or `"auto"`, which takes
            `"mvtec"` where there is a `train`, `test` or `ground_truth` folder,
            else `"plain"`, and says so in the notes; with folders such as
            `good` and `bad`, at any depth, it is neither.
        require_train: Whether a folder without `train`, of test images alone,
            is an error.

    Returns:
        An `ImageFolder`, sorted by path.

    Raises:
        ValueError: If the folder does not exist, is a file, holds no images, or
            does not follow the layout; or if a mask has no image.

    Example:
    >>> import os, tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     Image.new("L", (8, 8)).save(os.path.join(root, "0.png"))
    ...     len(scan_image_folder(root).train)
    1
    """
    layout = standardize_choice(
        layout, ("auto", "mvtec", "plain", "products"), "layout"
    )
    root = standardize_path(root)
    require_folder(root)
    if layout == "products":
        return _scan_products(root, require_train)
    files = list_files(root)
    notes: tuple[str, ...] = ()
    if layout == "auto":
        layout, reason = _detect_layout(root, files)
        notes = (f"layout: {layout}, because {reason}",)
    if layout == "mvtec":
        return _scan_mvtec(root, files, notes, require_train)
    return _scan_plain(root, files, notes)


def find_products(root: Any) -> dict[str, str]:
    """Returns the folders of several products below a folder, by name.

    Warns of folders that hold files, but none that is read as an image.

    Raises:
        ValueError: If there are none, or the folder is that of one product.

    Example:
    >>> find_products("lines")  # doctest: +SKIP
    {'nuts': 'lines/nuts', 'screws': 'lines/screws'}
    """
    root = standardize_path(root)
    require_folder(root)
    files = list_files(root)
    images = [file for file in files if is_image(file)]
    loose = [file for file in images if "/" not in file]
    names = sorted({file.split("/", 1)[0] for file in images} - {*loose})
    parts = [name for name in names if name.lower() in _SPLITS]
    if loose or parts or not names:
        found = loose or parts or [describe_folder(root)]
        raise ValueError(
            "A folder of several products holds one for each, with its images, "
            f"and no others. Received: root={root!r} with "
            f"{enumerate_names(found)}. For a single product, leave the layout "
            "out."
        )
    others: dict[str, list[str]] = collections.defaultdict(list)
    for file in files:
        top, _, inner = file.partition("/")
        if inner and top not in names:
            others[top].append(inner)
    if others:
        counts = [f"{n} ({count_extensions(f)})" for n, f in others.items()]
        warnings.warn(
            f"{root}: left out, folders that hold no image: "
            f"{enumerate_names(counts)}. {_EXTENSIONS}",
            stacklevel=2,
        )
    return {name: join(root, name) for name in names}


def is_image(file: str) -> bool:
    """Returns whether a file is an image, by its extension."""
    return file.lower().endswith(IMAGE_EXTENSIONS)


def _detect_layout(root: str, files: list[str]) -> tuple[str, str]:
    """Returns a layout and why it is that."""
    tops = {file.split("/", 1)[0] for file in files if "/" in file}
    marks = ("train", "test", "ground_truth")
    _require_case(root, files, marks)
    for name in marks:
        if name in tops or is_folder(join(root, name)):
            return "mvtec", f"there is a {name} folder"
    inner = {
        file.split("/", 1)[0]
        for file in files
        if re.search("/(train/good|ground_truth)/", file, re.IGNORECASE)
    }
    if inner:
        # As normal images, defective ones would spoil the training.
        raise ValueError(
            "The folder holds several data sets in the MVTec AD layout. "
            f"Received: root={root!r}. Choose one of its folders: "
            f"{enumerate_names(sorted(inner))}. For one model of all of them, "
            'with statistics for each, pass layout="products"; to train on '
            'every image below it as one product, layout="plain".'
        )
    if telling := find_defective(filter(is_image, files)):
        raise ValueError(
            "The names of the folders say that not all images are normal. "
            f"Received: root={root!r} with {enumerate_names(telling)}. "
            "Put normal images into train/good, some to test with into "
            "test/good, and defective ones into test/DEFECT. If all are "
            'normal, rename the folders, or train with layout="plain".'
        )
    return "plain", "there is no train folder: every image counts as normal"


def find_defective(files: Iterable[str]) -> list[str]:
    """Returns folders side by side whose names say that some are defective."""
    beside: dict[str, set[str]] = collections.defaultdict(set)
    for place in {file.rpartition("/")[0] for file in files} - {""}:
        for folder in itertools.accumulate(place.split("/"), "{}/{}".format):
            beside[folder.rpartition("/")[0]].add(folder)
    telling: list[str] = []
    for folders in beside.values():
        names = {folder.rpartition("/")[2].lower() for folder in folders}
        if names & _DEFECTIVE or (names & _NORMAL and len(folders) > 1):
            telling += folders
    return sorted(telling)


def _require_case(root: str, files: list[str], names: Sequence[str]) -> None:
    places = [*names, *(f"{name}/{GOOD}" for name in names)]
    require_case(root, filter(is_image, files), places)


def _scan_products(root: str, require_train: bool) -> ImageFolder:
    """Returns the images of all products as those of one folder."""
    folders = [
        scan_image_folder(path, require_train=require_train)
        for path in find_products(root).values()
    ]
    splits = {
        name: tuple(s for folder in folders for s in folder.splits[name])
        for name in ("train", "validation", "test")
    }
    notes = tuple(
        f"{folder.root}: {note}" for folder in folders for note in folder.notes
    )
    return ImageFolder(root, "products", **splits, notes=notes)


def _scan_plain(
    root: str, files: list[str], notes: tuple[str, ...]
) -> ImageFolder:
    images = [file for file in files if is_image(file)]
    if not images:
        raise ValueError(
            f"There is no image below the folder. Received: root={root!r}, "
            f"which holds {describe_folder(root)}. {_EXTENSIONS}"
        )
    train = tuple(ImageSample(join(root, image)) for image in images)
    notes += _note_others(files)
    return ImageFolder(root, "plain", train, notes=notes)


def _scan_mvtec(
    root: str, files: list[str], notes: tuple[str, ...], require_train: bool
) -> ImageFolder:
    def images_in(folder: str) -> list[str]:
        return [f for f in files if f.startswith(f"{folder}/") and is_image(f)]

    _require_case(root, files, _SPLITS)
    train, validation = images_in("train/good"), images_in("validation/good")
    test, masks = images_in("test"), images_in("ground_truth")
    has_train = any(file.startswith("train/") for file in files)
    if not train and (require_train or has_train or not test):
        _raise_no_training_images(root, files)
    loose = [file for file in test if file.count("/") == 1]
    if loose:
        raise ValueError(
            "Images directly in `test` have no label. Received: "
            f"root={root!r} with {enumerate_names(loose)}. Put normal ones "
            "into test/good and defective ones into test/DEFECT."
        )
    kinds = {f.rpartition("/")[0] for f in test if f.split("/")[1] != GOOD}
    if wrong := sorted(k for k in kinds if _NORMAL & {*k.lower().split("/")}):
        raise ValueError(
            "What lies in test/good is normal, all else in `test` defective. "
            f"Received: root={root!r} with {wrong[0]}. Put its images into "
            "test/good if they are normal, else rename it."
        )
    mask_of = pair_masks(root, test, masks)

    used = {*train, *validation, *test, *masks}
    others = [file for file in files if is_image(file) and file not in used]
    if others:
        notes += (
            f"left out, {len(others)} images outside of the layout: "
            f"{enumerate_names(others)}",
        )
    known = ("train/", "validation/", "test/", "ground_truth/")
    notes += _note_others([f for f in files if f.startswith(known)])

    def normal(images: list[str]) -> tuple[ImageSample, ...]:
        return tuple(ImageSample(join(root, image)) for image in images)

    def tested(image: str) -> ImageSample:
        defect = image.split("/")[1]
        mask = join(root, mask_of[image]) if image in mask_of else None
        return ImageSample(join(root, image), int(defect != GOOD), defect, mask)

    return ImageFolder(
        root,
        "mvtec",
        train=normal(train),
        validation=normal(validation),
        test=tuple(map(tested, test)),
        notes=notes,
    )


def find_images(path: str) -> list[str]:
    """Lists the images in a folder, those that match a pattern, or one image.

    What a folder holds is chosen by the extension, at any depth, but for masks
    in the layout of MVTec AD, with a warning of what is left out; what a
    pattern matches counts whatever its name is. A path that exists is no
    pattern, so that brackets may be part of a name. The list is empty if there
    is no such file; at a URL that shows when it is read.
    """
    if scheme_of(path):
        if has_pattern(path):
            return match_urls(path)
        if is_image(path) or not is_folder(path):
            return [path]
    elif not os.path.isdir(path):
        if os.path.lexists(path):
            return [path]
        found = sorted(glob.glob(path, recursive=True))
        return [file for file in found if not os.path.isdir(file)]
    folder = scan_image_folder(path, layout="plain")
    for note in folder.notes:
        if note.startswith(_LEFT_OUT):
            warnings.warn(f"{path}: {note}", stacklevel=2)
    images = without_masks(folder).train
    if num_masks := len(folder.train) - len(images):
        warnings.warn(
            f"{path}: {num_masks} masks in ground_truth left out", stacklevel=2
        )
    return [sample.path for sample in images]


def without_masks(folder: ImageFolder) -> ImageFolder:
    """Leaves masks in the layout of MVTec AD out of a folder listed as plain.

    These are what lies in `ground_truth` beside `test`, at any depth.
    """
    places = {s: f"/{folder.name_of(s)}" for s in folder.train}
    tested = {
        p.partition("/test/")[0] for p in places.values() if "/test/" in p
    }
    images = (
        sample
        for sample, place in places.items()
        if "/ground_truth/" not in place
        or place.partition("/ground_truth/")[0] not in tested
    )
    return dataclasses.replace(folder, train=tuple(images))


def _note_others(files: list[str]) -> tuple[str, ...]:
    others = [file for file in files if not is_image(file)]
    counts = count_extensions(others)
    return (f"{_LEFT_OUT}: {counts}",) if others else ()


def _raise_no_training_images(root: str, files: list[str]) -> NoReturn:
    train, good = join(root, "train"), join(root, "train/good")
    if is_folder(good):
        raise ValueError(
            f"There is no image in train/good. Received: root={root!r}, whose "
            f"train/good holds {describe_folder(good)}. {_EXTENSIONS}"
        )
    if is_folder(train):
        raise ValueError(
            "The folder `train` has no folder `good`. Received: "
            f"root={root!r}, whose train holds {describe_folder(train)}. Put "
            "the normal images into train/good, or scan them alone: "
            f'scan_image_folder({train!r}, layout="plain"). {_MVTEC_TREE}'
        )
    raise ValueError(
        f"There is no folder train/good. Received: root={root!r}, which holds "
        f"{describe_folder(root)}, {sum(map(is_image, files))} images among "
        f"{len(files)} files. {_MVTEC_TREE} {_EXTENSIONS}"
    )
