import keras
import numpy as np
import pytest
from keras import ops
from skimage.metrics import structural_similarity

from keras_sspcab.losses import ReconstructionLoss, ssim


def pair(shape=(2, 24, 31, 3), low=0.0, high=1.0):
    rng = np.random.default_rng(0)
    first = rng.uniform(low, high, shape).astype("float32")
    second = np.clip(first + rng.normal(0, 0.2, shape), low, high)
    return first, second.astype("float32")


def numpy(value):
    return ops.convert_to_numpy(value)


def test_equals_scikit_image_away_from_the_border():
    first, second = pair()
    result = numpy(ssim(first, second))
    for i in range(len(first)):
        _, expected = structural_similarity(
            first[i],
            second[i],
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
            full=True,
        )
        np.testing.assert_allclose(
            result[i, 5:-5, 5:-5], expected[5:-5, 5:-5], atol=1e-5
        )


def test_zeros_lie_outside():
    first, second = pair((1, 16, 16, 1))
    padded = [
        np.pad(x, ((0, 0), (5, 5), (5, 5), (0, 0))) for x in (first, second)
    ]
    np.testing.assert_allclose(
        numpy(ssim(first, second)),
        numpy(ssim(*padded))[:, 5:-5, 5:-5],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("low", "high", "value_range"),
    [(0, 1, 1), (-0.4, 1, 1), (-0.9, 1, 2), (0, 200, 255), (-1, 200, 256)],
)
def test_range_is_read_off_the_first_image(low, high, value_range):
    first, second = pair((1, 24, 24, 1), low, high)
    first[0, 0, 0, 0], first[0, 0, 1, 0] = low, high
    _, expected = structural_similarity(
        first[0, ..., 0],
        second[0, ..., 0],
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=value_range,
        full=True,
    )
    result = numpy(ssim(first, second))[0, 5:-5, 5:-5, 0]
    np.testing.assert_allclose(result, expected[5:-5, 5:-5], atol=1e-4)


def test_even_windows_are_refused():
    with pytest.raises(ValueError, match="window_size=10"):
        ssim(*pair(), window_size=10)


def test_reconstruction_loss_is_the_sum_of_its_parts():
    truth, prediction = pair()
    squared = np.mean((prediction - truth) ** 2)
    dissimilarity = 1 - numpy(ssim(prediction, truth)).mean()
    for weight in (0.0, 1.0, 2.0):
        loss = ReconstructionLoss(ssim_weight=weight)
        assert float(loss(truth, prediction)) == pytest.approx(
            squared + weight * dissimilarity, rel=1e-4
        )
    assert float(ReconstructionLoss()(truth, truth)) == pytest.approx(
        0, abs=1e-5
    )


def test_config():
    loss = ReconstructionLoss(ssim_weight=0.5)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(copy, ReconstructionLoss)
    assert copy.ssim_weight == 0.5
