import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from keras_sspcab.data.simulation.operations import rotate


def oracle(image, degrees):
    """Rotates by scipy; outside of the image all is zero."""
    angle = np.deg2rad(degrees)
    matrix = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    center = (np.array(image.shape[:2]) - 1) / 2
    offset = center - matrix @ center
    planes = [
        ndimage.affine_transform(
            plane, matrix, offset, order=1, mode="grid-constant", cval=0.0
        )
        for plane in np.moveaxis(image.astype("float64"), -1, 0)
    ]
    return np.stack(planes, -1)


@pytest.mark.parametrize("degrees", [-90.0, -33.3, 0.0, 12.5, 71.0, 180.0])
@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 33, 1), (33, 20, 3)])
def test_rotation_is_that_of_scipy(degrees, shape):
    image = np.random.default_rng(0).random(shape, "float32")
    found = rotate(image, degrees)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, oracle(image, degrees), atol=2e-4)


def test_positive_angles_are_anticlockwise():
    image = np.random.default_rng(0).random((8, 8, 3), "float32")
    np.testing.assert_allclose(rotate(image, 90), np.rot90(image), atol=1e-4)


def test_nothing_changes_without_an_angle():
    image = np.random.default_rng(0).random((9, 14, 3), "float32")
    np.testing.assert_array_equal(rotate(image, 0.0), image)


def test_sizes_may_be_dynamic():
    image = np.random.default_rng(0).random((9, 14, 3), "float32")
    signature = [
        tf.TensorSpec((None, None, 3)),
        tf.TensorSpec((), tf.float32),
    ]
    compiled = tf.function(rotate, input_signature=signature)
    found = compiled(image, tf.constant(25.0))
    np.testing.assert_allclose(found, rotate(image, 25.0), atol=1e-6)
    static = tf.function(lambda: rotate(image, 25.0)).get_concrete_function()
    assert static.output_shapes == (9, 14, 3)
