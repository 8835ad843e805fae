import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_sspcab.layers import (
    BilinearUpsampling2D,
    DepthToSpace,
    SpaceToDepth,
)

LAST = {"data_format": "channels_last"}


def images(shape=(2, 5, 7, 3)):
    return np.random.default_rng(0).random(shape).astype("float32")


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 4, 2), (1, 1, 1, 1)])
def test_equals_linear_interpolation_with_aligned_corners(size, shape):
    x = images(shape)
    result = ops.convert_to_numpy(
        BilinearUpsampling2D(size, data_format="channels_last")(x)
    )
    # Zooms the grid of the pixels' centers; a single pixel repeats.
    expected = ndimage.zoom(x, (1, size, size, 1), order=1, mode="nearest")
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_unknown_sizes():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, BilinearUpsampling2D()(inputs))
    assert model.output_shape == (None, None, None, 3)
    for shape in ((2, 5, 7, 3), (1, 8, 2, 3)):
        x = images(shape)
        np.testing.assert_allclose(
            model.predict(x, verbose=0),
            ops.convert_to_numpy(BilinearUpsampling2D()(x)),
            atol=1e-6,
        )


def test_half_precision_knows_where_pixels_lie():
    x = np.linspace(0, 1, 512, dtype="float32").reshape(1, 512, 1, 1)
    half = BilinearUpsampling2D(dtype="float16")(x)
    exact = BilinearUpsampling2D()(x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(half), ops.convert_to_numpy(exact), atol=2e-3
    )


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
    outputs = ops.convert_to_numpy(DepthToSpace(block, **LAST)(x))
    np.testing.assert_array_equal(outputs, spread(x, block))
    back = SpaceToDepth(block, **LAST)(outputs)
    np.testing.assert_array_equal(ops.convert_to_numpy(back), x)
