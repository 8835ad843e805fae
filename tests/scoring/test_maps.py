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

MAPS = np.random.default_rng(0).random((2, 9, 7)).astype("float32")
PAIRS = np.random.default_rng(1).normal(0, 9, (2, 3, 4, 2)).astype("float32")


def mean_of_what_lies_inside(size):
    window = np.ones((1, size, size))
    total = ndimage.convolve(MAPS, window, mode="constant")
    return total / ndimage.convolve(np.ones_like(MAPS), window, mode="constant")


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [
        (MapSmoothing(1), [MAPS], MAPS),
        (MapSmoothing(5), [MAPS], mean_of_what_lies_inside(5)),
        (
            MapSmoothing(5, padding="zeros"),
            [MAPS],
            ndimage.uniform_filter(MAPS, (0, 5, 5), mode="constant"),
        ),
        (MapPooling("mean"), [MAPS], MAPS.mean((1, 2))),
        (MapPooling("max"), [MAPS], MAPS.max((1, 2))),
        (
            MapPooling("top", share=0.05),
            [MAPS],
            np.sort(MAPS.reshape(2, -1))[:, -3:].mean(1),
        ),
        (SquaredError(), [PAIRS, -PAIRS], 4 * (PAIRS**2).mean(-1)),
        (
            AnomalyProbability(),
            [PAIRS],
            special.softmax(PAIRS, axis=-1)[..., 1],
        ),
    ],
)
def test_formulas(layer, inputs, expected):
    result = ops.convert_to_numpy(layer(*inputs))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma", [0, 0.1, 4])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((7, 5), (28, 23)), ((1, 2), (5, 5)), ((9, 7), (5, 6))],
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
