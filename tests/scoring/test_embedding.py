import keras
import numpy as np
import pytest
from keras import ops
from scipy import signal

from keras_sspcab.scoring import (
    EmbeddingScore,
    GaussianDensity,
    GradCAM,
    KernelDensity,
    PatchEmbedding,
    ReceptiveFieldUpsampling,
)
from keras_sspcab.scoring.embedding import gaussian_kernel


def numpy(value):
    return ops.convert_to_numpy(value)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


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


def test_length_does_not_matter_where_it_is_normalised():
    layer = EmbeddingScore(GaussianDensity(), normalize=True)
    x = random(4, 5)
    layer(x)
    layer.fit(random(40, 5, seed=1))
    np.testing.assert_allclose(
        numpy(layer(x)[0]), numpy(layer(7 * x)[0]), rtol=1e-3
    )
    assert np.isfinite(numpy(layer(0 * x)[1])).all()


def test_grad_cam_by_hand():
    features, slope = random(2, 3, 4, 5), random(2, 5, seed=1)
    expected = np.maximum((features * slope[:, None, None]).sum(-1), 0) / 12
    np.testing.assert_allclose(
        numpy(GradCAM()(features, slope)), expected, atol=1e-5
    )


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


@pytest.mark.parametrize(("size", "stride"), [(32, 4), (8, 4), (5, 2), (3, 3)])
def test_upsampling_is_a_full_convolution_of_spread_scores(size, stride):
    scores = random(2, 4, 5)
    layer = ReceptiveFieldUpsampling(size, stride)
    result = numpy(layer(scores))
    spread = np.zeros((2, 3 * stride + 1, 4 * stride + 1))
    spread[:, ::stride, ::stride] = scores
    kernel = gaussian_kernel(size)
    expected = [signal.convolve2d(image, kernel) for image in spread]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert result.shape == layer.compute_output_shape(scores.shape)


def test_kernel():
    kernel = gaussian_kernel(32)
    assert kernel.sum() == pytest.approx(1)
    # Between the middle and one standard deviation of 10 pixels from it.
    assert kernel[15, 25] / kernel[15, 15] == pytest.approx(
        np.exp(-(9.5**2 - 0.5**2) / 200)
    )
    std = np.log10(0.45 * 9 + 1) + 0.25
    kernel = gaussian_kernel(9)
    assert kernel[4, 5] / kernel[4, 4] == pytest.approx(
        np.exp(-1 / (2 * std**2))
    )


def test_config():
    layer = EmbeddingScore(KernelDensity(2.0, capacity=9), normalize=True)
    copy = EmbeddingScore.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert copy.density.bandwidth == 2.0
