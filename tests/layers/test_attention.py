import numpy as np
from keras import ops

from keras_sspcab import ChannelAttention, SpatialAttention
from tests.layers import oracle


def features(shape=(2, 6, 5, 16)):
    rng = np.random.default_rng(0)
    return np.abs(rng.normal(size=shape)).astype("float32")


def test_channel_attention_equals_its_equation():
    x = features()
    layer = ChannelAttention(reduction_ratio=4, bias_initializer="ones")
    result = ops.convert_to_numpy(layer(x))
    expected = oracle.channel_attention(x, *layer.get_weights())
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_fewer_channels_than_the_ratio_leave_one_unit():
    layer = ChannelAttention(8)
    layer.build((None, 8, 8, 3))
    assert layer.squeeze.units == 1


def test_children_are_initialized_differently():
    layer = ChannelAttention(1)
    layer.build((None, 8, 8, 8))
    squeeze, excite = layer.squeeze.kernel, layer.excite.kernel
    assert not np.allclose(
        ops.convert_to_numpy(squeeze), ops.convert_to_numpy(excite)
    )


def test_half_precision_means_do_not_overflow():
    x = np.full((1, 64, 64, 8), 500.0, "float16")
    layer = ChannelAttention(dtype="mixed_float16", kernel_initializer="zeros")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), x / 2)


def test_spatial_attention_equals_its_definition():
    x = features((1, 5, 5, 4))
    layer = SpatialAttention(kernel_size=3)
    result = ops.convert_to_numpy(layer(x))
    kernel, bias = layer.get_weights()
    statistics = np.stack([x.mean(-1), x.max(-1)], -1)
    padded = np.pad(statistics, [(0, 0), (1, 1), (1, 1), (0, 0)])
    logits = np.zeros((1, 5, 5, 1)) + bias
    for i in range(3):
        for j in range(3):
            logits += padded[:, i : i + 5, j : j + 5] @ kernel[i, j]
    np.testing.assert_allclose(result, x * oracle.sigmoid(logits), rtol=1e-5)
