"""Several products in one model of a shared backbone."""

import dataclasses
import io
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_sspcab.applications import MultiScalePaDiM, PatchCore
from keras_sspcab.hosts import InspectionModel, ProductModel
from keras_sspcab.scoring.recognition import ProductRecognition

pytestmark = pytest.mark.usefixtures("eager_steps")

SIDE = 32
LEVELS = {"nut": 0.2, "bolt": 0.5, "cap": 0.8}


def small_model(host, seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    model = host((SIDE, SIDE, 3), weights=None, **arguments)
    model.compile()
    return model


def noise(level, count=6, seed=0):
    rng = np.random.default_rng(seed)
    images = level + rng.normal(0, 0.05, (count, SIDE, SIDE, 3))
    return images.clip(0, 1).astype("float32")


@pytest.fixture(scope="module")
def normal():
    return {name: noise(level) for name, level in LEVELS.items()}


@pytest.fixture(scope="module")
def singles(normal):
    models = {}
    for name, images in normal.items():
        models[name] = small_model(PatchCore, memory_size=16)
        models[name].fit(images)
        models[name].calibrate()
    return models


@pytest.fixture(scope="module")
def model(singles, normal):
    joined = ProductModel.join(singles)
    recognition = joined.fit_recognition(normal)
    assert recognition.accuracy == 1.0
    assert recognition.num_unknown == {"nut": 0, "bolt": 0, "cap": 0}
    return joined


def assert_same(received, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], values, err_msg=name)


@pytest.mark.parametrize("number", range(3))
def test_outputs_are_those_of_the_model_of_the_product(model, singles, number):
    name = model.products[number]
    images = noise(0.5, count=3, seed=1)
    expected = singles[name].predict(images, verbose=0)
    assert_same(model.predict(images, product=name, verbose=0), expected)
    assert_same(model.predict_on_batch(images, product=number), expected)


def test_each_image_of_a_batch_is_scored_as_its_product(model, singles):
    images = np.concatenate(
        [noise(level, 2, seed=2) for level in LEVELS.values()]
    )
    outputs = model.predict(images, verbose=0)
    assert outputs["product_index"].tolist() == [0, 0, 1, 1, 2, 2]
    for number, single in enumerate(singles.values()):
        rows = slice(2 * number, 2 * number + 2)
        expected = single.predict(images[rows], verbose=0)
        for name, values in expected.items():
            np.testing.assert_allclose(
                outputs[name][rows], values, rtol=1e-5, atol=1e-5
            )


def test_what_resembles_none_is_unknown_and_anomalous(model):
    images = np.random.default_rng(0).random((2, SIDE, SIDE, 3), "float32")
    outputs = model.predict(images, verbose=0)
    assert outputs["product_index"].tolist() == [-1, -1]
    assert outputs["is_anomalous"].all()
    assert model.recognize(images).tolist() == [-1, -1]
    # An index of no product is not taken for another.
    inputs = {"image": images, "product": np.array([3, -1], "int32")}
    indices = model.graph_with_options().predict_on_batch(inputs)
    assert indices["product_index"].tolist() == [-1, -1]


def test_what_is_not_finite_is_refused_whatever_is_said_of_it(model):
    images = np.full((1, SIDE, SIDE, 3), np.nan, "float32")
    for product in (None, "nut"):
        with pytest.raises(ValueError, match="finite"):
            model.predict(images, product=product, verbose=0)


def test_names_are_checked(model, singles, normal):
    with pytest.raises(ValueError, match=r"'screw'.*nut, bolt, cap"):
        model.predict(normal["nut"], product="screw", verbose=0)
    with pytest.raises(ValueError, match="One product is needed for each"):
        model.predict(normal["nut"], product=["nut"], verbose=0)
    with pytest.raises(ValueError, match="images are an array.*list"):
        model.predict([normal["nut"]], product="nut", verbose=0)
    with pytest.raises(ValueError, match="several products.*a ProductModel"):
        InspectionModel(model)
    with pytest.raises(ValueError, match="different names"):
        ProductModel(singles["nut"], ["nut", "nut"])
    with pytest.raises(ValueError, match="frozen features"):
        ProductModel(keras.Sequential(), ["nut"])
    with pytest.raises(ValueError, match="images of all products"):
        model.fit_recognition({"nut": normal["nut"]})


def test_models_that_cannot_share_a_backbone_are_not_joined(singles):
    nut = singles["nut"]
    for other, problem in (
        (small_model(PatchCore, seed=1, memory_size=16), "weights of their"),
        (small_model(PatchCore, memory_size=32), "memory_size"),
        (small_model(MultiScalePaDiM), "PatchCore and MultiScalePaDiM"),
    ):
        with pytest.raises(ValueError, match=problem):
            ProductModel.join({"nut": nut, "other": other})


def test_it_is_fitted_and_calibrated_by_product(model, normal):
    with pytest.raises(ValueError, match="join"):
        model.fit(normal["nut"])
    with pytest.raises(ValueError, match=r"Fit a model to each"):
        model.compile("adam")
    with pytest.raises(ValueError, match="join"):
        model.calibrate(normal["nut"])
    calibration = model.calibration
    with pytest.raises(ValueError, match="each product is needed"):
        model.calibration = dataclasses.replace(calibration, products=())
    model.calibration = calibration.adjusted(threshold=-100.0)
    assert model.predict(normal["cap"], verbose=0)["is_anomalous"].all()
    model.calibration = calibration
    assert model.calibration == calibration


def test_files_hold_all_of_it(model, normal, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert loaded.products == model.products
    assert loaded.calibration == model.calibration
    # Each weight is there once.
    stored = []
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(lambda _, item: stored.append(getattr(item, "size", 0)))
    assert sum(stored) == model.count_params()
    images = np.concatenate([part[:2] for part in normal.values()])
    assert_same(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


@pytest.mark.slow
def test_each_product_has_a_block_of_its_own(normal):
    models = {}
    for name in ("nut", "cap"):
        models[name] = small_model(PatchCore, memory_size=16, sspcab="features")
        models[name].fit(normal[name], verbose=0)
        models[name].calibrate()
    joined = ProductModel.join(models)
    images = noise(0.3, 2)
    for name, single in models.items():
        expected = single.predict(images, verbose=0)
        assert_same(joined.predict(images, product=name, verbose=0), expected)
    assert not joined.losses


def test_one_image_of_each_is_enough_to_tell_them_apart():
    layer = ProductRecognition(2)
    layer.build((None, 3))
    far = np.array([[0.0, 0, 0]]), np.array([[1.0, 1, 1]])
    assert [found.tolist() for found in layer.fit(far)] == [[0], [1]]
    found, nearest = layer(np.array([[0.1, 0, 0], [0.9, 1, 1]], "float32"))
    assert np.array(found).tolist() == np.array(nearest).tolist() == [0, 1]
