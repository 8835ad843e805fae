"""Perlin noise: where the simulated anomalies lie."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_sspcab.data.random import integers, split, uniform
from keras_sspcab.data.simulation.operations import rotate

_LARGEST_EXPONENT = 5
_THRESHOLD = 0.5


def perlin_noise(size: Sequence[Any], seed: tf.Tensor) -> tf.Tensor:
    """Draws Perlin noise (Perlin, "Improving noise", 2002), times `sqrt(2)`.

    A lattice of cells has a random unit gradient at each of its points. At a
    pixel, the slopes of the four points around are blended by the quintic
    `6 t^5 - 15 t^4 + 10 t^3`. As in DRAEM, there are `2^n` cells along height
    and along width, with a random `n` from 0 to 5 for each; of those that leave
    a cell 2 pixels or more. Returns float32 `(height, width)`, from -1 to 1.
    """
    cell_seed, angle_seed = split(seed, 2)
    rows, columns = (
        _draw_cells(side, own)
        for side, own in zip(size, split(cell_seed, 2), strict=True)
    )
    angles = uniform(angle_seed, 0.0, 2.0 * math.pi, (rows + 1, columns + 1))
    return lattice_noise(angles, size)


def perlin_mask(size: Sequence[Any], seed: tf.Tensor) -> tf.Tensor:
    """Draws the mask of an anomaly: where noise, rotated, is above 0.5."""
    noise_seed, angle_seed = split(seed, 2)
    noise = perlin_noise(size, noise_seed)
    angle = uniform(angle_seed, -90.0, 90.0)
    return rotate(noise[..., tf.newaxis], angle)[..., 0] > _THRESHOLD


def lattice_noise(angles: tf.Tensor, size: Sequence[Any]) -> tf.Tensor:
    """Blends the gradients of a lattice to a noise of `size`.

    With `u` and `v` the distances to a lattice point in cells, and `s` the
    quintic, its part is `s(1 - |u|) s(1 - |v|) (u cos + v sin)`. So the sum
    over all points is two products of matrices.
    """
    lattice = tf.shape(angles)
    rows, slopes_of_rows = _influence(size[0], lattice[0])
    columns, slopes_of_columns = _influence(size[1], lattice[1])
    vertical = tf.matmul(slopes_of_rows, tf.cos(angles))
    horizontal = tf.matmul(rows, tf.sin(angles))
    noise = tf.matmul(vertical, columns, transpose_b=True)
    noise += tf.matmul(horizontal, slopes_of_columns, transpose_b=True)
    return math.sqrt(2.0) * noise


def _influence(side: Any, points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights of the points at each pixel, and those times the distance."""
    cell = tf.cast(points - 1, tf.float32) / tf.cast(side, tf.float32)
    places = tf.range(side, dtype=tf.float32) * cell
    distances = places[:, tf.newaxis] - tf.range(points, dtype=tf.float32)
    t = tf.maximum(1.0 - tf.abs(distances), 0.0)
    weights = t * t * t * (t * (6.0 * t - 15.0) + 10.0)
    return weights, weights * distances


def _draw_cells(side: Any, seed: tf.Tensor) -> tf.Tensor:
    powers = 2 ** tf.range(_LARGEST_EXPONENT + 1)
    possible = tf.math.count_nonzero(powers * 2 <= side, dtype=tf.int32)
    return powers[integers(seed, 0, tf.maximum(possible, 1) - 1)]
