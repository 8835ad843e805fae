"""Batches of images: decoding, caching, shuffling and cropping."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.batching import (
    Batching,
    images_at_once,
    read_in_graph,
)
from keras_sspcab.data.cache import Images, cached_images
from keras_sspcab.data.checking import (
    require_samples,
    warn_if_nearly_black,
)
from keras_sspcab.data.decoding import (
    WIDE,
    decode_plain,
    standardize_channels,
    standardize_size,
)
from keras_sspcab.data.folder import ImageSample
from keras_sspcab.data.image_files import PLAIN_SPEC, plain_reader
from keras_sspcab.data.random import CROP, FLIP, TURN, fold
from keras_sspcab.data.resizing import resize_decoded
from keras_sspcab.preprocessing import Preprocessing

# Images that are read at once, and small ones that are decoded.
_NUM_READ, _NUM_DECODED = 8, 64


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
    rotate: int = 0,
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
            and keeps the resized images in memory, for all datasets of the same
            files, until `clear_image_cache()`: in 1 or 2 bytes a value if that
            loses nothing, as where the files have the size already, and in 4
            else. A path keeps them in that folder, for other runs as well.
        patch_size: Height and width of random crops of the resized image, in
            pixels; None (the default) for whole images.
        patches_per_image: Crops of each image. Shuffled, a batch holds crops of
            different images: `batch_size` images are processed at a time.
        flip: True mirrors left and right with probability 1/2.
        rotate: 90 or 180 rotates by a random multiple of so many degrees; by 90
            images (or patches) must be square. 0 (the default) does not.
        epochs: Epochs in the dataset, from `epoch` on, for `model.fit(data,
            epochs=n, steps_per_epoch=len(data) // n)`. Defaults to 1.
        preprocessing: That of a model, `model.preprocessing`. None takes
            the default, and warns if the first image hardly uses the full range
            of 16 bits; see `measure_preprocessing`.

    Returns:
        A `tf.data.Dataset` of images `(batch, height, width, channels)`.

    Raises:
        ValueError: If there are no samples, an argument is out of range, or a
            file cannot be read into the cache.

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
    batching = Batching(batch_size, shuffle, seed, epoch, epochs)
    # Large images wait for nobody: each takes its memory.
    num_decoded = images_at_once(size, _NUM_DECODED)
    is_large = num_decoded < _NUM_DECODED
    ahead = num_decoded if is_large else tf.data.AUTOTUNE
    patches = standardize_int(patches_per_image, "patches_per_image", 1)
    patch = _standardize_patch(patch_size, size, patches)
    _check_rotation(rotate, patch or size)
    if cache is False:
        images = _file_images(samples, size, channels, preprocessing)
    else:
        images = cached_images(samples, size, channels, cache, preprocessing)
    count = len(samples)
    if preprocessing is None:
        warn_if_nearly_black(samples[0].path)

    def images_of(epoch: tf.Tensor) -> tf.data.Dataset:
        def read(numbers: tf.Tensor) -> Any:
            return numbers, images.read(numbers)

        def finish(number: tf.Tensor, values: Any) -> tf.Tensor:
            """Returns an image or, where there are several, its patches."""
            image = images.finish(*values)
            if not (patch or flip or rotate):
                return image
            stack = image[tf.newaxis]
            if patch:
                crop_seed = fold(seed, CROP, epoch, number)
                stack = _crop(image, patch, patches, crop_seed)
            if flip:
                stack = _flip_some(stack, fold(seed, FLIP, epoch, number))
            if rotate:
                turn_seed = fold(seed, TURN, epoch, number)
                stack = _rotate_each(stack, rotate, turn_seed)
            return stack if patches > 1 else stack[0]

        order = batching.order(count, epoch)
        # Calls of Python cost time: each reads several.
        numbers = tf.data.Dataset.from_tensor_slices(order).batch(_NUM_READ)
        finished = (
            numbers.map(read, tf.data.AUTOTUNE, deterministic=True)
            .unbatch()
            .map(finish, ahead, deterministic=True)
        )
        if shuffle and patches > 1:
            finished = finished.batch(batch_size).map(_mix)
        if patches > 1:
            finished = finished.unbatch()
        return finished.batch(batch_size)

    batches = batching.chain(images_of)
    batches = batching.complete(batches, count * patches)
    return batches.prefetch(1 if is_large else tf.data.AUTOTUNE)


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


def _file_images(
    samples: tuple[ImageSample, ...],
    size: tuple[int, int],
    channels: int,
    preprocessing: Preprocessing | None,
) -> Images:
    how = preprocessing or Preprocessing()

    def finish(encoded: tf.Tensor, form: tf.Tensor) -> tf.Tensor:
        return resize_decoded(
            lambda dtype: decode_plain(encoded, form, channels, how, dtype),
            lambda: form == WIDE,
            size,
            channels,
            how,
        )

    paths = [sample.path for sample in samples]
    reader = plain_reader(paths, channels, how)
    return Images(
        lambda numbers: read_in_graph(reader, numbers, PLAIN_SPEC), finish
    )


# === Crops and flips ===


def _mix(group: tf.Tensor) -> tf.Tensor:
    """Orders `(images, patches, ...)` by patch first, then by image."""
    swapped = tf.transpose(group, [1, 0, 2, 3, 4])
    return tf.reshape(swapped, [-1, *group.shape[2:]])


def _crop(
    image: tf.Tensor, patch: tuple[int, int], patches: int, seed: tf.Tensor
) -> tf.Tensor:
    """Cuts random windows from an image."""
    height, width, _ = image.shape
    top_seed, left_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 2, alg="philox")
    )
    tops = _whole_numbers(patches, top_seed, height - patch[0] + 1)
    lefts = _whole_numbers(patches, left_seed, width - patch[1] + 1)
    rows = tops[:, tf.newaxis] + tf.range(patch[0])
    columns = lefts[:, tf.newaxis] + tf.range(patch[1])
    bands = tf.gather(image, rows, axis=0)
    return tf.gather(bands, columns, axis=2, batch_dims=1)


def _flip_some(stack: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors each image of a stack, or not."""
    chosen = _whole_numbers(stack.shape[0], seed, 2) == 1
    where = chosen[:, tf.newaxis, tf.newaxis, tf.newaxis]
    return tf.where(where, tf.reverse(stack, [2]), stack)


def _rotate_each(stack: tf.Tensor, step: int, seed: tf.Tensor) -> tf.Tensor:
    """Rotates each image of a stack by a multiple of so many degrees."""
    turned = [stack, tf.reverse(stack, [1, 2])]
    if step == 90:
        turned += [
            tf.reverse(tf.transpose(stack, [0, 2, 1, 3]), [axis])
            for axis in (1, 2)
        ]
    chosen = _whole_numbers(stack.shape[0], seed, len(turned))
    return tf.gather(tf.stack(turned, 1), chosen, axis=1, batch_dims=1)


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


def _check_rotation(rotate: Any, size: tuple[int, int]) -> None:
    if rotate not in (0, 90, 180):
        raise ValueError(
            "The `rotate` argument must be 0, 90 or 180 degrees. Received: "
            f"rotate={rotate!r}"
        )
    if rotate == 90 and size[0] != size[1]:
        raise ValueError(
            "Images (or patches) that are rotated by 90 degrees must be "
            f"square. Received: {size[0]}x{size[1]}, rotate=90. Rotate by 180, "
            "or take square patches"
        )
