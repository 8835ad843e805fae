import numpy as np
import pytest

from keras_sspcab.scoring.false_alarms import are_as_normal


@pytest.mark.parametrize("correlation", [0.0, 0.8, 0.99])
@pytest.mark.parametrize(
    ("count", "added", "least", "most"),
    [
        # Changes that make images stranger are rarely taken for harmless.
        (5, 1.0, 0.0, 0.05),
        (20, 1.0, 0.0, 0.05),
        (50, 1.0, 0.0, 0.06),
        # Harmless ones are seen the better the more images there are.
        (5, 0.0, 0.18, 1.0),
        (10, 0.0, 0.48, 1.0),
        (20, 0.0, 0.8, 1.0),
    ],
)
def test_error_rates_of_the_comparison(count, added, least, most, correlation):
    rng = np.random.default_rng(0)
    scores, others = rng.normal(size=(2, 1000, count))
    changed = correlation * scores + np.sqrt(1 - correlation**2) * others
    pairs = zip(scores, changed + added, strict=True)
    rate = np.mean([are_as_normal(*pair) for pair in pairs])
    assert least <= rate <= most
