"""Masks: which pixels of an image are defective.

They are read by Pillow: exported graphs never need them.
"""

import collections
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image, ImageOps
from scipy import ndimage

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.file_system import (
    enumerate_names,
    is_folder,
    join,
    list_files,
    naming,
    read_bytes,
)
from keras_sspcab.data.folder import ImageSample
from keras_sspcab.data.image_files import (
    has_wide_colors,
    open_image,
    require_size,
)
from keras_sspcab.data.resizing import resize
from keras_sspcab.data.scanning import is_image
from keras_sspcab.metrics.pixel_level import EIGHT_NEIGHBORS
from keras_sspcab.preprocessing import Preprocessing


def _list_files(path: str) -> list[str]:
    """Lists a file itself, or those in a folder of masks."""
    if is_image(path) or not is_folder(path):
        return [path]
    files = [join(path, name) for name in list_files(path) if is_image(name)]
    if not files:
        raise ValueError("a folder without a mask in it")
    return files


def read_mask(path: str) -> np.ndarray:
    """Reads a mask, bool `(height, width)`, or merges those in a folder.

    A ValueError says why it cannot be read.
    """
    merged: Any = None
    for file in _list_files(path):
        try:
            mask = decode_mask(read_bytes(file))
            if merged is not None and mask.shape != merged.shape:
                sizes = ["x".join(map(str, m.shape)) for m in (mask, merged)]
                raise ValueError(f"{sizes[0]} pixels, those before {sizes[1]}")
        except ValueError as error:
            if file == path:
                raise
            raise ValueError(f"{os.path.basename(file)}: {error}") from error
        merged = mask if merged is None else merged | mask
    return merged


class FittedMask(NamedTuple):
    """A mask as large as the input of a model."""

    #: Which pixels are defective, bool `(height, width)`.
    mask: np.ndarray
    #: How many defects are too small for it; see `load_mask`.
    num_small: int = 0
    #: Share of the defective pixels that are cut off.
    share_cut: float = 0.0


def load_mask(
    sample: ImageSample,
    image_size: tuple[int, int],
    rule: str = "nearest",
    preprocessing: Preprocessing | None = None,
) -> FittedMask:
    """Reads the mask of a sample, resized like its image; empty if none.

    See `resize_mask`. By the rule `"whole"`, only pixels count all of whose
    sources are defective: resized as OpenCV does, they stay white. Nothing is
    kept then, and the number of small defects is 1 where the mask gets empty.
    """
    fitted = np.zeros(image_size, bool)
    if sample.mask_path is None:
        return FittedMask(fitted)
    how = preprocessing or Preprocessing()
    with naming(f"the mask {sample.mask_path}"):
        whole = read_mask(sample.mask_path)
        source, target = how.place(whole.shape, image_size)
        mask, filled = whole[source], fitted[target]
        if rule == "nearest":
            filled[:], num_small = resize_mask(mask, filled.shape)
        else:
            gray = np.where(mask, np.uint8(255), np.uint8(0))[..., None]
            resized = resize(gray, filled.shape, "opencv").numpy()
            filled[:] = resized[..., 0] == 1.0
            num_small = int(mask.any() and not filled.any())
    cut = 1.0 - mask.sum() / max(1, whole.sum())
    return FittedMask(fitted, num_small, cut if whole.any() else 0.0)


_DOUBTS = {
    "empty": "masks of defective images are empty: {}. These images count for "
    "no pixel metric",
    "marked": "masks of normal images are not empty: {}. These images count "
    "for no pixel metric",
    "full": "masks mark most of their image: {}. What is above 0 counts as "
    "defective; the background must be black",
}


def find_doubt(mask: np.ndarray, label: int) -> str:
    """Returns the kind of doubt about the mask of an image, or nothing."""
    # Hardly a defect covers half of an image; black ones on white do.
    if label and mask.mean() > 0.5:
        return "full"
    return "" if mask.any() == bool(label) else "empty" if label else "marked"


def describe_doubts(doubts: Iterable[tuple[ImageSample, str]]) -> list[str]:
    """Returns a sentence for each kind of doubt, with names of the masks."""
    by_kind = collections.defaultdict(list)
    for sample, doubt in doubts:
        by_kind[doubt].append(str(sample.mask_path))
    return [
        f"{len(by_kind[kind])} {text.format(enumerate_names(by_kind[kind]))}"
        for kind, text in _DOUBTS.items()
        if kind in by_kind
    ]


