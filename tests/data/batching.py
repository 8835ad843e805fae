"""What the tests of datasets share."""

import numpy as np

from keras_sspcab.data import image_dataset

SIZE = (12, 10)

VARIANTS = [
    {"shuffle": True},
    {"patch_size": 4},
    {"patch_size": (3, 5), "patches_per_image": 3},
    {"patch_size": 4, "patches_per_image": 3, "shuffle": True, "flip": True},
    {"flip": True, "shuffle": True, "image_size": (6, 5)},
]


def make(samples, **arguments):
    arguments = {"image_size": SIZE, "channels": 1, **arguments}
    return image_dataset(samples, **arguments)


def batches(samples, **arguments):
    return [batch.numpy() for batch in make(samples, **arguments)]


def order(samples, **arguments):
    """Indices of the images, in the order of the dataset."""
    images = np.concatenate(batches(samples, **arguments))
    return np.round(images[:, 0, 0, 0] * 255).astype(int).tolist()


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
