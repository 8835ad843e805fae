import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_sspcab.layers import BilinearUpsampling2D


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


def test_corners_keep_their_values():
    x = images()
    y = ops.convert_to_numpy(BilinearUpsampling2D()(x))
    for row in (0, -1):
        for column in (0, -1):
            np.testing.assert_allclose(
                y[:, row, column], x[:, row, column], atol=1e-6
            )


def test_channels_first():
    x = images()
    last = ops.convert_to_numpy(
        BilinearUpsampling2D(data_format="channels_last")(x)
    )
    first = BilinearUpsampling2D(data_format="channels_first")(
        np.moveaxis(x, -1, 1)
    )
    np.testing.assert_allclose(
        np.moveaxis(ops.convert_to_numpy(first), 1, -1), last, atol=1e-6
    )
    layer = BilinearUpsampling2D(3, data_format="channels_first")
    assert layer.compute_output_shape((2, 4, None, 6)) == (2, 4, None, 18)


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


def test_config_and_bad_arguments():
    layer = BilinearUpsampling2D(3, data_format="channels_first")
    copy = BilinearUpsampling2D.from_config(layer.get_config())
    assert (copy.size, copy.data_format) == (3, "channels_first")
    with pytest.raises(ValueError, match="size=0"):
        BilinearUpsampling2D(0)
    with pytest.raises(ValueError, match="ndim"):
        BilinearUpsampling2D()(images((2, 3, 4)))
