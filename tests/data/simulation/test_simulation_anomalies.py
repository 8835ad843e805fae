import math

import numpy as np
import pytest
import tensorflow as tf
from batching import Red, dataset_of
from scipy import ndimage
from skimage import color

from keras_sspcab.data.random import fold_key, split, uniform
from keras_sspcab.data.simulation import (
    simulate_anomalies,
)
from keras_sspcab.data.simulation.anomalies import (
    lattice_noise,
    perlin_mask,
    perlin_noise,
)


def collect(dataset):
    """Returns augmented images, clean ones and masks of all batches."""
    parts = [
        (x.numpy(), y["reconstruction"].numpy(), y["segmentation"].numpy())
        for x, y in dataset
    ]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def simulate(images, batch_size=8, **arguments):
    return collect(
        simulate_anomalies(dataset_of(images, batch_size), **arguments)
    )


@pytest.fixture(scope="module")
def many():
    """200 small images of noise."""
    rng = np.random.default_rng(2)
    return rng.uniform(0.1, 0.9, (200, 32, 32, 3)).astype("float32")


# === Elements ===


def test_nothing_changes_outside_of_the_mask(many):
    augmented, target, mask = simulate(many, anomaly_probability=1.0)
    assert set(np.unique(mask)) == {0.0, 1.0}
    outside = mask == 0
    np.testing.assert_array_equal(augmented[outside], target[outside])
    inside = mask == 1
    differs = (augmented != target).any(-1)
    assert differs[inside].mean() > 0.98
    assert augmented.min() >= 0.0
    assert augmented.max() <= 1.0
    assert np.ptp(augmented, axis=-1)[inside].mean() > 0.1
    assert len(np.unique(mask.reshape(200, -1), axis=0)) > 165


def test_shares(many):
    augmented, target, mask = simulate(many)
    anomalous = mask.any((1, 2))
    assert 0.4 < anomalous.mean() < 0.55
    np.testing.assert_array_equal(augmented[~anomalous], target[~anomalous])
    rotated = (target != many).any((1, 2, 3))
    assert 0.2 < rotated.mean() < 0.4
    # Rotation and anomaly are independent.
    assert abs(np.corrcoef(rotated, anomalous)[0, 1]) < 0.2


def test_own_textures_and_gray(many):
    arguments = {"anomaly_probability": 1.0, "rotation_probability": 0.0}
    rgb = simulate(many, textures=Red(), opacity=1.0, **arguments)
    gray = many[..., :1]
    found = simulate(gray, textures=Red(), opacity=1.0, **arguments)
    np.testing.assert_array_equal(found[2], rgb[2])
    inside = found[2] == 1
    np.testing.assert_array_equal(found[0][~inside], gray[~inside])
    # Changed in color, then turned to gray; scikit-image has other weights.
    expected = rgb[0][inside] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found[0][inside][..., 0], expected, atol=1e-5)
    other = color.rgb2gray(rgb[0][inside])
    assert np.corrcoef(found[0][inside][..., 0], other)[0, 1] > 0.9


def fade(t):
    return 6 * t**5 - 15 * t**4 + 10 * t**3


def oracle(angles, size):
    """Perlin noise, pixel by pixel, from its description."""
    cells = np.array(angles.shape) - 1
    noise = np.empty(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = i * cells[0] / size[0], j * cells[1] / size[1]
            row, column = int(y), int(x)
            v, u = y - row, x - column

            def corner(a, b, row=row, column=column, v=v, u=u):
                angle = angles[row + a, column + b]
                return math.cos(angle) * (v - a) + math.sin(angle) * (u - b)

            upper = corner(0, 0) * (1 - fade(u)) + corner(0, 1) * fade(u)
            lower = corner(1, 0) * (1 - fade(u)) + corner(1, 1) * fade(u)
            noise[i, j] = upper * (1 - fade(v)) + lower * fade(v)
    return math.sqrt(2) * noise


@pytest.mark.parametrize(
    ("cells", "size"),
    [
        ((1, 1), (32, 32)),
        ((16, 2), (48, 32)),
        # Cells that do not divide the sides.
        ((4, 8), (35, 50)),
    ],
)
def test_noise_is_that_of_the_description(cells, size):
    shape = (cells[0] + 1, cells[1] + 1)
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, shape)
    found = lattice_noise(tf.constant(angles, tf.float32), size)
    np.testing.assert_allclose(found, oracle(angles, size), atol=3e-6)


def test_mask_is_rotated_noise_above_a_half():
    seed = fold_key(5)
    noise_seed, angle_seed = split(seed, 2)
    noise = perlin_noise((64, 64), noise_seed).numpy()
    angle = uniform(angle_seed, -90.0, 90.0)
    assert abs(angle) > 5
    turned = ndimage.rotate(
        noise, float(angle), reshape=False, order=1, mode="grid-constant"
    )
    found = perlin_mask((64, 64), seed).numpy()
    assert found.dtype == bool
    assert (found != (turned > 0.5)).mean() < 0.002
    assert (found != (noise > 0.5)).mean() > 0.02
