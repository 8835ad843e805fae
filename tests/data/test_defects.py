import numpy as np
import pytest
from scipy import ndimage

from keras_sspcab.data import textures
from keras_sspcab.data.defects import DEFECTS, draw_defect


def crop(texture="gravel", size=96, seed=0):
    rng = np.random.default_rng([9, seed])
    photograph = textures.read_photograph(f"{texture}.png", "L")
    return textures._crop(photograph, size, rng) / 255.0


def draw(defect, image=None, seed=0, other="grass"):
    image = crop() if image is None else image
    rng = np.random.default_rng(seed)
    foreign = crop(other, len(image))
    return draw_defect(image, defect, rng, foreign=foreign)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize(("texture", "seed"), [("brick", 0), ("gravel", 1)])
def test_mask_marks_what_changed(defect, texture, seed):
    image = crop(texture, seed=seed)
    result, mask = draw(defect, image, seed)
    assert mask.dtype == bool
    assert result.shape == mask.shape == image.shape
    np.testing.assert_array_equal(result[~mask], image[~mask])
    change = np.abs(result - image)[mask]
    # Visible on the whole, and nearly everywhere inside.
    assert change.mean() >= max(0.04, 0.45 * image.std())
    assert (change > 0.0).mean() > 0.95
    assert result.min() >= 0.0
    assert result.max() <= 1.0


@pytest.mark.parametrize("defect", ["hole", "foreign"])
def test_blobs_are_one_piece_without_gaps(defect):
    for seed in range(6):
        mask = draw(defect, seed=seed)[1]
        # Two parts may touch by a corner only.
        _, pieces = ndimage.label(mask, np.ones((3, 3)))
        assert pieces == 1
        np.testing.assert_array_equal(mask, ndimage.binary_fill_holes(mask))


def test_bad_arguments():
    with pytest.raises(ValueError, match="defect='dent'"):
        draw("dent")
    with pytest.raises(ValueError, match="another material"):
        draw_defect(crop(), "foreign", np.random.default_rng(0))
    # What cannot be seen.
    with pytest.raises(ValueError, match="No visible 'blur'"):
        draw("blur", np.full((64, 64), 0.5))
