import numpy as np
import pytest

from keras_sspcab.scoring import (
    PeakSignalToNoise,
    RegularityScore,
    ZScoreSum,
)
from tests.scoring.helpers import assert_fit_fails, numpy


def test_psnr():
    errors = np.array([1.0, 0.01, 2.5e-3, 0.0], "float32")
    result = numpy(PeakSignalToNoise()(errors))
    expected = [0, 20, 10 * np.log10(1 / 2.5e-3), 100]
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_regularity_of_the_formula():
    layer = RegularityScore(0.6)
    psnr = np.array([20.0, 30.0, 25.0], "float32")
    distance = np.array([0.02, 0.01, 0.015], "float32")
    layer(psnr, distance)
    layer.fit(psnr, distance)
    result = numpy(layer(psnr, distance))
    np.testing.assert_allclose(result, [1, 0, 0.5], atol=1e-5)
    # What is worse than all normal frames lies above 1.
    (worse,) = numpy(
        layer(np.array([10.0], "float32"), np.array([0.03], "float32"))
    )
    assert worse == pytest.approx(0.6 * 2 + 0.4 * 2, rel=1e-4)


def maps(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.random((count, 4, 3)).astype("float32") * scale
        for scale in (100.0, 2.0)
    ]


def errors_of(parts):
    return np.stack([part.sum((1, 2)) for part in parts], -1)


def test_score_of_the_formula():
    normal, parts = maps(), maps(seed=1)
    layer = ZScoreSum((1.0, 0.1))
    before = numpy(layer(normal)["score"])
    errors = errors_of(normal).astype("float64")
    np.testing.assert_allclose(before, errors @ [1.0, 0.1], rtol=1e-5)
    layer.fit(errors)
    outputs = layer(parts)
    z = (errors_of(parts) - errors.mean(0)) / errors.std(0)
    expected = z @ [1.0, 0.1]
    np.testing.assert_allclose(numpy(outputs["score"]), expected, atol=1e-4)
    weighted = [
        w * part / std
        for w, part, std in zip((1.0, 0.1), parts, errors.std(0), strict=True)
    ]
    np.testing.assert_allclose(
        numpy(outputs["map"]), sum(weighted), rtol=1e-4, atol=1e-5
    )
    # The map adds up to the score, but for what nothing scores.
    np.testing.assert_allclose(
        numpy(outputs["map"]).sum((1, 2)) + layer.score_of_nothing,
        expected,
        atol=1e-3,
    )
    nothing = layer([np.zeros((1, 4, 3), "float32")] * 2)["score"]
    assert layer.score_of_nothing == pytest.approx(numpy(nothing)[0], rel=1e-4)


def test_equal_values_have_no_range():
    regularity, x = RegularityScore(0.5), np.full(3, 2.0, "float32")
    regularity(x, x)
    regularity.fit(x, x)
    assert np.isfinite(numpy(regularity(x, x))).all()
    with pytest.raises(ValueError, match="at least one normal frame"):
        regularity.fit([], [])
    with pytest.raises(ValueError, match="1 of 2 values NaN"):
        regularity.fit([np.nan], [1.0])
    total = ZScoreSum((1.0, 1.0))
    total(maps())
    total.fit(np.ones((3, 2)))
    assert np.isfinite(numpy(total(maps())["score"])).all()


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (np.empty((0, 2)), r"2 errors of at least one.*\(0, 2\)"),
        (np.ones((3, 1)), "2 errors"),
        ([[1.0, 2.0], [np.nan, 1.0]], "1 of 4 values NaN"),
    ],
)
def test_bad_errors(errors, message):
    layer = ZScoreSum((1.0, 1.0))
    layer(maps())
    assert_fit_fails(layer, errors, message)
