import keras
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from keras_sspcab.applications import PatchCore
from tests.applications.helpers import noise_images, numpy

pytestmark = pytest.mark.usefixtures("eager_steps")

SMALL = {"input_shape": (64, 64, 3), "weights": None, "memory_size": 32}


def model(**arguments):
    keras.utils.set_random_seed(0)
    return PatchCore(
        **{
            "input_shape": (64, 32, 3),
            "weights": "imagenet",
            "memory_size": 100,
            "num_neighbors": 4,
            **arguments,
        }
    )


def lengths(vectors):
    return np.sqrt((vectors.astype("float64") ** 2).sum(-1))


def test_map_and_score_are_those_of_the_paper():
    x, other = noise_images(8, 64), noise_images(3, 64, seed=1)
    detector = model(sigma=2)
    detector.fit(x)
    detector.calibrate()
    bank = detector.get_layer("memory_bank")
    memory = numpy(bank.memory + bank.center)
    # It holds patches of the normal images.
    normal = detector._statistics.value.predict_on_batch(x)[
        "memory_bank"
    ].reshape(-1, 152)
    assert lengths(memory[:, None] - normal).min(1).max() < 1e-3
    assert len(np.unique(memory, axis=0)) == 100
    found = detector._statistics.value.predict_on_batch(other)["memory_bank"]
    assert found.shape == (3, 8, 4, 152)
    distances = lengths(found[..., None, :] - memory)
    expected = []
    for image in distances.reshape(3, 32, 100):
        worst = image[image.min(1).argmax()]
        nearest = worst.argmin()
        near = lengths(memory - memory[nearest]).argsort()[:4]
        share = np.exp(worst.min() - worst[near].max())
        share /= np.exp(worst[near] - worst[near].max()).sum()
        expected.append(worst.min() * (1 - share))
    outputs = detector.predict(other, verbose=0)
    np.testing.assert_allclose(outputs["raw_score"], expected, rtol=1e-3)
    maps = [
        resize(part, (64, 32), order=1, mode="edge")
        for part in distances.min(-1)
    ]
    maps = gaussian_filter(np.stack(maps), (0, 2, 2), mode="nearest")
    calibration = detector.calibration
    result = outputs["anomaly_map"] * calibration.map_std + calibration.map_mean
    np.testing.assert_allclose(result, maps, rtol=1e-3)


def test_images_of_any_size():
    detector = model(input_shape=(None, None, 3), weights=None)
    # As folders hold them, one size after the other.
    detector.fit([noise_images(4, 64), noise_images(4, 48, 80)])
    detector.calibrate()
    assert detector.fold_scores.scores.shape == (8,)
    for height, width in ((40, 56), (64, 32)):
        x = noise_images(2, height, width, seed=1)
        outputs = detector.predict(x, verbose=0)
        assert outputs["anomaly_map"].shape == (2, height, width)
    fixed = model(weights=None)
    fixed.set_weights(detector.get_weights())
    np.testing.assert_allclose(
        fixed.predict_on_batch(x)["raw_score"], outputs["raw_score"], rtol=1e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_size": 0}, "capacity=0"),
        ({"num_neighbors": 200}, "num_neighbors=200 of 100"),
        ({"sigma": -1}, "sigma=-1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        model(weights=None, **arguments)
