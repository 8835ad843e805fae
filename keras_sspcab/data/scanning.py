"""Finds the images below a folder and derives labels from its layout."""

import collections
from collections.abc import Iterable
from typing import Any, NoReturn

import tensorflow as tf

from keras_sspcab.data.decoding import TENSORFLOW_IO_FORMATS, image_format
from keras_sspcab.data.file_system import (
    INSTALL_HINT,
    count_extensions,
    describe_folder,
    enumerate_names,
    is_folder,
    join,
    list_files,
    reach,
    require_folder,
    standardize_path,
    tensorflow_io,
)
from keras_sspcab.data.folder import GOOD, ImageFolder, ImageSample

#: Extensions that count as images, in any case.
IMAGE_EXTENSIONS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
)

LAYOUTS = ("auto", "mvtec", "plain")

_MVTEC_TREE = (
    "The MVTec AD layout is train/good/*, test/good/*, test/DEFECT/* and "
    "ground_truth/DEFECT/NAME_mask.png; only train/good is needed."
)


def scan_image_folder(
    root: Any,
    layout: str = "auto",
    image_extensions: Iterable[str] = IMAGE_EXTENSIONS,
) -> ImageFolder:
    """Lists the images below a folder, in a fixed order, with their labels.

    Two layouts are known:

    - `"mvtec"`, that of MVTec AD. `train/good` holds the normal images to train
      on. Optional: `validation/good` with more normal images; `test/good` and
      `test/DEFECT`, whose names are the labels: what lies in `good` is normal,
      all else defective; `ground_truth/DEFECT` with the masks, each named like
      its image, with or without `_mask` at the end, in any image format.
    - `"plain"`: every image below the folder, at any depth, is normal and
      belongs to `train`.

    Only normal images are needed. Nothing is split off silently: see
    `ImageFolder.with_validation`. Hidden files are left out.

    Args:
        root: Local folder or URL (`gs://...`; others such as `s3://...` with
            tensorflow-io).
        layout: `"mvtec"`, `"plain"` or `"auto"`, which takes `"mvtec"` where
            there is a `train`, `test` or `ground_truth` folder, and says so in
            the notes.
        image_extensions: Extensions of image files, in any case. Masks may have
            any of the default ones as well.

    Returns:
        An `ImageFolder`, sorted by path.

    Raises:
        ValueError: If the folder does not exist, is a file, holds no images, or
            does not follow the layout; if a mask has no image; or if images
            need tensorflow-io, which is not there.
    """
    if layout not in LAYOUTS:
        raise ValueError(
            f"The `layout` argument must be one of {list(LAYOUTS)}. "
            f"Received: layout={layout!r}"
        )
    extensions = _standardize_extensions(image_extensions)
    root = standardize_path(root)
    require_folder(root)
    files = list_files(root)
    notes: tuple[str, ...] = ()
    if layout == "auto":
        layout, reason = _detect_layout(root, files)
        notes = (f"layout: {layout}, because {reason}",)
    scan = _scan_mvtec if layout == "mvtec" else _scan_plain
    folder = scan(root, files, extensions, notes)
    _require_decoders(folder)
    return folder


# === Layouts ===


def _detect_layout(root: str, files: list[str]) -> tuple[str, str]:
    tops = {file.split("/", 1)[0] for file in files if "/" in file}
    for name in ("train", "test", "ground_truth"):
        if name in tops or is_folder(join(root, name)):
            return "mvtec", f"there is a {name} folder"
    inner = {
        file.split("/", 1)[0]
        for file in files
        if "/train/good/" in file or "/ground_truth/" in file
    }
    if inner:
        # As normal images, defective ones would spoil the training.
        raise ValueError(
            "The folder holds several data sets in the MVTec AD layout. "
            f"Received: root={root!r}. Choose one of its folders: "
            f"{enumerate_names(sorted(inner))}. To train on every image below "
            'it, say layout="plain".'
        )
    return "plain", "there is no train folder: every image counts as normal"


def _scan_plain(
    root: str,
    files: list[str],
    extensions: tuple[str, ...],
    notes: tuple[str, ...],
) -> ImageFolder:
    images = [file for file in files if file.lower().endswith(extensions)]
    if not images:
        raise ValueError(
            f"There is no image below the folder. Received: root={root!r}, "
            f"which holds {describe_folder(root)}. Accepted extensions: "
            f"{' '.join(extensions)}"
        )
    ignored = [file for file in files if not file.lower().endswith(extensions)]
    if ignored:
        notes += (f"left out, no images: {count_extensions(ignored)}",)
    train = tuple(ImageSample(join(root, image)) for image in images)
    return ImageFolder(root, "plain", train, notes=notes)


