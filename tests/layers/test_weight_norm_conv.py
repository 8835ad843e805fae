import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.layers import WeightNormConv2D

LAST = {"data_format": "channels_last"}


def numpy(x):
    return ops.convert_to_numpy(x)


def inputs(shape=(2, 7, 6, 3), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomized(layer, x, seed=1):
    layer(x)
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_starts_as_a_plain_convolution():
    x = inputs()
    layer = WeightNormConv2D(4, 3, **LAST)
    outputs = numpy(layer(x))
    plain = ops.conv(
        x, layer.kernel, padding="same", data_format=LAST["data_format"]
    )
    np.testing.assert_allclose(outputs, numpy(plain), atol=1e-5)


@pytest.mark.parametrize(("size", "strides"), [(1, 1), (3, 1), (3, 2)])
def test_follows_the_definition(size, strides):
    x = inputs()
    layer = randomized(WeightNormConv2D(4, size, strides, **LAST), x)
    v, g, bias, gamma, beta = (
        numpy(w).astype("float64")
        for w in (
            layer.kernel,
            layer.length,
            layer.bias,
            layer.gamma,
            layer.beta,
        )
    )
    kernel = g * v / np.sqrt((v**2).sum((0, 1, 2)))
    plain = keras.layers.Conv2D(4, size, strides, padding="same", **LAST)
    plain(x)
    plain.set_weights([kernel, bias])
    expected = gamma * numpy(plain(x)).astype("float64") + beta
    np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-4, atol=1e-4)


def test_parameters():
    layer = WeightNormConv2D(5, 3, **LAST)
    layer(inputs())
    # The kernel, and length, bias, gamma and beta of each channel.
    assert layer.count_params() == 9 * 3 * 5 + 4 * 5
    without = WeightNormConv2D(5, 3, use_bias=False, **LAST)
    without(inputs())
    assert without.count_params() == 9 * 3 * 5 + 3 * 5


def test_length_of_the_direction_does_not_matter():
    x = inputs()
    layer = randomized(WeightNormConv2D(4, **LAST), x)
    before = numpy(layer(x))
    layer.kernel.assign(layer.kernel * 7.0)
    np.testing.assert_allclose(numpy(layer(x)), before, rtol=1e-4, atol=1e-4)
