import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from keras_sspcab.data.random import fold_key, split, uniform
from keras_sspcab.data.simulation.anomalies import (
    _draw_cells,
    lattice_noise,
    perlin_mask,
    perlin_noise,
)


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


@pytest.mark.parametrize(
    ("side", "largest"), [(256, 32), (64, 32), (63, 16), (32, 16)]
)
def test_all_cells_occur_equally_often(side, largest):
    draw = tf.function(lambda seed: _draw_cells(side, seed))
    seeds = [fold_key(i) for i in range(1200)]
    values, counts = np.unique([draw(s) for s in seeds], return_counts=True)
    expected = 2 ** np.arange(math.log2(largest) + 1)
    np.testing.assert_array_equal(values, expected)
    assert abs(counts / 1200 - 1 / len(expected)).max() < 0.04


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
