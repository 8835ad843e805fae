"""Arrays of images as a dataset."""

from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int


def batch_array(
    images: Any, batch_size: int = 32, shuffle: bool = False
) -> tf.data.Dataset:
    """Makes batches of the images of an array.

    Args:
        images: Array `(images, height, width, channels)`.
        batch_size: Images a batch. Defaults to 32.
        shuffle: Whether they are shuffled, anew in each iteration, as
            `keras.utils.set_random_seed` decides.

    Returns:
        A dataset of tensors `(batch, height, width, channels)`.

    Raises:
        ValueError: If there is no image.
    """
    batch_size = standardize_int(batch_size, "batch_size", 1)
    if len(images) == 0:
        raise ValueError(
            "A dataset needs images. Received: an array of shape "
            f"{tuple(images.shape)}"
        )
    dataset = tf.data.Dataset.from_tensor_slices(images)
    if shuffle:
        dataset = dataset.shuffle(len(images))
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
