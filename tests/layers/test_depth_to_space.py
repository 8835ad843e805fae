import numpy as np
import pytest
from keras import ops

from keras_sspcab.layers import DepthToSpace, SpaceToDepth

LAST = {"data_format": "channels_last"}


def numpy(x):
    return ops.convert_to_numpy(x)


def numbered(shape):
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


def spread(x, block):
    """One value after the other."""
    b, h, w, c = x.shape
    c //= block**2
    out = np.empty((b, h * block, w * block, c), x.dtype)
    for row in range(block):
        for column in range(block):
            first = (row * block + column) * c
            out[:, row::block, column::block] = x[..., first : first + c]
    return out


@pytest.mark.parametrize("block", [1, 2, 3])
def test_order_of_channels(block):
    x = numbered((2, 3, 4, 2 * block**2))
    outputs = numpy(DepthToSpace(block, **LAST)(x))
    np.testing.assert_array_equal(outputs, spread(x, block))
    back = SpaceToDepth(block, **LAST)(outputs)
    np.testing.assert_array_equal(numpy(back), x)


def test_agrees_with_tensorflow():
    tf = pytest.importorskip("tensorflow")
    x = numbered((2, 4, 6, 8))
    for layer, function in (
        (DepthToSpace, tf.nn.depth_to_space),
        (SpaceToDepth, tf.nn.space_to_depth),
    ):
        np.testing.assert_array_equal(
            numpy(layer(**LAST)(x)), function(x, 2).numpy()
        )


@pytest.mark.parametrize("layer", [DepthToSpace, SpaceToDepth])
def test_channels_first(layer):
    x = numbered((2, 4, 6, 8))
    last = numpy(layer(**LAST)(x))
    first = layer(data_format="channels_first")
    outputs = numpy(first(x.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(outputs.transpose(0, 2, 3, 1), last)
    shape = first.compute_output_shape((2, 8, 4, 6))
    assert shape == outputs.shape
    assert layer(**LAST).compute_output_shape(x.shape) == last.shape
    assert layer.from_config(first.get_config()).get_config() == (
        first.get_config()
    )


def test_open_sizes():
    layer = SpaceToDepth(**LAST)
    assert layer.compute_output_shape((None, None, 4, 3)) == (None, None, 2, 12)


def test_bad_shapes():
    with pytest.raises(ValueError, match="multiple of 4 with block_size=2"):
        DepthToSpace(**LAST)(np.zeros((1, 2, 2, 6)))
    with pytest.raises(ValueError, match="height and width must be a multiple"):
        SpaceToDepth(**LAST)(np.zeros((1, 3, 2, 6)))
    with pytest.raises(ValueError, match="channel dimension"):
        SpaceToDepth(**LAST).compute_output_shape((1, 2, 2, None))
    with pytest.raises(ValueError, match="block_size"):
        DepthToSpace(0)
