import io
import pathlib

import numpy as np
import pytest
from batching import SIZE
from PIL import Image

from keras_sspcab.data import ImageSample
from keras_sspcab.data.cache import clear_image_cache


@pytest.fixture
def write_image():
    """Writes random pixels, or those given, and returns the path."""

    def write(path, pixels=None, size=(12, 10), seed=0):
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            rng = np.random.default_rng([seed, *path.name.encode()])
            pixels = rng.integers(0, 256, size, dtype="uint8")
        Image.fromarray(pixels).save(path)
        return str(path)

    return write


@pytest.fixture
def mvtec(tmp_path, write_image):
    """A small folder in the MVTec AD layout."""
    root = tmp_path / "part"
    for i in range(5):
        write_image(root / f"train/good/{i:03d}.png")
    for i in range(2):
        write_image(root / f"test/good/{i:03d}.png")
    for defect, count in (("crack", 3), ("hole", 1)):
        for i in range(count):
            write_image(root / f"test/{defect}/{i:03d}.png")
            mask = np.zeros((12, 10), "uint8")
            mask[2 + i : 6, 3:8] = 255
            write_image(root / f"ground_truth/{defect}/{i:03d}_mask.png", mask)
    return root


@pytest.fixture(scope="session")
def encode():
    """Encodes pixels, or an image, by Pillow, as an independent writer."""

    def encode(image, kind="PNG", mode=None, **options):
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        if mode is not None:
            image = image.convert(mode)
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def color():
    """Smooth colors, so that JPEG and WebP change little; with noise."""
    rows, columns = np.mgrid[0:40, 0:32]
    rng = np.random.default_rng(0)
    planes = [rows * 5, columns * 7, (rows + columns) * 3]
    noisy = np.stack(planes, -1) + rng.integers(0, 8, (40, 32, 3))
    return noisy.clip(0, 255).astype("uint8")


@pytest.fixture
def samples(tmp_path, write_image):
    """Eleven gray images whose pixels have the value of their index."""
    paths = []
    for i in range(11):
        pixels = np.full(SIZE, i, "uint8")
        paths.append(write_image(tmp_path / f"train/{i:02d}.png", pixels))
    return [ImageSample(path) for path in paths]


@pytest.fixture
def textured(tmp_path, write_image):
    """Seven images of noise, so that every crop is different."""
    return [
        ImageSample(write_image(tmp_path / f"noise/{i}.png")) for i in range(7)
    ]


@pytest.fixture(autouse=True)
def _empty_cache():
    clear_image_cache()
    yield
    clear_image_cache()
