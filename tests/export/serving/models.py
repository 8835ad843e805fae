"""Tiny models on disk: exported, and packaged in repositories."""

import functools
import io
import pathlib
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export import export_saved_model
from keras_sspcab.export.serving import Repository, package_model
from tests.hosts import samples, small_host

SIZE = 32
NAME = "screws"
OUTPUTS = ("anomaly_score", "anomaly_map", "is_anomalous")
IMAGES = np.random.default_rng(0).random((12, SIZE, SIZE, 1)).astype("float32")

#: By kind of model, the signatures that it has when it is packaged.
SIGNATURES = {
    "image": {"serving_default", "serving_bytes"},
    "open": {"serving_default", "serving_bytes"},
    "video": {"serving_default"},
    "objects": {"serving_default"},
}


@functools.cache
def tiny_detector(version=1):
    """A calibrated model; those of versions 1 and 2 give other scores."""
    keras.utils.set_random_seed(version)
    model = AutoEncoder((SIZE, SIZE, 1), filters=(8, 8, 4), smoothing=3)
    model.compile()
    model.calibrate(IMAGES / version)
    return model


def images(count, seed=0):
    shape = (count, SIZE, SIZE, 1)
    return np.random.default_rng(seed).random(shape, dtype="float32")


def encoded(image, file_format="PNG", **options):
    """The content of an image file."""
    file = io.BytesIO()
    pixels = (np.squeeze(image) * 255).astype("uint8")
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


# Folders of versions.


@functools.cache
def _model_folder(version):
    # Removed when Python ends.
    folder = tempfile.TemporaryDirectory(prefix="served-")
    path = pathlib.Path(folder.name) / NAME
    export_saved_model(tiny_detector(version), path, version, images=IMAGES)
    return folder


def model_path(version=1):
    """The folder of a model with one version, 1 or 2; for reading only."""
    return pathlib.Path(_model_folder(version).name) / NAME


def add_version(folder, number, version=1):
    """Copies a version, 1 or 2, into the folder of a model, all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f"{number}.part"
    shutil.copytree(model_path(version) / str(version), staged)
    staged.rename(folder / str(number))


def remove_version(folder, number):
    """Removes a version from the folder of a model, all at once."""
    (folder / str(number)).rename(folder.parent / f"{number}.removed")


@functools.cache
def loaded(path):
    """A SavedModel; each is loaded once."""
    return tf.saved_model.load(str(path))


def run_directly(path, signature="serving_default", **inputs):
    """Outputs of a SavedModel, called without a server."""
    function = loaded(path).signatures[signature]
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return {key: value.numpy() for key, value in function(**tensors).items()}


def direct(signature="serving_default", version=1, **inputs):
    """Outputs of version 1 or 2, called without a server."""
    path = model_path(version) / str(version)
    return run_directly(path, signature, **inputs)


def assert_same(outputs, expected):
    assert set(outputs) == set(expected)
    np.testing.assert_array_equal(
        outputs["is_anomalous"], expected["is_anomalous"]
    )
    for name in ("anomaly_score", "anomaly_map"):
        # Sums over batches of other sizes round in another order.
        np.testing.assert_allclose(
            outputs[name], expected[name], rtol=2e-4, atol=2e-4
        )


# Repositories.


def package(directory, **options):
    options = {"name": NAME, "max_batch_size": 4, **options}
    return package_model(tiny_detector(), directory, IMAGES, **options)


def copy_version(repository, new, old=1):
    """Adds a version without the time that packaging takes."""
    shutil.copytree(
        repository.path(NAME, old), repository.path(NAME, new), symlinks=True
    )


def copy_repository(directory, target, versions=1):
    repository = Repository(shutil.copytree(directory, target))
    for version in range(2, versions + 1):
        copy_version(repository, version)
    return repository


@functools.cache
def _kinds_folder():
    # Removed when Python ends.
    return tempfile.TemporaryDirectory(prefix="packaged-")


def repository_of_kinds():
    """A repository with a model of each kind; for reading only."""
    for kind in SIGNATURES:
        packaged(kind)
    return pathlib.Path(_kinds_folder().name)


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
        model,
        _kinds_folder().name,
        inputs,
        name=kind,
        max_batch_size=2,
        **options,
    )
    return result.path, inputs
