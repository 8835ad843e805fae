import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage, special
from skimage.transform import resize

from keras_sspcab.scoring import (
    AnomalyProbability,
    MapPooling,
    MapSmoothing,
    MapUpsampling,
    SquaredError,
)


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


def test_zeros_can_lie_outside_of_a_smoothed_map():
    maps = np.random.default_rng(0).random((2, 6, 7)).astype("float32")
    result = ops.convert_to_numpy(MapSmoothing(5, padding="zeros")(maps))
    expected = ndimage.uniform_filter(
        maps, (0, 5, 5), mode="constant", cval=0.0
    )
    np.testing.assert_allclose(result, expected, atol=1e-6)
    layer = MapSmoothing(5, padding="zeros")
    assert MapSmoothing.from_config(layer.get_config()).padding == "zeros"
    with pytest.raises(ValueError, match="padding='mirror'"):
        MapSmoothing(5, padding="mirror")


def test_probability_of_two_logits():
    logits = np.random.default_rng(0).normal(0, 9, (2, 3, 4, 2))
    logits = logits.astype("float32")
    result = ops.convert_to_numpy(AnomalyProbability()(logits))
    np.testing.assert_allclose(
        result, special.softmax(logits, axis=-1)[..., 1], atol=1e-6
    )


@pytest.mark.parametrize("sigma", [0, 0.1, 1, 4])
@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((7, 5), (28, 23)),
        ((8, 8), (64, 64)),
        ((1, 2), (5, 5)),
        ((9, 7), (5, 6)),
    ],
)
def test_upsampling_is_bilinear_and_then_gaussian(sigma, grid, size):
    coarse = np.random.default_rng(0).random((2, *grid)).astype("float32")
    images = np.zeros((2, *size, 3), "float32")
    expected = np.stack(
        [
            resize(x, size, order=1, mode="edge", anti_aliasing=False)
            for x in coarse
        ]
    )
    if sigma:
        expected = ndimage.gaussian_filter(
            expected, (0, sigma, sigma), mode="nearest"
        )
    result = ops.convert_to_numpy(MapUpsampling(sigma)(coarse, images))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    # The same where sizes are known only when there are images.
    inputs = keras.Input((None, None)), keras.Input((None, None, 3))
    output = MapUpsampling(sigma)(*inputs)
    assert output.shape == (None, None, None)
    model = keras.Model(inputs, output)
    result = model.predict([coarse, images], verbose=0)
    np.testing.assert_allclose(result, expected, atol=1e-5)
