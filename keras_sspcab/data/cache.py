"""Arrays that are made once and kept: on disk, or images in memory.

The name of a file follows from everything it was made of, so that a change of
these makes another file.
"""

import collections
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_sspcab.data.batching import read_in_graph
from keras_sspcab.data.file_system import (
    identify,
    naming,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.folder import ImageSample
from keras_sspcab.data.image_files import read_pixels
from keras_sspcab.data.parallel import parallel_iterate
from keras_sspcab.data.resizing import resize
from keras_sspcab.files import replacing
from keras_sspcab.preprocessing import Preprocessing

# Changes when the pixels would: older files on disk are not used then.
_VERSION = 3

# Of tensors, in bytes.
_ALIGNMENT = 64

# Arrays kept in memory, of images of a split each.
_MEMORY_SLOTS = 6
_memory: collections.OrderedDict[str, tf.Tensor] = collections.OrderedDict()


class Images(NamedTuple):
    """How images are read in a graph."""

    #: Returns what there is of some images, by their numbers.
    read: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
    #: Makes an image of what there is of it.
    finish: Callable[..., tf.Tensor]


# === Arrays on disk ===


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


def cache_path(
    folder: str,
    name: str,
    files: Iterable[str],
    settings: dict[str, Any],
    suffix: str = ".npy",
) -> str:
    """Returns where something is kept that follows from files and settings.

    Of each file its path, size and time of change count, or what else says that
    it has changed: see `identify`. `name` is for people.
    """
    digest = hashlib.sha256()
    # In threads: behind URLs each of them takes its time.
    for identity in parallel_iterate(identify, list(files)):
        digest.update(f"{identity}\0".encode("utf-8", "surrogateescape"))
    digest.update(json.dumps(settings, sort_keys=True).encode())
    name = re.sub(r"[^\w.-]+", "_", name)[-60:].lstrip(".")
    return os.path.join(folder, f"{name}-{digest.hexdigest()[:20]}{suffix}")


def open_array(path: str) -> np.ndarray | None:
    """Maps a stored array into memory; None if there is none or it is cut."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None


def write_array(
    path: str, rows: Iterable[np.ndarray], dtype: Any
) -> np.ndarray:
    """Stores rows of one shape as a `.npy` file, and maps it, read-only."""
    dtype = np.dtype(dtype).newbyteorder("<")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        count = 0
        shape: tuple[int, ...] = ()
        for row in rows:
            if not count:
                shape = row.shape
                _write_header(file, (0, *shape), dtype)
                start = file.tell()
            file.write(np.ascontiguousarray(row, dtype).data)
            count += 1
        if not count:
            raise ValueError(f"There is nothing to write to {path!r}.")
        file.seek(0)
        # numpy leaves room in the header for a longer first axis.
        _write_header(file, (count, *shape), dtype)
        if file.tell() != start:
            raise RuntimeError("The header of the array changed its length.")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": shape,
        },
    )


# === Images ===


def clear_image_cache() -> None:
    """Forgets the images that `image_dataset(cache=True)` keeps in memory.

    Example:
    >>> clear_image_cache()
    """
    _memory.clear()


def cached_images(
    samples: Sequence[ImageSample],
    image_size: tuple[int, int],
    channels: int,
    cache: Any,
    preprocessing: Preprocessing | None = None,
) -> Images:
    """Decodes and resizes all images, unless that has been done before.

    The cache is True for memory, or the path of a folder.
    """
    how = preprocessing or Preprocessing()
    folder = "" if cache is True else standardize_cache_folder(cache)
    files = [sample.path for sample in samples]
    shape = (*image_size, channels)
    settings = {
        "shape": [len(samples), *shape],
        "version": _VERSION,
        **how.identity(),
    }
    path = cache_path(folder, "images", files, settings)

    def load(path: str) -> np.ndarray:
        with naming(f"the image {path}"):
            pixels = read_pixels(path, channels, how, None)
        return resize(pixels, image_size, how.resize, how.fit).numpy()

    def rows() -> Iterator[np.ndarray]:
        return parallel_iterate(load, files, "Loading images")

    scales = _scales(how)
    if cache is True:
        if path not in _memory:
            array = _collect(rows(), (len(files), *shape), scales)
            with tf.device("/cpu:0"):
                # Which copies nothing.
                kept = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
            _memory[path] = kept
        _memory.move_to_end(path)
        while len(_memory) > _MEMORY_SLOTS:
            _memory.popitem(last=False)
        # Datasets hold on to what they use, even when it is forgotten here.
        kept = _memory[path]
        scale = scales[kept.dtype.name]
        return Images(
            lambda numbers: (tf.gather(kept, numbers),),
            lambda row: tf.cast(row, tf.float32) * scale,
        )

    stored = open_array(path)
    if stored is None:
        stored = write_array(path, rows(), "float32")
    spec = (tf.TensorSpec(shape, stored.dtype),)
    return Images(
        lambda numbers: read_in_graph(lambda i: stored[i], numbers, spec),
        lambda row: row,
    )


def _scales(how: Preprocessing) -> dict[str, float]:
    """Returns the types that images are kept in, by the value of one step."""
    return {"uint8": 1 / 255, "uint16": 1 / how.white_level, "float32": 1.0}


def _collect(
    rows: Iterable[np.ndarray],
    shape: tuple[int, ...],
    scales: dict[str, float],
) -> np.ndarray:
    """Gathers rows in the smallest type that loses nothing."""

    def in_steps(row: np.ndarray, dtype: str) -> np.ndarray | None:
        if dtype == "float32":
            return row
        steps = np.rint(row / scales[dtype]).astype(dtype)
        restored = steps.astype("float32") * np.float32(scales[dtype])
        return steps if np.array_equal(restored, row) else None

    array = np.empty(0)
    for i, row in enumerate(rows):
        if i == 0:
            fits = (n for n in scales if in_steps(row, n) is not None)
            array = _empty(shape, next(fits))
        values = in_steps(row, array.dtype.name)
        if values is None:
            wider, scale = _empty(shape, "float32"), scales[array.dtype.name]
            np.multiply(array[:i], scale, out=wider[:i], dtype="float32")
            array, values = wider, row
        array[i] = values
    return array


def _empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Returns an array that lies where tensors do, so that it can be one."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + _ALIGNMENT, "uint8")
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
