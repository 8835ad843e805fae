"""Rotating and shifting images and maps."""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_sspcab.layers import RigidResampling


def turn(degrees, right=0.0, down=0.0):
    angle = np.deg2rad(degrees)
    return np.array(
        [
            [np.cos(angle), -np.sin(angle), right],
            [np.sin(angle), np.cos(angle), down],
        ]
    )


POSES = np.stack([turn(0, 2, -1), turn(90, 6, 0), turn(-33, 1.5, 4)])


def resample(x, transforms, **options):
    return ops.convert_to_numpy(RigidResampling(**options)(x, transforms))


@pytest.mark.parametrize(
    ("fill_value", "mode"), [(None, "nearest"), (-1.0, "constant")]
)
def test_equals_linear_interpolation(fill_value, mode):
    images = np.random.default_rng(0).random((3, 9, 7, 2)).astype("float32")
    result = resample(images, POSES, fill_value=fill_value)
    y, x = np.meshgrid(np.arange(9), np.arange(7), indexing="ij")
    for image, pose, moved in zip(images, POSES, result, strict=True):
        places = pose @ np.stack([x.ravel(), y.ravel(), np.ones(63)])
        # Not the last digits: what is just outside is filled.
        places = places[::-1].round(5)
        for channel in range(2):
            expected = ndimage.map_coordinates(
                image[..., channel], places, order=1, mode=mode, cval=-1
            )
            np.testing.assert_allclose(
                moved[..., channel].ravel(), expected, atol=1e-4
            )


def test_inverse_moves_maps_back():
    y, x = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    smooth = (np.sin(x / 9) + np.cos(y / 7)).astype("float32")
    maps = np.stack([smooth] * 2)
    poses = np.stack([turn(20, 5, -8), turn(-45, -3, 12)])
    moved = resample(maps, poses, fill_value=np.float32(9))
    back = resample(moved, poses, inverse=True, fill_value=9.0)
    ones = resample(np.ones_like(maps), poses, fill_value=0.0)
    seen = resample(ones, poses, inverse=True, fill_value=0.0)
    is_seen = seen > 0.999
    assert is_seen.mean() > 0.4
    np.testing.assert_allclose(back[is_seen], maps[is_seen], atol=0.02)
    # What is outside of the aligned map is outside for good.
    outside = resample(np.ones_like(maps), poses, inverse=True, fill_value=0.0)
    assert (back[outside == 0] == 9).all()


def test_integers_and_the_identity():
    images = np.arange(24, dtype="uint8").reshape(1, 4, 6, 1)
    result = resample(images, turn(0)[np.newaxis])
    assert result.dtype == "float32"
    np.testing.assert_array_equal(result, images)
