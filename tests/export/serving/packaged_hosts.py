"""Tiny models of all kinds, each packaged once."""

import functools
import pathlib
import tempfile

import keras
import numpy as np

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export.serving.packaging import package_model
from tests.hosts import samples, small_host

#: What each kind of model has to offer.
SIGNATURES = {
    "image": {"serving_default", "serving_bytes"},
    "open": {"serving_default", "serving_bytes"},
    "video": {"serving_default"},
    "objects": {"serving_default"},
}


@functools.cache
def _folder():
    # Removed when Python ends.
    return tempfile.TemporaryDirectory(prefix="packaged-")


def repository():
    """The folder of the repository; for reading only."""
    return pathlib.Path(_folder().name)


def _build(kind):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    if kind == "objects":
        return two_input_model(), {
            "appearance": rng.random((6, 8, 8, 1), "float32"),
            "motion": 9 * rng.random((6, 8, 8, 2), "float32"),
        }
    if kind == "open":
        model = AutoEncoder((None, None, 3), filters=(8, 8, 4))
        model.compile()
        inputs = rng.random((6, 24, 32, 3), "float32")
    else:
        model = small_host({"image": "autoencoder", "video": "mnad"}[kind])
        inputs = samples(model, 6)
    model.calibrate(inputs)
    return model, {model.inputs[0].name: inputs}


def two_input_model():
    """Takes what hosts of objects take; those are slow to trace."""
    appearance = keras.Input((8, 8, 1), name="appearance")
    motion = keras.Input((8, 8, 2), name="motion")
    merged = keras.layers.Concatenate()([appearance, motion])
    errors = keras.layers.Conv2D(1, 3, padding="same", activation="relu")(
        merged
    )
    score = keras.ops.max(errors, axis=(1, 2, 3))
    return keras.Model(
        {"appearance": appearance, "motion": motion},
        {
            "anomaly_score": score,
            "anomaly_map": keras.ops.squeeze(errors, -1),
            "is_anomalous": score > 4,
        },
    )


@functools.cache
def packaged(kind):
    """Returns the folder of a version, and inputs that it takes, by name."""
    model, inputs = _build(kind)
    # Encoded images are resized to one size, also where any is taken.
    options = {"image_size": (24, 32)} if kind == "open" else {}
    result = package_model(
        model, repository(), inputs, name=kind, max_batch_size=2, **options
    )
    return result.path, inputs
