"""A tiny calibrated model and the repository that is made of it."""

import functools
import shutil

import keras
import numpy as np

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export.serving.packaging import package_model
from keras_sspcab.export.serving.repository import Repository

SIZE = 32
NAME = "screws"
IMAGES = np.random.default_rng(0).random((12, SIZE, SIZE, 1)).astype("float32")


@functools.cache
def tiny_detector():
    keras.utils.set_random_seed(1)
    model = AutoEncoder((SIZE, SIZE, 1), filters=(8, 8, 4), smoothing=3)
    model.compile()
    model.calibrate(IMAGES)
    return model


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
