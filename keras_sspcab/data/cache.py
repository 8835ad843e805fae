"""Decoded images, in memory or on disk, so that files are read only once."""

import collections
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.data._file_system import scheme_of, standardize_path
from keras_sspcab.data._parallel import parallel_map
from keras_sspcab.data.checking import read_pixels
from keras_sspcab.data.decoding import resize, resize_mask
from keras_sspcab.data.folder import ImageSample

# Changes when the pixels would: older files on disk are not used then.
_VERSION = 1

# Arrays kept in memory: images and masks of three splits.
_MEMORY_SLOTS = 6
_memory: collections.OrderedDict[str, tf.Tensor] = collections.OrderedDict()

#: Returns one image or mask, in a graph, from its index.
Reader = Callable[[tf.Tensor], tf.Tensor]


def clear_image_cache() -> None:
    """Forgets the images that `image_dataset(cache=True)` keeps in memory."""
    _memory.clear()


def cached_images(
    samples: Sequence[ImageSample],
    image_size: tuple[int, int],
    channels: int,
    cache: Any,
) -> Reader:
    """Decodes and resizes all images, unless that has been done before.

    Args:
        samples: The images.
        image_size: Height and width, in pixels.
        channels: 1 or 3.
        cache: True for memory, or the path of a folder.

    Returns:
        A function from an index to float32 `(height, width, channels)`.
    """

    def load(index: int) -> np.ndarray:
        pixels = _read(samples[index].path, channels)
        return resize(pixels, image_size).numpy()

    paths = [sample.path for sample in samples]
    height, width = image_size
    key = f"images-{height}x{width}x{channels}-{_fingerprint(paths)}"
    shape = (*image_size, channels)
    return _cached(key, len(samples), load, shape, "float32", cache)


def cached_masks(
    samples: Sequence[ImageSample], image_size: tuple[int, int], cache: Any
) -> Reader:
    """Does the same for masks; those of images without one are empty.

    Returns:
        A function from an index to bool `(height, width)`.
    """

    def load(index: int) -> np.ndarray:
        path = samples[index].mask_path
        if path is None:
            return np.zeros(image_size, bool)
        return resize_mask(_read(path, 1)[..., 0] > 0, image_size).numpy()

    paths = [sample.mask_path or "" for sample in samples]
    height, width = image_size
    key = f"masks-{height}x{width}-{_fingerprint(paths)}"
    read = _cached(key, len(samples), load, image_size, "uint8", cache)
    return lambda index: tf.cast(read(index), tf.bool)


def standardize_cache_folder(cache: Any) -> str:
    """Returns the folder of a cache on disk, made where it is missing."""
    folder = standardize_path(cache, "cache")
    if scheme_of(folder):
        raise ValueError(
            f"The cache must be on a local disk. Received: cache={cache!r}"
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(
            f"The cache must be a folder, not a file. Received: cache={cache!r}"
        )
    os.makedirs(folder, exist_ok=True)
    return folder


def _cached(
    key: str,
    count: int,
    load: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    dtype: str,
    cache: Any,
) -> Reader:
    if cache is True:
        if key not in _memory:
            _memory[key] = _load_all(count, load, shape, dtype)
        _memory.move_to_end(key)
        while len(_memory) > _MEMORY_SLOTS:
            _memory.popitem(last=False)
        # Datasets hold on to what they use, even when it is forgotten here.
        values = _memory[key]
        return lambda index: tf.gather(values, index)

    folder = os.path.join(standardize_cache_folder(cache), key)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not _is_complete(folder, count, size):
        _write_all(folder, count, load, dtype)

    def read(index: tf.Tensor) -> tf.Tensor:
        name = tf.strings.as_string(index, width=8, fill="0")
        encoded = tf.io.read_file(folder + os.sep + name + ".raw")
        return tf.reshape(tf.io.decode_raw(encoded, dtype), shape)

    return read


def _load_all(
    count: int,
    load: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    dtype: str,
) -> tf.Tensor:
    values = np.empty((count, *shape), dtype)

    def fill(index: int) -> None:
        values[index] = load(index)

    parallel_map(fill, range(count), "Loading images")
    with tf.device("/cpu:0"):
        return tf.constant(values)


def _write_all(
    folder: str, count: int, load: Callable[[int], np.ndarray], dtype: str
) -> None:
    """Writes one file of raw values an image; the folder appears complete."""
    partial = f"{folder}.{uuid.uuid4().hex}.partial"
    os.mkdir(partial)

    def write(index: int) -> None:
        values = load(index).astype(np.dtype(dtype).newbyteorder("<"))
        with open(os.path.join(partial, f"{index:08d}.raw"), "wb") as file:
            file.write(values.tobytes())

    try:
        parallel_map(write, range(count), "Loading images")
        # What is there is damaged, or was just written by another process.
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_complete(folder: str, count: int, size: int) -> bool:
    """Says whether there are `count` files of `size` bytes."""
    try:
        with os.scandir(folder) as entries:
            sizes = [entry.stat().st_size for entry in entries]
    except OSError:
        return False
    return len(sizes) == count and set(sizes) == {size}


def _read(path: str, channels: int) -> tf.Tensor:
    try:
        return read_pixels(path, channels)
    except ValueError as error:
        raise ValueError(f"Cannot use the image {path}: {error}") from error


def _fingerprint(paths: Sequence[str]) -> str:
    """A hash of names, and of sizes and times of files that are local."""
    digest = hashlib.sha256(f"{_VERSION}".encode())
    for path in paths:
        is_local = path and not scheme_of(path)
        name = os.path.abspath(path) if is_local else path
        digest.update(f"\0{name}\0".encode())
        if is_local and os.path.exists(path):
            status = os.stat(path)
            digest.update(f"{status.st_size},{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]
