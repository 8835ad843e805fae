import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as numpy

from keras_sspcab.layers import WeightNormConv2D

LAST = {"data_format": "channels_last"}


def inputs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 7, 6, 3)).astype("float32")


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
    layer = WeightNormConv2D(4, size, strides, **LAST)
    layer(x)
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    names = ("kernel", "length", "bias", "gamma", "beta")
    v, g, bias, gamma, beta = (
        numpy(getattr(layer, name)).astype("float64") for name in names
    )
    kernel = g * v / np.sqrt((v**2).sum((0, 1, 2)))
    plain = keras.layers.Conv2D(4, size, strides, padding="same", **LAST)
    plain(x)
    plain.set_weights([kernel, bias])
    expected = gamma * numpy(plain(x)).astype("float64") + beta
    np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-4, atol=1e-4)


def test_half_a_kernel_is_padded_for_odd_sizes_only():
    with pytest.raises(ValueError, match="must be odd.*kernel_size=4"):
        WeightNormConv2D(4, 4, strides=2, alignment="pytorch")
    x = inputs()
    for size, alignment in ((3, "pytorch"), (5, "pytorch"), (4, "keras")):
        layer = WeightNormConv2D(4, size, 2, alignment, **LAST)
        assert layer(x).shape == layer.compute_output_shape(x.shape)
