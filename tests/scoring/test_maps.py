import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_sspcab.scoring import MapPooling, MapSmoothing, SquaredError


def maps():
    return np.random.default_rng(0).random((2, 9, 7)).astype("float32")


@pytest.mark.parametrize("size", [1, 3, 5])
def test_smoothing_is_the_mean_of_what_lies_inside(size):
    x = maps()
    window = np.ones((1, size, size))
    total = ndimage.convolve(x, window, mode="constant")
    count = ndimage.convolve(np.ones_like(x), window, mode="constant")
    result = ops.convert_to_numpy(MapSmoothing(size)(x))
    np.testing.assert_allclose(result, total / count, rtol=1e-5)


def test_pooling():
    x = maps()
    for name in ("mean", "max"):
        result = ops.convert_to_numpy(MapPooling(name)(x))
        np.testing.assert_allclose(
            result, getattr(np, name)(x, axis=(1, 2)), rtol=1e-6
        )


def test_squared_error():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 4, 5, 2)).astype("float32")
    result = ops.convert_to_numpy(SquaredError()(a, b))
    np.testing.assert_allclose(result, ((a - b) ** 2).mean(-1), rtol=1e-5)


@pytest.mark.parametrize(
    "layer", [MapSmoothing(3), MapPooling("max"), SquaredError()]
)
def test_config_round_trip(layer):
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config


def test_bad_arguments():
    with pytest.raises(ValueError, match="odd"):
        MapSmoothing(4)
    with pytest.raises(ValueError, match="`pooling`"):
        MapPooling("median")
