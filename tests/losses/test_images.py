import re

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy
from skimage.metrics import structural_similarity

from keras_sspcab.losses import (
    FocalLoss,
    ReconstructionLoss,
    gradient_difference,
    least_squares,
    ssim,
    summed_gradient_difference,
)


def frames(seed, shape=(2, 5, 7, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    "loss", [FocalLoss(1.5, 1e-3), ReconstructionLoss(0.5)]
)
def test_config(loss):
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(copy) is type(loss)
    assert copy.get_config() == loss.get_config()


# === Structural similarity ===


def pair(shape=(2, 24, 31, 3), low=0.0, high=1.0):
    rng = np.random.default_rng(0)
    first = rng.uniform(low, high, shape).astype("float32")
    second = np.clip(first + rng.normal(0, 0.2, shape), low, high)
    return first, second.astype("float32")


@pytest.mark.parametrize(
    ("low", "high", "value_range"),
    [(0, 1, 1), (-0.4, 1, 1), (-0.9, 1, 2), (0, 200, 255), (-1, 200, 256)],
)
def test_equals_scikit_image_away_from_the_border(low, high, value_range):
    first, second = pair((2, 24, 31, 3), low, high)
    # The range is read off the first image.
    first[:, 0, 0, 0], first[:, 0, 1, 0] = low, high
    result = numpy(ssim(first, second))
    for i in range(len(first)):
        _, expected = structural_similarity(
            first[i],
            second[i],
            gaussian_weights=True,
            use_sample_covariance=False,
            data_range=value_range,
            channel_axis=-1,
            full=True,
        )
        np.testing.assert_allclose(
            result[i, 5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-4
        )


def test_zeros_lie_outside():
    first, second = pair((1, 16, 16, 1))
    padded = [
        np.pad(x, ((0, 0), (5, 5), (5, 5), (0, 0))) for x in (first, second)
    ]
    expected = numpy(ssim(*padded))[:, 5:-5, 5:-5]
    np.testing.assert_allclose(numpy(ssim(first, second)), expected, atol=1e-6)


def test_even_windows_are_refused():
    with pytest.raises(ValueError, match="window_size=10"):
        ssim(*pair(), window_size=10)


def test_reconstruction_loss_is_the_sum_of_its_parts():
    truth, prediction = pair()
    squared = np.mean((prediction - truth) ** 2)
    dissimilarity = 1 - numpy(ssim(prediction, truth)).mean()
    for weight in (0.0, 2.0):
        loss = ReconstructionLoss(ssim_weight=weight)
        assert float(loss(truth, prediction)) == pytest.approx(
            squared + weight * dissimilarity, rel=1e-4
        )


# === Focal loss ===


def focal(mask, logits, gamma, smoothing):
    logits = logits.astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    one_hot = np.stack([1 - mask, mask], -1).astype("float64")
    y = np.clip(one_hot, smoothing, 1 - smoothing)
    q = (y * p).sum(-1) + smoothing
    return (-((1 - q) ** gamma) * np.log(q)).mean()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [1e-5, 0.1])
def test_focal_loss_equals_the_formula(gamma, smoothing):
    mask = (np.random.default_rng(0).random((2, 5, 7)) < 0.3).astype("float32")
    logits = frames(1, (2, 5, 7, 2))
    loss = float(FocalLoss(gamma, smoothing)(mask, logits))
    expected = focal(mask, logits, gamma, smoothing)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_masks_may_have_a_channel():
    mask = (np.random.default_rng(0).random((2, 5, 7)) < 0.3).astype("float32")
    logits = frames(1, (2, 5, 7, 2))
    loss = FocalLoss()
    expected = float(loss(mask, logits))
    assert float(loss(mask[..., None], logits)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "true", "predicted"),
    [
        (FocalLoss(), (2, 5), (2, 5, 7, 2)),
        (FocalLoss(), (2, 5, 7, 2), (2, 5, 7, 2)),
        (ReconstructionLoss(), (5, 7, 3), (2, 5, 7, 3)),
        (ReconstructionLoss(), (2, 5, 7), (2, 5, 7, 1)),
        (gradient_difference, (2, 5, 7, 1), (2, 5, 7, 3)),
        (summed_gradient_difference, (5, 7, 3), (2, 5, 7, 3)),
    ],
)
def test_targets_are_not_broadcast(loss, true, predicted):
    shapes = f"y_true of shape {true}, y_pred of shape {predicted}"
    with pytest.raises(ValueError, match=re.escape(shapes)):
        loss(np.zeros(true, "float32"), frames(0, predicted))


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
        assert np.isfinite(numpy(tape.gradient(loss, logits))).all()


# === Predicted frames ===


def slopes(frame, before):
    """Differences along both axes, with zeros before or behind the frame."""
    border = (1, 0) if before else (0, 1)
    for axis in (1, 2):
        widths = [(0, 0)] * 4
        widths[axis] = border
        yield np.diff(np.pad(frame, widths), axis=axis)


def test_gradient_difference_of_the_formula():
    true, predicted = frames(0), frames(1)
    expected = sum(
        np.abs(np.abs(t) - np.abs(p))
        for t, p in zip(slopes(true, 0), slopes(predicted, 0), strict=True)
    ).mean((1, 2, 3))
    result = numpy(gradient_difference(true, predicted))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_summed_gradients_of_the_formula():
    true, predicted = frames(0), frames(1)
    difference = (true - predicted).sum(-1, keepdims=True)
    expected = sum(np.abs(s) for s in slopes(difference, 1)).mean((1, 2, 3))
    result = numpy(summed_gradient_difference(true, predicted))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_summed_gradients_see_the_sign():
    true = frames(0)
    # Zero where the absolute gradients are compared.
    same = numpy(gradient_difference(true, -true))
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert (numpy(summed_gradient_difference(true, -true)) > 1).all()


def test_least_squares_of_the_formula():
    judgment = frames(2, (2, 3, 3, 1))
    for label in (0.0, 1.0):
        expected = [((part - label) ** 2).mean() / 2 for part in judgment]
        result = numpy(least_squares(label, judgment))
        assert result == pytest.approx(expected, rel=1e-5)
