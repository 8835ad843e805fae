import math

import numpy as np
import pytest
import tensorflow as tf
from batching import Red, dataset_of
from PIL import Image
from scipy import ndimage
from skimage import color

from keras_sspcab.data.random import fold_key, split, uniform
from keras_sspcab.data.simulation import EmbeddedTextures, simulate_anomalies
from keras_sspcab.data.simulation.anomalies import (
    _draw_cells,
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


def test_probabilities_of_0_and_1(many):
    images = tf.cast(many[:40], tf.float16)
    augmented, target, mask = simulate(
        images, anomaly_probability=0.0, rotation_probability=0.0
    )
    assert not mask.any()
    assert all(part.dtype == np.float32 for part in (augmented, target, mask))
    for part in (augmented, target):
        np.testing.assert_array_equal(part, tf.cast(images, tf.float32))
    # The corners of a turned white image are black.
    white = np.ones((200, 32, 32, 1), "float32")
    certain = {"anomaly_probability": 1.0, "rotation_probability": 1.0}
    _, target, mask = simulate(white, **certain)
    assert mask.any((1, 2)).mean() > 0.8
    black = (target == 0).mean((1, 2, 3))
    assert black.min() < 0.01
    assert 0.13 < black.max() < 1.5 - np.sqrt(2) + 0.09


def test_opacities_are_uniform_from_a_fifth_to_1():
    arguments = {
        "textures": EmbeddedTextures(batch_share=0.0),
        "anomaly_probability": 1.0,
        "rotation_probability": 0.0,
    }
    shape = (200, 32, 32, 1)
    black, _, mask = simulate(np.zeros(shape, "float32"), **arguments)
    white, _, other_mask = simulate(np.ones(shape, "float32"), **arguments)
    np.testing.assert_array_equal(mask, other_mask)
    found = []
    for low, high, where in zip(black, white, mask == 1, strict=True):
        if where.any():
            shares = 1 - (high - low)[where]
            np.testing.assert_allclose(shares, shares.mean(), atol=1e-6)
            found.append(shares.mean())
    assert 0.2 <= min(found) < 0.23
    assert 0.97 < max(found) <= 1.0
    assert abs(np.mean(found) - 0.6) < 0.04


def test_folders_of_textures(tmp_path, clean, pictures):
    Image.fromarray(pictures["noise"]).save(tmp_path / "noise.png")
    augmented, target, mask = simulate(
        clean, textures=tmp_path, anomaly_probability=1.0
    )
    changed = (augmented != target).any((1, 2, 3))
    np.testing.assert_array_equal(changed, mask.any((1, 2)))
    assert mask.any()
    with pytest.raises(ValueError, match="root=3"):
        simulate(clean, textures=3)


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


def test_gradients_point_everywhere():
    lattices = uniform(fold_key(0), 0.0, 2.0 * math.pi, (100, 5, 5))
    noises = np.stack([lattice_noise(a, (32, 32)) for a in lattices])
    # At lattice points the noise is 0, and its slopes are the gradients.
    assert np.abs(noises[:, ::8, ::8]).max() < 1e-6
    assert abs(noises.mean()) < 0.02
    assert 0.8 < noises.max() <= 1.0
    assert -1.0 <= noises.min() < -0.8


@pytest.mark.parametrize(
    ("side", "largest"), [(256, 32), (64, 32), (63, 16), (32, 16)]
)
def test_all_cells_occur_equally_often(side, largest):
    draw = tf.function(lambda seed: _draw_cells(side, seed))
    seeds = [fold_key(i) for i in range(600)]
    values, counts = np.unique([draw(s) for s in seeds], return_counts=True)
    expected = 2 ** np.arange(math.log2(largest) + 1)
    np.testing.assert_array_equal(values, expected)
    assert abs(counts / 600 - 1 / len(expected)).max() < 0.06


def test_axes_have_cells_of_their_own():
    def cells(seed):
        row, column = split(split(fold_key(seed), 2)[0], 2)
        return int(_draw_cells(64, row)), int(_draw_cells(64, column))

    assert sum(a != b for a, b in map(cells, range(60))) > 35
    for seed in range(5):
        rows, columns = cells(seed)
        noise = perlin_noise((64, 64), fold_key(seed)).numpy()
        # At lattice points it is zero.
        lattice = noise[:: 64 // rows, :: 64 // columns]
        np.testing.assert_allclose(lattice, 0.0, atol=1e-6)


def test_masks_are_of_all_sizes_and_seldom_empty():
    draw = tf.function(lambda seed: perlin_mask((64, 64), seed))
    areas = np.array([draw(fold_key(i)).numpy().mean() for i in range(200)])
    assert 0.0 < (areas == 0).mean() < 0.15
    assert areas.max() < 0.5
    assert 0.02 < np.median(areas) < 0.2


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
