import re

import numpy as np
import pytest

from keras_sspcab.metrics import Curve
from keras_sspcab.report import figures
from tests.report.run_folders import texts


def histogram(scores, threshold, name="h"):
    series = [("normal", figures.NORMAL, scores)]
    return figures.score_histogram(name, series, threshold, (5.0, 3.0))


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ([1.0], 1.0),
        ([1.0, 1.0], None),
        ([0.0, 0.0], 0.0),
        ([-0.5, 0.1, 1.0], 50.0),
        (np.append(np.linspace(-2, 2, 50), 1e5), 3.0),
    ],
    ids=["one", "equal", "zero", "far threshold", "outlier"],
)
def test_histogram_of_any_scores(scores, threshold):
    labels = texts(histogram(scores, threshold))
    assert f"normal ({len(scores)})" in labels
    assert ("threshold" in labels) == (threshold is not None)


def test_colors_are_variables_and_identifiers_have_a_prefix():
    svg = figures.unit_curves(
        "name",
        [("a", figures.ACCENT, Curve(np.array([0, 1]), np.array([0, 1])))],
        ("x", "y"),
        limit=0.3,
    )
    assert "var(--accent)" in svg
    assert "#0102" not in svg
    assert all(i.startswith("name-") for i in re.findall(r'\bid="(.*?)"', svg))
    targets = re.findall(r'url\(#(.*?)\)|href="#(.*?)"', svg)
    assert targets
    for target in targets:
        assert f'id="{"".join(target)}"' in svg
    assert "xmlns" not in svg


def test_large_losses_are_on_a_logarithmic_axis():
    def draw(values):
        series = [("training", figures.ACCENT, np.array(values))]
        return texts(figures.training_curve("t", series, np.arange(3.0)))

    assert {"0.01", "1", "100"} <= set(draw([100, 1, 0.01]))
    assert {"0.40", "0.50"} <= set(draw([0.5, 0.45, 0.4]))
    assert {"0.0001", "0.001"} <= set(draw([2e-3, 1e-3, 1e-4]))