def _scan_mvtec(
    root: str,
    files: list[str],
    extensions: tuple[str, ...],
    notes: tuple[str, ...],
) -> ImageFolder:
    images = [file for file in files if file.lower().endswith(extensions)]
    train = [file for file in images if file.startswith("train/good/")]
    if not train:
        _raise_no_training_images(root, files, images, extensions)
    validation = [f for f in images if f.startswith("validation/good/")]
    test = [file for file in images if file.startswith("test/")]
    loose = [file for file in test if file.count("/") == 1]
    if loose:
        raise ValueError(
            "Images directly in `test` have no label. Received: "
            f"root={root!r} with {enumerate_names(loose)}. Put normal ones "
            "into test/good and defective ones into test/DEFECT."
        )
    mask_extensions = tuple({*extensions, *IMAGE_EXTENSIONS})
    masks = [
        file
        for file in files
        if file.startswith("ground_truth/")
        and file.lower().endswith(mask_extensions)
    ]
    mask_of = _pair_masks(root, test, masks)

    used = {*train, *validation, *test, *masks}
    others = [file for file in images if file not in used]
    if others:
        notes += (
            f"left out, {len(others)} images outside of the layout: "
            f"{enumerate_names(others)}",
        )
    known = ("train/", "validation/", "test/", "ground_truth/")
    ignored = [
        file
        for file in files
        if file.startswith(known) and file not in used and file not in images
    ]
    if ignored:
        notes += (f"left out, no images: {count_extensions(ignored)}",)

    def test_sample(image: str) -> ImageSample:
        defect = image.split("/")[1]
        mask = mask_of.get(image)
        return ImageSample(
            join(root, image),
            label=int(defect != GOOD),
            defect=defect,
            mask_path=None if mask is None else join(root, mask),
        )

    return ImageFolder(
        root,
        "mvtec",
        train=tuple(ImageSample(join(root, image)) for image in train),
        validation=tuple(ImageSample(join(root, f)) for f in validation),
        test=tuple(test_sample(image) for image in test),
        notes=notes,
    )


def _pair_masks(
    root: str, images: list[str], masks: list[str]
) -> dict[str, str]:
    """Returns the mask of each image that has one, by stem."""
    by_stem: dict[str, list[str]] = collections.defaultdict(list)
    for image in images:
        by_stem[_stem(image)].append(image)
    pairs: dict[str, str] = {}
    unmatched = []
    for mask in masks:
        stem = _stem(mask)
        matches = by_stem.get(stem.removesuffix("_mask"), by_stem.get(stem))
        if not matches:
            unmatched.append(mask)
        elif len(matches) > 1:
            raise ValueError(
                f"The mask {mask!r} belongs to several images. Received: "
                f"root={root!r} with {enumerate_names(matches)}. Give them "
                "different names."
            )
        elif matches[0] in pairs:
            raise ValueError(
                f"The image {matches[0]!r} has several masks. Received: "
                f"root={root!r} with {pairs[matches[0]]} and {mask}. Keep one."
            )
        else:
            pairs[matches[0]] = mask
    if unmatched:
        raise ValueError(
            f"{len(unmatched)} masks have no image. Received: root={root!r} "
            f"with {enumerate_names(unmatched, limit=50)}. The mask of "
            "test/DEFECT/NAME.png is ground_truth/DEFECT/NAME_mask.png. Rename "
            "them, or remove those that are not needed."
        )
    return pairs


def _stem(file: str) -> str:
    """`test/crack/007.png` -> `crack/007`."""
    return file.split("/", 1)[1].rsplit(".", 1)[0]


# === Checks ===


def _standardize_extensions(extensions: Iterable[str]) -> tuple[str, ...]:
    given = [extensions] if isinstance(extensions, str) else list(extensions)
    cleaned = tuple(
        "." + e.lower().lstrip(".") if isinstance(e, str) else "."
        for e in given
    )
    if not cleaned or "." in cleaned:
        raise ValueError(
            "The `image_extensions` argument must hold extensions such as "
            f"'.png'. Received: image_extensions={extensions!r}"
        )
    return cleaned


def _raise_no_training_images(
    root: str, files: list[str], images: list[str], extensions: tuple[str, ...]
) -> NoReturn:
    received = f"Received: root={root!r}"
    accepted = f"Accepted extensions: {' '.join(extensions)}"
    if is_folder(join(root, "train/good")):
        raise ValueError(
            f"There is no image in train/good. {received}, whose train/good "
            f"holds {describe_folder(join(root, 'train/good'))}. {accepted}"
        )
    if is_folder(join(root, "train")):
        raise ValueError(
            f"The folder `train` has no folder `good`. {received}, whose train "
            f"holds {describe_folder(join(root, 'train'))}. Put the normal "
            "images into train/good, or scan them alone: "
            f"scan_image_folder({join(root, 'train')!r}, "
            f'layout="plain"). {_MVTEC_TREE}'
        )
    raise ValueError(
        f"There is no folder train/good. {received}, which holds "
        f"{describe_folder(root)}, {len(images)} images among "
        f"{len(files)} files. {_MVTEC_TREE} {accepted}"
    )


def _require_decoders(folder: ImageFolder) -> None:
    """Raises now if images need tensorflow-io and it is not there."""
    if tensorflow_io() is not None:
        return
    paths = [
        path
        for sample in (*folder.train, *folder.validation, *folder.test)
        for path in (sample.path, sample.mask_path)
        if path and path.lower().endswith((".webp", ".tif", ".tiff"))
    ]
    # The content decides: a PNG named .tif can be read.
    needing = [p for p in paths if _format(p) in TENSORFLOW_IO_FORMATS]
    if needing:
        raise ValueError(
            f"{len(needing)} images are WebP or TIFF, which need "
            f"tensorflow-io. Received: {enumerate_names(needing)}. "
            f"{INSTALL_HINT} Or convert them to PNG, or leave them out by "
            "`image_extensions`."
        )


def _format(path: str) -> str | None:
    def read() -> bytes:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read(12)

    return image_format(reach(path, read))
