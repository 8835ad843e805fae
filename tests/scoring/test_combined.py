import numpy as np
import pytest
from keras import ops

from keras_sspcab.scoring import (
    PeakSignalToNoise,
    RegularityScore,
    ZScoreSum,
)


def test_psnr():
    errors = np.array([1.0, 0.01, 2.5e-3, 0.0], "float32")
    result = ops.convert_to_numpy(PeakSignalToNoise()(errors))
    expected = [0, 20, 10 * np.log10(1 / 2.5e-3), 100]
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_regularity_of_the_formula():
    layer = RegularityScore(0.6)
    psnr = np.array([20.0, 30.0, 25.0], "float32")
    distance = np.array([0.02, 0.01, 0.015], "float32")
    layer(psnr, distance)
    layer.fit(psnr, distance)
    result = ops.convert_to_numpy(layer(psnr, distance))
    np.testing.assert_allclose(result, [1, 0, 0.5], atol=1e-5)
    # What is worse than all normal frames lies above 1.
    (worse,) = ops.convert_to_numpy(
        layer(np.array([10.0], "float32"), np.array([0.03], "float32"))
    )
    assert worse == pytest.approx(0.6 * 2 + 0.4 * 2, rel=1e-4)


def test_equal_values_have_no_range():
    layer = RegularityScore(0.5)
    x = np.full(3, 2.0, "float32")
    layer(x, x)
    layer.fit(x, x)
    assert np.isfinite(ops.convert_to_numpy(layer(x, x))).all()


def test_bad_values():
    layer = RegularityScore(0.5)
    layer(np.ones(1, "float32"), np.ones(1, "float32"))
    for psnr in ([], [np.nan]):
        with pytest.raises(ValueError, match="finite values"):
            layer.fit(np.array(psnr), np.ones(len(psnr)))
    with pytest.raises(ValueError, match="psnr_weight=1.5"):
        RegularityScore(1.5)


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


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
    layer(normal)
    errors = errors_of(normal).astype("float64")
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


def test_before_fit_errors_are_added():
    parts = maps()
    score = ZScoreSum((1.0, 0.5))(parts)["score"]
    expected = errors_of(parts) @ [1.0, 0.5]
    np.testing.assert_allclose(numpy(score), expected, rtol=1e-5)


def test_equal_errors_have_no_range():
    layer = ZScoreSum((1.0, 1.0))
    layer(maps())
    layer.fit(np.ones((3, 2)))
    assert np.isfinite(numpy(layer(maps())["score"])).all()


def test_bad_sums():
    layer = ZScoreSum((1.0, 1.0))
    layer(maps())
    with pytest.raises(ValueError, match=r"2 errors of at least one.*\(0, 2\)"):
        layer.fit(np.empty((0, 2)))
    with pytest.raises(ValueError, match="2 errors"):
        layer.fit(np.ones((3, 1)))
    with pytest.raises(ValueError, match="of object 1"):
        layer.fit([[1.0, 2.0], [np.nan, 1.0]])
    for weights in ((-1.0, 1.0), (0.0, 0.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="The weights must be"):
            ZScoreSum(weights)
