"""Batches of images: decoding, caching, shuffling and cropping."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.batching import Batching
from keras_sspcab.data.cache import Reader, cached_images, cached_masks
from keras_sspcab.data.checking import (
    require_samples,
    warn_if_nearly_black,
)
from keras_sspcab.data.decoding import (
    standardize_channels,
    standardize_size,
)
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.folder import ImageSample
from keras_sspcab.data.image_files import read_image_in_graph
from keras_sspcab.data.masks import load_mask
from keras_sspcab.data.random import CROP, FLIP, fold
from keras_sspcab.data.resizing import decode_and_resize
from keras_sspcab.preprocessing import Preprocessing

#: Tensors by name: `image`, `label`, `mask`. A stack has a leading axis for
#: the patches of one image.
Example = dict[str, tf.Tensor]


def image_dataset(
    samples: Iterable[ImageSample],
    image_size: Any,
    channels: int = 3,
    batch_size: int = 16,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    cache: Any = False,
    patch_size: Any = None,
    patches_per_image: int = 1,
    flip: bool = False,
    with_labels: bool = False,
    with_masks: bool = False,
    drop_remainder: bool = False,
    epochs: int = 1,
    preprocessing: Preprocessing | None = None,
) -> tf.data.Dataset:
    """Makes batches of images, float32 in [0, 1], channels last.

    Order, crops and flips follow from `(seed, epoch)` alone, to the bit, so
    that training can resume within an epoch: `image_dataset(...,
    epoch=3).skip(n)` is what follows the first `n` batches. A dataset that is
    iterated twice repeats itself.

    Args:
        samples: Samples from `scan_image_folder`, best after `check_images`.
        image_size: Height and width, in pixels; see `resize`.
        channels: 1 for gray or 3 for color. Defaults to 3.
        batch_size: Images (or patches) a batch. Defaults to 16.
        shuffle: True to shuffle all images, differently in every epoch.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.
        cache: False reads the files in every epoch. True reads them at the call
            and keeps the resized images in memory (4 bytes a value), for all
            datasets of the same files. A path keeps them in that folder, for
            other runs as well.
        patch_size: Height and width of random crops of the resized image, in
            pixels; None (the default) for whole images.
        patches_per_image: Crops of each image. Shuffled, a batch holds crops of
            different images: `batch_size` images are processed at a time.
        flip: True mirrors left and right with probability 1/2.
        with_labels: Adds the labels.
        with_masks: Adds the masks: what is not black in the file, resized by
            the nearest neighbor, but that small defects never vanish. Those of
            normal images without a file are empty.
        drop_remainder: True drops the last batch of an epoch if it is smaller.
        epochs: Epochs in the dataset, from `epoch` on, for `model.fit(data,
            epochs=n, steps_per_epoch=len(data) // n)`. Defaults to 1.
        preprocessing: That of a model, `model.preprocessing`. None takes
            the default, and warns if the first image hardly uses the full range
            of 16 bits; see `measure_preprocessing`.

    Returns:
        A `tf.data.Dataset` of images `(batch, height, width, channels)`, or of
        pairs of them and a dict of `"label"`, int32 `(batch,)`, and `"mask"`,
        bool `(batch, height, width)`, or one of these.

    Raises:
        ValueError: If there are no samples, an argument is out of range, a mask
            is missing, or a file cannot be read into the cache.

    Example:
    >>> samples = [ImageSample(f"{i}.png") for i in range(40)]
    >>> data = image_dataset(samples, 64, shuffle=True, epochs=10)
    >>> len(data), data.element_spec.shape
    (30, TensorShape([None, 64, 64, 3]))
    """
    samples = tuple(samples)
    require_samples(samples)
    size = standardize_size(image_size)
    channels = standardize_channels(channels)
    batching = Batching(
        batch_size, shuffle, seed, epoch, epochs, drop_remainder
    )
    patches = standardize_int(patches_per_image, "patches_per_image", 1)
    patch = _standardize_patch(patch_size, size, patches)
    missing = [s.path for s in samples if s.label and s.mask_path is None]
    if with_masks and missing:
        raise ValueError(
            f"{len(missing)} defective images have no mask. Received: "
            f"{enumerate_names(missing)}. Add the masks."
        )

    labels = tf.constant([sample.label for sample in samples], tf.int32)
    if cache is False:
        images, masks = _from_files(samples, size, channels, preprocessing)
    else:
        images = cached_images(samples, size, channels, cache, preprocessing)
        if with_masks:
            masks = cached_masks(samples, size, cache)
    count = len(samples)
    if preprocessing is None:
        warn_if_nearly_black(samples[0].path)

    def load(index: tf.Tensor) -> Example:
        example = {"image": images(index)}
        if with_labels:
            example["label"] = labels[index]
        if with_masks:
            example["mask"] = masks(index)
        return example

    def examples_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = batching.order(count, epoch)

        def example(index: tf.Tensor) -> Example:
            stack = {k: v[tf.newaxis] for k, v in load(index).items()}
            if patch:
                crop_seed = fold(seed, CROP, epoch, index)
                stack = _crop(stack, patch, patches, crop_seed)
            if flip:
                stack = _flip_some(stack, fold(seed, FLIP, epoch, index))
            return stack

        examples = tf.data.Dataset.from_tensor_slices(order).map(
            example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if shuffle and patches > 1:
            examples = examples.batch(batch_size).map(_mix)
        return examples.unbatch().batch(batch_size, drop_remainder)

    batches = batching.chain(examples_of)
    batches = batching.state_length(batches, count * patches)
    if with_labels or with_masks:
        batches = batches.map(lambda example: (example.pop("image"), example))
    else:
        batches = batches.map(lambda example: example["image"])
    return batches.prefetch(tf.data.AUTOTUNE)


def batch_array(
    images: Any, batch_size: int = 32, shuffle: bool = False
) -> tf.data.Dataset:
    """Makes batches of the images `(images, height, width, channels)`.

    Each iteration shuffles them as `keras.utils.set_random_seed` decides, if
    `shuffle` says so. It is an error if there is no image.

    Example:
    >>> len(batch_array(tf.zeros((5, 32, 32, 3)), batch_size=2))
    3
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


