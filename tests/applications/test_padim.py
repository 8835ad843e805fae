import keras
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from keras_sspcab.applications import PaDiM
from keras_sspcab.applications.padim import ChannelChoice
from keras_sspcab.backbones import load_backbone
from tests.applications.helpers import noise_images, numpy

pytestmark = pytest.mark.usefixtures("eager_steps")

SMALL = {"input_shape": (64, 64, 3), "weights": None, "num_features": 20}


def model(**arguments):
    keras.utils.set_random_seed(0)
    arguments = {"weights": "imagenet", "num_features": 12, **arguments}
    return PaDiM((64, 32, 3), **arguments)


def test_map_and_score_are_those_of_the_paper():
    x, other = noise_images(20, 64), noise_images(3, 64, seed=1)
    detector = model(sigma=2)
    detector.fit(x)
    detector.calibrate()
    chosen = np.sort(
        np.random.default_rng(0).choice(176, size=12, replace=False)
    )
    backbone = load_backbone(taps=(4, 8, 16))

    def features(values):
        parts = [numpy(part) for part in backbone(values)]
        parts = [
            part.repeat(factor, 1).repeat(factor, 2)
            for part, factor in zip(parts, (1, 2, 4), strict=True)
        ]
        return np.concatenate(parts, -1)[..., chosen].astype("float64")

    normal, found = features(x), features(other)
    distances = np.zeros((3, 16, 8))
    for row in range(16):
        for column in range(8):
            cell = normal[:, row, column]
            covariance = np.cov(cell.T) + 0.01 * np.eye(12)
            difference = found[:, row, column] - cell.mean(0)
            squares = difference @ np.linalg.inv(covariance) * difference
            distances[:, row, column] = np.sqrt(squares.sum(-1))
    expected = np.stack(
        [resize(part, (64, 32), order=1, mode="edge") for part in distances]
    )
    expected = gaussian_filter(expected, (0, 2, 2), mode="nearest")
    outputs = detector.predict(other, verbose=0)
    np.testing.assert_allclose(
        outputs["raw_score"], expected.max((1, 2)), rtol=1e-3
    )
    calibration = detector.calibration
    result = outputs["anomaly_map"] * calibration.map_std + calibration.map_mean
    np.testing.assert_allclose(result, expected, rtol=1e-3)


def test_channels_are_chosen_by_the_seed():
    x = np.random.default_rng(0).random((2, 3, 4, 30)).astype("float32")
    results = [numpy(ChannelChoice(10, seed)(x)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    channels = {tuple(channel) for channel in x.reshape(-1, 30).T}
    kept = {tuple(channel) for channel in results[0].reshape(-1, 10).T}
    assert len(kept & channels) == 10
    np.testing.assert_array_equal(numpy(ChannelChoice(40)(x)), x)


@pytest.mark.parametrize(
    ("arguments", "channels"),
    [
        ({}, 12),
        ({"num_features": 1000}, 176),
        ({"num_features": None, "sspcab": "features"}, 352),
    ],
)
def test_number_of_channels(arguments, channels):
    detector = model(weights=None, rank=2, **arguments)
    layer = detector.get_layer("position_gaussian")
    assert layer.mean.shape == (128, channels)
    assert detector.get_config()["num_features"] == arguments.get(
        "num_features", 12
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (64, None, 3)}, "must be known"),
        ({"num_features": 0}, "num_features=0"),
        ({"seed": -1}, "seed=-1"),
        ({"shrinkage": 1}, "shrinkage=1"),
        ({"sigma": -1}, "sigma=-1"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"input_shape": (64, 64, 3), "weights": None, **arguments}
    with pytest.raises(ValueError, match=message):
        PaDiM(**arguments)