def decode_mask(encoded: bytes) -> np.ndarray:
    """Decodes a mask, bool `(height, width)`, in its upright orientation.

    Defective is what lies above 0 in any color, in full precision; in lossy
    files (JPEG) what lies above half of white. Of a palette it is every index
    above 0, or what is not black where black stands behind 0. What is
    transparent is not defective; in one color alone, what is visible is.
    """
    with open_image(encoded) as (image, _):
        # Reading alone passes over the checksums of PNG.
        image.verify()
    with open_image(encoded) as (image, kind):
        require_size(image, kind)
        pages = 1 if kind == "JPEG" else getattr(image, "n_frames", 1)
        is_wide = has_wide_colors(image)
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if pages > 1:
        raise ValueError(
            f"{pages} pages, where a mask has one. Put them as files into a "
            "folder named like the image: they are merged then"
        )
    if is_wide and kind != "PNG":
        raise ValueError(
            f"{kind} with colors of 16 bits, of which 8 would be lost. Save it "
            "as PNG, in gray, or with 8 bits"
        )
    if is_wide:
        pixels = tf.io.decode_png(encoded, dtype=tf.uint16).numpy()
        mask = _combine(*_split_alpha(pixels, 0))
    elif image.mode == "P":
        mask = _combine(*_read_palette(image))
    else:
        compression = str(image.info.get("compression", ""))
        is_lossy = compression.endswith(("jpeg", "webp")) or (
            kind == "JPEG" or (kind == "WebP" and b"VP8L" not in encoded)
        )
        pixels = _convert(image)
        mask = _combine(*_split_alpha(pixels, 127 if is_lossy else 0))
    # Not as bool: Pillow gives it back with other bytes than 0 and 1, which
    # TensorFlow does not take for the same.
    picture = Image.fromarray(mask.astype("uint8"))
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(picture)) > 0


def _convert(image: Image.Image) -> np.ndarray:
    """Returns pixels `(height, width, channels)`, the last of 2 or 4 alpha."""
    is_keyed = "transparency" in image.info and image.mode in ("1", "L", "RGB")
    if is_keyed or image.mode in ("PA", "RGBa"):
        image = image.convert("RGBA")
    elif image.mode[0] not in "1LRIF" or image.mode in ("LAB", "RGBX"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _split_alpha(
    pixels: np.ndarray, level: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which pixels are brighter than a level, and which are visible."""
    colors, alpha = pixels, np.ones((1, 1), bool)
    if pixels.shape[-1] in (2, 4):
        colors, alpha = pixels[..., :-1], pixels[..., -1] > 0
    return np.any(colors > level, axis=-1), alpha


def _read_palette(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    image.apply_transparency()
    palette = np.reshape(image.getpalette("RGBA") or [], (-1, 4))
    colors = np.zeros((256, 4), "uint8")
    colors[: len(palette)] = palette
    indices = np.asarray(image)
    is_black = np.all(colors[:, :3] == 0, axis=-1)
    # Programs that save space may sort the colors by how frequent they are.
    by_color = not is_black[0] and is_black[np.unique(indices)].any()
    colored = ~is_black[indices] if by_color else indices > 0
    return colored, colors[indices, 3] > 0


def _combine(colored: np.ndarray, visible: np.ndarray) -> np.ndarray:
    if visible.all() or not visible.any():
        return colored
    if not colored.any():
        return visible
    both = colored & visible
    if not both.any():
        raise ValueError(
            "its colors contradict its alpha channel: all that is not black is "
            "transparent. Save it in black and white, without alpha"
        )
    return both


def resize_mask(mask: Any, image_size: Any) -> tuple[np.ndarray, int]:
    """Resizes a mask `(height, width)` by the nearest neighbor; loses nothing.

    A connected region (8 neighbors) of which no pixel is met keeps the pixels
    that hold most of it: each at least half as much as the one that holds
    most. Returns the mask, bool, and how many such regions there are.
    """
    mask, size = np.asarray(mask, bool), standardize_size(image_size)
    # In single precision, like `tf.image.resize`.
    grid = np.ix_(
        *(
            np.minimum(
                (np.arange(new, dtype="float32") + np.float32(0.5))
                * (np.float32(old) / np.float32(new)),
                old - 1,
            ).astype("int64")
            for new, old in zip(size, mask.shape, strict=True)
        )
    )
    resized = mask[grid]
    if (size[0] >= mask.shape[0] and size[1] >= mask.shape[1]) or (
        not mask.any()
    ):
        return resized, 0
    regions, count = ndimage.label(mask, EIGHT_NEIGHBORS)
    is_met = np.zeros(count + 1, bool)
    is_met[0] = True
    is_met[regions[grid]] = True
    lost = np.flatnonzero(~is_met)
    boxes = ndimage.find_objects(regions) if lost.size else []
    for number in lost:
        box = boxes[number - 1]
        places = np.argwhere(regions[box] == number)
        places += [side.start for side in box]
        cells, shares = np.unique(
            places * size // mask.shape, axis=0, return_counts=True
        )
        kept = cells[2 * shares >= shares.max()]
        resized[tuple(kept.T)] = True
    return resized, lost.size
