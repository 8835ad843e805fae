import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.losses import FocalLoss


def example(scale=3.0):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, scale, (2, 5, 7, 2)).astype("float32")
    mask = (rng.random((2, 5, 7)) < 0.3).astype("float32")
    return mask, logits


def expected(mask, logits, gamma, smoothing):
    logits = logits.astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    one_hot = np.stack([1 - mask, mask], -1).astype("float64")
    y = np.clip(one_hot, smoothing, 1 - smoothing)
    q = (y * p).sum(-1) + smoothing
    return (-((1 - q) ** gamma) * np.log(q)).mean()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [1e-5, 0.1])
def test_equals_the_formula(gamma, smoothing):
    mask, logits = example(1.0)
    loss = FocalLoss(gamma, smoothing)
    assert float(loss(mask, logits)) == pytest.approx(
        expected(mask, logits, gamma, smoothing), rel=1e-4
    )


def test_without_focus_it_is_the_cross_entropy():
    mask, logits = example(1.0)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(FocalLoss(gamma=0.0)(mask, logits)) == pytest.approx(
        float(cross_entropy(mask, logits)), rel=1e-3
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_certain_pixels_have_finite_gradients(gamma, logit):
    if keras.config.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    logits = tf.Variable(np.full((1, 2, 2, 2), [0, logit], "float32"))
    for mask in (np.zeros((1, 2, 2)), np.ones((1, 2, 2))):
        with tf.GradientTape() as tape:
            loss = FocalLoss(gamma)(mask, logits)
        assert np.isfinite(float(loss))
        gradient = ops.convert_to_numpy(tape.gradient(loss, logits))
        assert np.isfinite(gradient).all()


def test_config():
    loss = FocalLoss(gamma=1.5, smoothing=1e-3)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert (copy.gamma, copy.smoothing) == (1.5, 1e-3)
