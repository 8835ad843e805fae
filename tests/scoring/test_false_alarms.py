import numpy as np
import pytest

from keras_sspcab.scoring.false_alarms import are_as_normal


@pytest.mark.parametrize(
    ("count", "added", "least", "most"),
    [
        # Changes that make images stranger are rarely taken for harmless.
        (5, 1.0, 0.0, 0.1),
        (50, 1.0, 0.0, 0.1),
        (5, 2.0, 0.0, 0.02),
        # Harmless ones are seen the better the more images there are.
        (5, 0.0, 0.25, 1.0),
        (10, 0.0, 0.55, 1.0),
        (20, 0.0, 0.82, 1.0),
    ],
)
def test_error_rates_of_the_comparison(count, added, least, most):
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(400, 2, count))
    pairs[:, 1] += added
    rate = np.mean([are_as_normal(*pair) for pair in pairs])
    assert least <= rate <= most
