"""What the tests of datasets share."""

import numpy as np
import tensorflow as tf

from keras_sspcab.data import image_dataset
from keras_sspcab.data.simulation import TextureSource

SIZE = (12, 10)

VARIANTS = [
    {"shuffle": True},
    {"patch_size": 4},
    {"patch_size": (3, 5), "patches_per_image": 3},
    {"patch_size": 4, "patches_per_image": 3, "shuffle": True, "flip": True},
    {"flip": True, "shuffle": True, "image_size": (6, 5)},
    {"rotate": 90, "shuffle": True, "image_size": (6, 6)},
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


def dataset_of(arrays, batch_size=2):
    """Batches of an array, or of a dict of arrays."""
    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)


class Red(TextureSource):
    """A texture of one color, which stays one when it is augmented."""

    def draw(self, images, index, seed):
        color = tf.constant([200.0, 40.0, 10.0])
        return tf.ones_like(images[0, ..., :1]) * color
