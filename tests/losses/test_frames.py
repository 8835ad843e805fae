import numpy as np
import pytest
from keras import ops

from keras_sspcab.losses import (
    gradient_difference,
    least_squares,
    summed_gradient_difference,
)


def frames(seed, shape=(2, 5, 7, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_gradient_difference_of_the_formula():
    true, predicted = frames(0), frames(1)
    expected = np.zeros(2)
    for b in range(2):
        for y in range(5):
            for x in range(7):
                for c in range(3):

                    def at(frame, y, x, b=b, c=c):
                        # One row and one column of zeros, below and right.
                        inside = y < 5 and x < 7
                        return frame[b, y, x, c] if inside else 0.0

                    for dy, dx in ((0, 1), (1, 0)):
                        t, p = (
                            abs(at(f, y + dy, x + dx) - at(f, y, x))
                            for f in (true, predicted)
                        )
                        expected[b] += abs(t - p)
    result = ops.convert_to_numpy(gradient_difference(true, predicted))
    np.testing.assert_allclose(result, expected / (5 * 7 * 3), rtol=1e-5)


def test_least_squares_of_the_formula():
    judgment = frames(2, (2, 3, 3, 1))
    for label in (0.0, 1.0):
        result = ops.convert_to_numpy(least_squares(label, judgment))
        expected = [((part - label) ** 2).mean() / 2 for part in judgment]
        assert result == pytest.approx(expected, rel=1e-5)


def test_summed_gradients_of_the_formula():
    true, predicted = frames(0), frames(1)
    expected = np.zeros(2)
    sums = true.sum(-1), predicted.sum(-1)
    for b in range(2):
        for y in range(5):
            for x in range(7):
                for dy, dx in ((0, 1), (1, 0)):
                    steps = [
                        s[b, y, x]
                        - (s[b, y - dy, x - dx] if y >= dy and x >= dx else 0)
                        for s in sums
                    ]
                    expected[b] += abs(steps[0] - steps[1])
    result = summed_gradient_difference(true, predicted)
    np.testing.assert_allclose(
        ops.convert_to_numpy(result), expected / (5 * 7), rtol=1e-5
    )


def test_summed_gradients_see_the_sign():
    true = frames(0)
    # Zero where the absolute gradients are compared.
    same = ops.convert_to_numpy(gradient_difference(true, -true))
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert (
        ops.convert_to_numpy(summed_gradient_difference(true, -true)) > 1
    ).all()
