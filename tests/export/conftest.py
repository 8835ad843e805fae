"""Real images, and small models that have seen them."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab import SSPCABLayer
from keras_sspcab.applications import AutoEncoder
from keras_sspcab.data import decode_and_resize, write_texture_folder
from keras_sspcab.export import export_onnx, export_saved_model

SIZE = 32

#: Names of artifacts, by format.
FORMATS = {
    "savedmodel": "served",
    "tflite": "m.tflite",
    "onnx": "m.onnx",
    "openvino": "m.xml",
}


def _read(samples):
    return np.stack(
        [
            decode_and_resize(tf.io.read_file(s.path), (SIZE, SIZE), 1).numpy()
            for s in samples
        ]
    )


@pytest.fixture(scope="session")
def textures(tmp_path_factory):
    """Photographs of bricks: `train` (normal) and `test` (half defective)."""
    folder = write_texture_folder(
        tmp_path_factory.mktemp("textures") / "brick",
        image_size=SIZE,
        num_train=48,
        num_test_good=8,
        num_test_defective=10,
    )
    return {"train": _read(folder.train), "test": _read(folder.test)}


def build_detector(textures, size=SIZE, epochs=0, **arguments):
    # Session fixtures come before the fixture that seeds each test.
    keras.utils.set_random_seed(1)
    arguments = {"filters": (8, 8, 4), **arguments}
    model = AutoEncoder((size, size, 1), **arguments)
    model.compile(optimizer=keras.optimizers.Adam(0.003))
    if epochs:
        normal = textures["train"][:32]
        model.fit(normal, epochs=epochs, batch_size=4, verbose=0)
    model.calibrate(textures["train"][32:])
    # A threshold amid the scores, so that both flags occur.
    scores = model.predict(textures["test"], verbose=0)["anomaly_score"]
    low, high = np.sort(scores)[[8, 9]]
    model.calibration = dataclasses.replace(
        model.calibration, threshold=float((low + high) / 2)
    )
    return model


@pytest.fixture(scope="session")
def make_detector(textures):
    """A function that builds calibrated, untrained auto-encoders."""
    return lambda **arguments: build_detector(textures, **arguments)


@pytest.fixture(scope="session")
def detector(textures):
    """A trained and calibrated auto-encoder with one block."""
    return build_detector(textures, epochs=30, smoothing=3)


@pytest.fixture(scope="session")
def saved_model(detector, textures, tmp_path_factory):
    """The result of its export to a SavedModel."""
    folder = tmp_path_factory.mktemp("models") / "bricks"
    return export_saved_model(detector, folder, images=textures["test"])


@pytest.fixture(scope="session")
def onnx_file(detector, textures, tmp_path_factory):
    """The result of its export to ONNX."""
    path = tmp_path_factory.mktemp("onnx") / "bricks.onnx"
    return export_onnx(detector, path, images=textures["test"])


@pytest.fixture(scope="session")
def make_mixed_detector(make_detector):
    """A function from a policy to a detector that computes in 16 bits."""

    def make(policy, **arguments):
        standard = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            return make_detector(**arguments)
        finally:
            keras.config.set_dtype_policy(standard)

    return make


@pytest.fixture(scope="session")
def sizeless_detector(textures):
    """One that takes images of any size, with blocks at two places."""
    return build_detector(textures, size=None, sspcab=("early", "late"))


@pytest.fixture(scope="session")
def plain_model():
    """An ordinary Keras model around the block, by someone else."""
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1), name="photo"),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            SSPCABLayer(),
            keras.layers.Conv2D(1, 3, padding="same", name="drawing"),
        ]
    )


@pytest.fixture
def fingerprint():
    """A function that records what an export must not change."""

    def take(model):
        return {
            "weights": [np.array(weight) for weight in model.get_weights()],
            "config": keras.saving.serialize_keras_object(model),
            "policies": [
                layer.dtype_policy.name for layer in model._flatten_layers()
            ],
            "trainable": [weight.path for weight in model.trainable_weights],
            "compiled": model.compiled,
            "optimizer": id(getattr(model, "optimizer", None)),
        }

    return take


def assert_same(before, after):
    for old, new in zip(
        before.pop("weights"), after.pop("weights"), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    assert before == after
