import keras
import numpy as np
import pytest
from keras import ops
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from keras_sspcab.applications import PatchCore

SMALL = {"input_shape": (64, 64, 3), "weights": None, "memory_size": 32}


def images(n=8, height=64, width=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, height, width, 3)).astype("float32")


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


@pytest.mark.parametrize("num_neighbors", [1, 4])
def test_map_and_score_are_those_of_the_paper(num_neighbors):
    x, other = images(), images(3, seed=1)
    detector = model(num_neighbors=num_neighbors, sigma=2)
    detector.fit(x)
    detector.calibrate()
    bank = detector.get_layer("memory_bank")
    memory = ops.convert_to_numpy(bank.memory + bank.center)
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
        near = lengths(memory - memory[nearest]).argsort()[:num_neighbors]
        share = np.exp(worst.min() - worst[near].max())
        share /= np.exp(worst[near] - worst[near].max()).sum()
        expected.append(worst.min() * (1 - share * (num_neighbors > 1)))
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


@pytest.mark.parametrize("count", [1, 2])
def test_few_images(count):
    x = images(count)
    detector = model(memory_size=1000)
    detector.fit(x)
    detector.calibrate()
    outputs = detector.predict(np.concatenate([x, 1 - x]), verbose=0)
    assert all(np.isfinite(value).all() for value in outputs.values())
    normal, abnormal = np.split(outputs["raw_score"], 2)
    assert normal.max() < abnormal.min()


def test_images_of_any_size():
    detector = model(input_shape=(None, None, 3))
    # As folders hold them, one size after the other.
    detector.fit([images(4), images(4, 48, 80)])
    detector.calibrate()
    assert detector.fold_scores.scores.shape == (8,)
    for height, width in ((40, 56), (64, 32)):
        x = images(2, height, width, seed=1)
        outputs = detector.predict(x, verbose=0)
        assert outputs["anomaly_map"].shape == (2, height, width)
    fixed = model()
    fixed.set_weights(detector.get_weights())
    np.testing.assert_allclose(
        fixed.predict_on_batch(x)["raw_score"],
        outputs["raw_score"],
        rtol=1e-3,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_size": 0}, "capacity=0"),
        ({"num_neighbors": 200}, "num_neighbors=200, capacity=100"),
        ({"input_shape": (16, 16, 3)}, "at least 32"),
        ({"sigma": -1}, "sigma=-1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        model(weights=None, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "options"),
    [("savedmodel", {"serving_bytes": False}), ("onnx", {})],
)
def test_exports_for_images_of_any_size(to, options, tmp_path):
    if keras.config.backend() != "tensorflow":
        pytest.skip("exports need TensorFlow")
    from keras_sspcab.export import export_model, load_runner

    detector = model(input_shape=(None, None, 3))
    detector.fit(images())
    detector.calibrate()
    name = {"savedmodel": "served", "onnx": "m.onnx"}[to]
    run = load_runner(
        export_model(
            detector, tmp_path / name, to, images=images(2), **options
        ).path
    )
    for height, width in ((40, 56), (64, 32)):
        x = images(3, height, width, seed=2)
        outputs, expected = run(image=x), detector.predict(x, verbose=0)
        for key in ("anomaly_score", "anomaly_map"):
            np.testing.assert_allclose(outputs[key], expected[key], atol=1e-2)
