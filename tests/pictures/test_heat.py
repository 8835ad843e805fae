import numpy as np
import pytest

from keras_sspcab.pictures.heat import HeatScale
from keras_sspcab.report import overlay

BLUE = np.full((4, 6, 3), [10, 20, 200], "uint8")


def test_channels_are_in_rgb_order():
    hot = overlay(BLUE, np.full((4, 6), 100.0), scale=10.0, alpha=1.0)
    red, green, blue = hot[2, 3].astype(int)
    assert red > 150
    assert green < 60
    assert blue < 60
    cold = overlay(BLUE, np.zeros((4, 6)), scale=10.0, alpha=1.0)
    np.testing.assert_array_equal(cold, BLUE)


def test_alpha_mixes_linearly():
    heat = np.full((4, 6), 10.0)
    none, half, full = (
        overlay(BLUE, heat, 10.0, alpha).astype(int) for alpha in (0, 0.5, 1)
    )
    np.testing.assert_array_equal(none, BLUE)
    np.testing.assert_allclose(half, (none + full) / 2, atol=1)


def test_the_scale_does_not_depend_on_the_image():
    heat = np.linspace(0, 20, 24).reshape(4, 6)
    brighter = heat.copy()
    brighter[0, 0] = 1e6
    first, second = overlay(BLUE, heat, 10.0), overlay(BLUE, brighter, 10.0)
    np.testing.assert_array_equal(first[1:], second[1:])


def test_normal_pixels_stay_nearly_as_they_are():
    # One in a thousand normal pixels reaches half the scale; these do not.
    heat = np.full((4, 6), 1.0)
    change = overlay(BLUE, heat, 10.0).astype(int) - BLUE
    assert np.abs(change).max() <= 2


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 1), (8, 12, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_maps_are_stretched_to_images_of_any_kind(shape, dtype):
    image = np.full(shape, 255 if dtype == "uint8" else 1, dtype)
    heat = np.zeros((4, 6))
    heat[3, 0] = 10.0
    result = overlay(image, heat, 10.0)
    assert result.shape == (8, 12, 3)
    assert result.dtype == np.uint8
    strongest = np.unravel_index(result.sum(-1).argmin(), (8, 12))
    assert strongest == (7, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 6, 4), "uint8")}, "image.*shape"),
        ({"image": np.zeros((4, 6), "int32")}, "dtype int32"),
        ({"image": np.full((4, 6), 255.0)}, r"\[0, 1\].*255"),
        ({"image": np.full((4, 6), np.nan)}, r"\[0, 1\]"),
        ({"anomaly_map": np.zeros((1, 4, 6))}, "anomaly_map.*shape"),
        ({"anomaly_map": np.full((4, 6), np.nan)}, "anomaly_map.*finite"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"scale": np.nan}, "scale=nan"),
        ({"alpha": 1.5}, "alpha=1.5"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"image": BLUE, "anomaly_map": np.zeros((4, 6)), "scale": 1.0}
    with pytest.raises(ValueError, match=message):
        overlay(**arguments | change)


def test_scale_of_a_run():
    maps = [np.array([[1.0, 7.0]]), None, np.array([[3.0, 2.0]])]
    assert HeatScale.of(2.5, maps) == HeatScale(5.0, True)
    assert HeatScale.of(None, maps) == HeatScale(7.0, False)
    assert HeatScale.of(0.0, []) == HeatScale(1.0, False)
