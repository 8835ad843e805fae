import numpy as np
import pytest
from keras import ops

from keras_sspcab.scoring import PeakSignalToNoise, RegularityScore


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
