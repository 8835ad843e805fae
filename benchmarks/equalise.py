"""Writes a copy of a data folder in which all images are equally bright.

Run: python -m benchmarks.equalise FOLDER COPY

Each image is shifted to a median of one half; masks are copied. In MVTec AD's
screw the mean brightness alone tells all defective test images from the good
ones, so that figures measured on it as it comes say little about a detector.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from keras_sspcab.data import scan_image_folder
from keras_sspcab.runs.files import replacing_folder


def equalise(images: np.ndarray) -> np.ndarray:
    """Shifts each image of a batch in [0, 1] to a median of one half."""
    medians = np.median(images, axis=(1, 2, 3), keepdims=True)
    return np.clip(images - medians + 0.5, 0, 1)


def equalise_folder(source: Path, target: Path) -> int:
    """Writes the copy of a folder in MVTec AD's layout; counts its images."""
    folder = scan_image_folder(source, "mvtec")
    samples = (*folder.train, *folder.validation, *folder.test)
    with replacing_folder(os.fspath(target)) as temporary:
        for sample in samples:
            with Image.open(sample.path) as image:
                pixels = np.atleast_3d(image) / 255.0
            result = np.uint8(np.rint(255 * equalise(pixels[np.newaxis])[0]))
            path = Path(temporary, Path(sample.path).relative_to(source))
            path = path.with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(result.squeeze()).save(path)
            if sample.mask_path:
                mask = Path(sample.mask_path)
                copy = Path(temporary, mask.relative_to(source))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(mask, copy)
    return len(samples)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("copy", type=Path)
    arguments = parser.parse_args()
    count = equalise_folder(arguments.folder.resolve(), arguments.copy)
    print(f"Wrote {count} images to {arguments.copy}")


if __name__ == "__main__":
    main()
