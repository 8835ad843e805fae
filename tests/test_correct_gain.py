"""The gain of images is corrected, and with it their shortcut is gone."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.correct_gain import correct_folder, correct_gain
from keras_sspcab.data import scan_image_folder, write_texture_folder
from keras_sspcab.metrics.diagnosis import image_statistics, statistics_auroc


def test_a_gain_makes_no_difference():
    images = np.random.default_rng(0).random((3, 8, 8, 1)) / 4
    corrected = correct_gain(images)
    np.testing.assert_allclose(np.median(corrected, axis=(1, 2, 3)), 0.5)
    gains = np.array([0.5, 0.92, 2.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(correct_gain(gains * images), corrected)
    # More than twice the median does not fit.
    assert correct_gain(images**4).max() == 1


def test_black_images_have_no_gain():
    images = np.zeros((2, 4, 4, 1))
    images[0] = 0.5
    with pytest.raises(ValueError, match="Received: 1 images whose"):
        correct_gain(images)


def test_copy_holds_images_and_masks(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write_texture_folder(
        source,
        image_size=32,
        num_train=2,
        num_test_good=1,
        num_test_defective=1,
        defects=("hole",),
    )
    assert correct_folder(source, target) == 4
    for kind in ("source", "target"):
        folder = scan_image_folder(tmp_path / kind)
        assert (len(folder.train), len(folder.test)) == (2, 2)
    for sample in (*folder.train, *folder.test):
        with Image.open(sample.path) as image:
            assert np.median(image) == pytest.approx(127.5, abs=1)
    (mask,) = (s.mask_path for s in folder.test if s.mask_path)
    original = mask.replace(str(target), str(source))
    with open(mask, "rb") as copy, open(original, "rb") as file:
        assert copy.read() == file.read()


def read(root):
    """Returns all images, and their labels: -1 for those of the training."""
    folder = scan_image_folder(root)
    images = []
    for sample in (*folder.train, *folder.test):
        with Image.open(sample.path) as image:
            images.append(np.asarray(image.convert("L"))[..., np.newaxis] / 255)
    labels = [-1] * len(folder.train) + [s.label for s in folder.test]
    return np.array(images), np.array(labels)


def auroc_of(images, labels):
    statistics = np.array([image_statistics(image) for image in images])
    is_test = labels >= 0
    return statistics_auroc(
        statistics[~is_test], statistics[is_test], labels[is_test]
    )


def shifted(images):
    medians = np.median(images, axis=(1, 2, 3), keepdims=True)
    return np.clip(images - medians + 0.5, 0, 1)


@pytest.fixture(scope="module")
def screws(mvtec_screw):
    return read(mvtec_screw)


@pytest.mark.data
@pytest.mark.parametrize(
    ("change", "low", "high"),
    [(np.asarray, 0, 0.1), (shifted, 0.1, 0.3), (correct_gain, 0.4, 0.6)],
    ids=["as they come", "shifted", "gain corrected"],
)
def test_screws_lose_their_shortcut(screws, change, low, high):
    images, labels = screws
    assert low <= auroc_of(change(images), labels) <= high


@pytest.mark.data
def test_magnetic_tiles_have_no_shortcut(magnetic_tile):
    assert 0.45 <= auroc_of(*read(magnetic_tile)) <= 0.65
