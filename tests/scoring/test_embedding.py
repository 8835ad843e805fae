import keras
import numpy as np
import pytest
from scipy import signal

from keras_sspcab.scoring import (
    EmbeddingScore,
    GaussianDensity,
    GradCAM,
    KernelDensity,
    PatchEmbedding,
    ReceptiveFieldUpsampling,
)
from tests.scoring.helpers import numpy, random


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("density", [GaussianDensity, KernelDensity])
def test_slope_is_that_of_finite_differences(density, normalize):
    layer = EmbeddingScore(density(), normalize)
    x = random(4, 5)
    layer(x)
    layer.fit(random(40, 5, seed=1) + 1)
    _, slope = layer(x)
    step = 3e-3
    for axis in range(5):
        shift = step * np.eye(5, dtype="float32")[axis]
        up, down = (numpy(layer(x + sign * shift)[0]) for sign in (1, -1))
        np.testing.assert_allclose(
            numpy(slope)[:, axis],
            (up - down) / (2 * step),
            rtol=0.03,
            atol=0.03,
        )


def test_length_does_not_matter_where_it_is_normalized():
    layer = EmbeddingScore(GaussianDensity(), normalize=True)
    x = random(4, 5)
    layer(x)
    layer.fit(random(40, 5, seed=1))
    np.testing.assert_allclose(
        numpy(layer(x)[0]), numpy(layer(7 * x)[0]), rtol=1e-3
    )
    assert np.isfinite(numpy(layer(0 * x)[1])).all()


def test_grad_cam_is_that_of_automatic_differentiation():
    if keras.config.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    score = EmbeddingScore(GaussianDensity(), normalize=True)
    features = tf.Variable(random(2, 3, 4, 5))
    score(random(2, 5))
    score.fit(random(40, 5, seed=1))
    with tf.GradientTape() as tape:
        total, slope = score(tf.reduce_mean(features, (1, 2)))
        total = tf.reduce_sum(total)
    weights = tf.reduce_mean(tape.gradient(total, features), (1, 2))
    expected = tf.nn.relu(tf.einsum("bhwc,bc->bhw", features, weights))
    result = numpy(GradCAM()(features.value(), slope))
    np.testing.assert_allclose(result, numpy(expected), atol=1e-5)


def test_patches_are_those_of_slices():
    image = keras.Input((None, None, 3))
    network = keras.Model(image, keras.layers.Conv2D(4, 3, strides=2)(image))
    layer = PatchEmbedding(network, patch_size=8, stride=4)
    x = random(2, 16, 20, 3)
    result = numpy(layer(x))
    assert result.shape == (2, 3, 4, 4) == layer.compute_output_shape(x.shape)
    for row in range(3):
        for column in range(4):
            top, left = 4 * row, 4 * column
            patch = x[:, top : top + 8, left : left + 8]
            expected = numpy(network(patch)).mean((1, 2))
            np.testing.assert_allclose(
                result[:, row, column], expected, atol=1e-5
            )


def test_patches_in_a_file(tmp_path):
    image = keras.Input((None, None, 2))
    network = keras.Model(image, keras.layers.Conv2D(3, 3)(image))
    inputs = keras.Input((20, 20, 2))
    embedding = PatchEmbedding(network, patch_size=8, stride=4)
    for stride, side in ((None, 4), (6, 3)):
        assert embedding(inputs, stride=stride).shape == (None, side, side, 3)
    model = keras.Model(inputs, embedding(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = random(1, 20, 20, 2)
    np.testing.assert_allclose(numpy(loaded(x)), numpy(model(x)), atol=1e-6)


def test_patches_fit_and_leave_a_rest():
    image = keras.Input((None, None, 1))
    network = keras.Model(image, keras.layers.Identity()(image))
    layer = PatchEmbedding(network, patch_size=4, stride=3)
    x = random(1, 9, 12, 1)
    assert layer(x).shape == (1, 2, 3, 1)
    assert layer(x, stride=1).shape == (1, 6, 9, 1)
    with pytest.raises(ValueError, match=r"at least 4 x 4.*\(1, 3, 12, 1\)"):
        layer(x[:, :3])


def kernel(size, std):
    offsets = np.arange(size) - (size - 1) / 2
    return np.exp(-np.add.outer(offsets**2, offsets**2) / (2 * std**2))


@pytest.mark.parametrize(
    ("size", "stride", "std"),
    [(32, 4, 10.0), (33, 8, 10.0), (8, 4, 0.9127578), (5, 2, 0.7618834)],
)
@pytest.mark.parametrize("rest", [0, 1])
def test_upsampling_is_a_transposed_convolution(size, stride, std, rest):
    scores = random(2, 4, 5)
    height, width = 3 * stride + size, 4 * stride + size
    image = np.zeros((2, height + rest, width + rest, 3), "float32")
    layer = ReceptiveFieldUpsampling(size, stride)
    result = numpy(layer(scores, image))
    assert result.shape == layer.compute_output_shape(scores.shape, image.shape)

    def spread(values):
        grid = np.zeros((3 * stride + 1, 4 * stride + 1))
        grid[::stride, ::stride] = values
        return signal.convolve2d(grid, kernel(size, std))

    ones = spread(np.ones((4, 5)))
    expected = np.stack([spread(values) / ones for values in scores])
    np.testing.assert_allclose(result[:, :height, :width], expected, atol=1e-5)
    # Pixels in no patch are like the last ones that are in one.
    np.testing.assert_array_equal(result[:, -1], result[:, height - 1])
    np.testing.assert_array_equal(result[..., -1], result[..., width - 1])


def test_pixels_between_patches_are_like_the_nearest_patch():
    layer = ReceptiveFieldUpsampling(patch_size=3, stride=6)
    a, b = 1.0, 5.0
    image = np.zeros((1, 3, 11, 1), "float32")
    result = numpy(layer(np.array([[[a, b]]], "float32"), image))
    expected = [a, a, a, a, a, b, b, b, b, b, b]
    # As near to both is like the one before.
    assert result[0, 0].tolist() == expected
    np.testing.assert_array_equal(result[0, 1:], result[0, :2])