# === Loading ===


def _from_files(
    samples: tuple[ImageSample, ...],
    size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing | None,
) -> tuple[Reader, Reader]:
    """Returns functions from the index of a sample to its image and mask."""
    paths = tf.constant([sample.path for sample in samples])

    def image(index: tf.Tensor) -> tf.Tensor:
        encoded = read_image_in_graph(paths[index])
        return decode_and_resize(encoded, size, channels, preprocessing)

    def mask(index: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(
            lambda i: load_mask(samples[i], size)[0], [index], tf.bool
        )
        return tf.ensure_shape(pixels, size)

    return image, mask


def _mix(group: Example) -> Example:
    """Orders `(images, patches, ...)` by patch first, then by image."""

    def mix(value: tf.Tensor) -> tf.Tensor:
        swapped = tf.transpose(value, [1, 0, *range(2, value.shape.rank)])
        return tf.reshape(swapped, [-1, *value.shape[2:]])

    return {name: mix(value) for name, value in group.items()}


# === Crops and flips ===


def _crop(
    stack: Example, patch: tuple[int, int], patches: int, seed: tf.Tensor
) -> Example:
    """Cuts the same random windows from a single image and from its mask."""
    height, width = stack["image"].shape[1:3]
    top_seed, left_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 2, alg="philox")
    )
    tops = _whole_numbers(patches, top_seed, height - patch[0] + 1)
    lefts = _whole_numbers(patches, left_seed, width - patch[1] + 1)
    rows = tops[:, tf.newaxis] + tf.range(patch[0])
    columns = lefts[:, tf.newaxis] + tf.range(patch[1])

    def cut(value: tf.Tensor) -> tf.Tensor:
        if value.shape.rank < 3:
            return tf.repeat(value, patches, axis=0)
        bands = tf.gather(value[0], rows, axis=0)
        return tf.gather(bands, columns, axis=2, batch_dims=1)

    return {name: cut(value) for name, value in stack.items()}


def _flip_some(stack: Example, seed: tf.Tensor) -> Example:
    """Mirrors each image of a stack, and its mask, or not."""
    count = stack["image"].shape[0]
    chosen = _whole_numbers(count, seed, 2) == 1

    def mirror(value: tf.Tensor) -> tf.Tensor:
        if value.shape.rank < 3:
            return value
        where = tf.reshape(chosen, (count,) + (1,) * (value.shape.rank - 1))
        return tf.where(where, tf.reverse(value, [2]), value)

    return {name: mirror(value) for name, value in stack.items()}


def _whole_numbers(count: int, seed: tf.Tensor, limit: int) -> tf.Tensor:
    """Draws whole numbers from 0 to `limit - 1`."""
    return tf.random.stateless_uniform(
        (count,), seed, 0, limit, tf.int32, alg="philox"
    )


def _standardize_patch(
    patch_size: Any, size: tuple[int, int], patches: int
) -> tuple[int, int] | None:
    if patch_size is None:
        if patches > 1:
            raise ValueError(
                "Several patches an image need a patch size. Received: "
                f"patches_per_image={patches}, patch_size=None"
            )
        return None
    patch = standardize_size(patch_size, "patch_size")
    if patch[0] > size[0] or patch[1] > size[1]:
        raise ValueError(
            "A patch must fit into the resized image. Received: "
            f"patch_size={patch}, image_size={size}"
        )
    return patch
