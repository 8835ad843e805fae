"""Writes a copy of a data folder in which all images have the same gain.

Run: python -m benchmarks.correct_gain FOLDER COPY

Each image is divided by its median and halved, so that the median becomes one
half; masks are copied. In the copy of MVTec AD's screw that is used here, the
good test images are 0.92 times as bright *and* as contrasted as all others,
which alone tells them from the defective ones. A shift of the brightness would
leave the contrast, and with it the shortcut.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from keras_sspcab.data import scan_image_folder
from keras_sspcab.files import replacing_folder


def correct_gain(images: np.ndarray) -> np.ndarray:
    """Scales each image of a batch in [0, 1] to a median of one half.

    What gets brighter than 1 is clipped.

    Raises:
        ValueError: If the median of an image is 0.
    """
    medians = np.median(images, axis=(1, 2, 3), keepdims=True)
    if not medians.all():
        raise ValueError(
            "The median of each image must be above 0, or there is no gain to "
            f"correct. Received: {np.count_nonzero(medians == 0)} images whose "
            "median is 0"
        )
    return np.clip(images / medians * 0.5, 0, 1)


def correct_folder(source: Path, target: Path) -> int:
    """Writes the copy of a folder in MVTec AD's layout; counts its images."""
    folder = scan_image_folder(source, "mvtec")
    samples = (*folder.train, *folder.validation, *folder.test)
    with replacing_folder(os.fspath(target)) as temporary:
        for sample in samples:
            with Image.open(sample.path) as image:
                upright = np.asarray(ImageOps.exif_transpose(image))
                pixels = np.atleast_3d(upright) / 255.0
            corrected = correct_gain(pixels[np.newaxis])[0]
            result = np.uint8(np.rint(255 * corrected))
            path = Path(temporary, Path(sample.path).relative_to(source))
            path = path.with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(result.squeeze()).save(path)
            if sample.mask_path:
                mask = Path(sample.mask_path)
                copy = Path(temporary, mask.relative_to(source))
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy_any = shutil.copytree if mask.is_dir() else shutil.copy
                copy_any(mask, copy)
    return len(samples)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("copy", type=Path)
    arguments = parser.parse_args()
    count = correct_folder(arguments.folder.resolve(), arguments.copy)
    print(f"Wrote {count} images to {arguments.copy}")


if __name__ == "__main__":
    main()
