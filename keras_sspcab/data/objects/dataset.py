"""Files of objects to batches."""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.batching import Batching
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects.cube_files import (
    CubeFile,
    open_cube_file,
    open_hdf5,
)

Cubes = Mapping[str, np.ndarray]

_MAX_OPEN = 64

# Luma of BT.601 in 1/65536, as Pillow computes it.
_LUMA = (19595, 38470, 7471)


def whole_cubes(cubes: Cubes) -> dict[str, np.ndarray]:
    """Returns `"appearance"` and `"motion"` of all frames of the objects."""
    return {name: cubes[name] for name in ("appearance", "motion")}


def cube_dataset(
    files: Iterable[Any],
    inputs: Callable[[Cubes], Mapping[str, np.ndarray]] = whole_cubes,
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    with_index: bool = False,
    step: int = 1,
    with_masks: bool = False,
) -> tf.data.Dataset:
    """Makes batches of objects that `extract_cubes` has cut out.

    In order, objects come file by file and frame by frame. Shuffled, those of
    all files are mixed, and their order follows from `(seed, epoch)` alone.

    Args:
        files: From `extract_cubes`, or paths.
        inputs: Function that makes the inputs of a model from cubes, usually
            the `cube_inputs` of a host. It takes a mapping with arrays of `n`
            objects, `"appearance"`, `"motion"` and `"next_motion"`, as
            `keras_sspcab.data.objects.cube_files` describes them; what it does
            not look up is not read. uint8 arrays in its result are divided by
            255. The default returns the first two.
        batch_size: Objects a batch. Defaults to 32.
        shuffle: True to shuffle all objects, differently in every epoch.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.
        epochs: Epochs in the dataset, from `epoch` on. Defaults to 1.
        with_index: True adds where objects come from.
        step: Frames from one whose objects are taken to the next, in each
            video. Defaults to 1.
        with_masks: True adds `"mask"` `(batch, size, size, 1)`, 1 on objects.

    Returns:
        A `tf.data.Dataset` of dicts of float32 tensors, or of pairs of these
        and a dict of int32 `(batch,)`: `"video"`, position in `files`,
        `"frame"`, position in the video, and `"object"`, row of the file, all
        from 0.

    Raises:
        ValueError: If an argument is out of range, there is no object, or files
            cannot be read or differ in the shape of their rows.

    Example:
    >>> data = cube_dataset(["objects/street.h5"])  # doctest: +SKIP
    >>> data.element_spec["appearance"].shape  # doctest: +SKIP
    TensorShape([None, 5, 32, 32, 3])
    """
    given = _standardize_files(files)
    batching = Batching(batch_size, shuffle, seed, epoch, epochs)
    frames = [file.read("frames") for file in given]
    numbers = _numbers_of(frames, step)
    if not len(numbers):
        raise ValueError(
            "There must be at least one object. Received: "
            f"{len(given)} files without any, such as {given[0].path!r}"
        )
    without = [file.path for file in given if not file.has_masks]
    if with_masks and without:
        raise ValueError(
            f"All files must hold masks. Received: {enumerate_names(without)} "
            "without. Extract them with `masks`, or leave `with_masks` out"
        )
    reader = _ObjectReader(given, frames, inputs, with_masks)
    spec = (
        {
            name: tf.TensorSpec(s, "float32")
            for name, s in reader.shapes.items()
        },
        dict.fromkeys(("video", "frame", "object"), tf.TensorSpec((), "int32")),
    )
    batches = batching.read(numbers, reader.read, spec)
    if not with_index:
        batches = batches.map(lambda objects, _: objects)
    return batches.prefetch(tf.data.AUTOTUNE)


def count_objects(files: Iterable[Any], step: int = 1) -> int:
    """Returns how many objects `cube_dataset` takes in an epoch.

    Example:
    >>> count_objects(["objects/street.h5"])  # doctest: +SKIP
    1834
    """
    given = _standardize_files(files)
    return len(_numbers_of([file.read("frames") for file in given], step))


def _numbers_of(frames: list[np.ndarray], step: int) -> np.ndarray:
    """Returns the numbers of the objects in every `step`-th frame."""
    step = standardize_int(step, "step", 1)
    return np.flatnonzero(np.concatenate(frames) % step == 0)


def _standardize_files(files: Any) -> tuple[CubeFile, ...]:
    """Returns at least one file, of rows of one shape, or raises ValueError."""
    if isinstance(files, (CubeFile, str, os.PathLike)):
        files = (files,)
    given = tuple(
        file if isinstance(file, CubeFile) else open_cube_file(os.fspath(file))
        for file in files
    )
    if not given:
        raise ValueError(
            "The `files` argument must hold at least one file of objects. "
            "Received: files with no entry"
        )
    shapes = [(file.length, file.size, file.channels) for file in given]
    for file, shape in zip(given, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                "Files of objects must have the same frames, size and "
                f"channels. Received: {shapes[0]} in {given[0].path!r}, "
                f"{shape} in {file.path!r}"
            )
    return given


class _ObjectReader:
    """Reads objects by number, counted over all files.

    `shapes` has the shape of an object's part, by the name of the input.
    """

    def __init__(
        self,
        files: tuple[CubeFile, ...],
        frames: list[np.ndarray],
        inputs: Callable[[Cubes], Mapping[str, np.ndarray]],
        with_masks: bool,
    ) -> None:
        # The files that are used last stay open.
        self._open = functools.lru_cache(_MAX_OPEN)(
            lambda file: open_hdf5(files[file].path)
        )
        # Reading does not run in parallel anyway, and files may be closed.
        self._lock = threading.Lock()
        self._frames = frames
        self._inputs = inputs
        self._with_masks = with_masks
        counts = [file.num_objects for file in files]
        self._ends = np.cumsum(counts)
        first = self._parts(int(np.flatnonzero(counts)[0]), np.array([0]))
        self.shapes = {name: part.shape[1:] for name, part in first.items()}

    def read(self, numbers: np.ndarray) -> tuple[dict[str, np.ndarray], ...]:
        """Returns the inputs, and video, frame and row of each object."""
        videos = np.searchsorted(self._ends, numbers, side="right")
        rows = numbers - np.where(videos > 0, self._ends[videos - 1], 0)
        joined = {
            name: np.empty((len(numbers), *shape), "float32")
            for name, shape in self.shapes.items()
        }
        index = {
            "video": videos.astype("int32"),
            "frame": np.empty(len(numbers), "int32"),
            "object": rows.astype("int32"),
        }
        for file in np.unique(videos).tolist():
            where = np.flatnonzero(videos == file)
            index["frame"][where] = self._frames[file][rows[where]]
            for name, part in self._parts(file, rows[where]).items():
                joined[name][where] = part
        return joined, index

    def _parts(self, file: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        cubes = _LazyCubes(lambda name: self._rows(file, name, rows))
        parts = {
            name: part.astype("float32") / (255 if part.dtype == "uint8" else 1)
            for name, part in self._inputs(cubes).items()
        }
        if self._with_masks:
            parts["mask"] = cubes["mask"].astype("float32")
        return parts

    def _rows(self, file: int, name: str, rows: np.ndarray) -> np.ndarray:
        with self._lock:
            dataset = self._open(file)[name]
            values = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
            # Much faster than a list of rows in one selection.
            for position in np.argsort(rows, kind="stable"):
                values[position] = dataset[int(rows[position])]
        return values


class _LazyCubes(dict[str, np.ndarray]):
    """Datasets of some rows of a file, each read when it is looked up."""

    def __init__(self, read: Callable[[str], np.ndarray]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = self._read(name)
        return self[name]


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 pixels `(..., 1)` of gray or RGB, rounded as Pillow does.

    Example:
    >>> to_gray(np.full((4, 5, 3), 200, "uint8")).shape
    (4, 5, 1)
    """
    if pixels.shape[-1] == 1:
        return pixels
    luma = pixels.astype("uint32") @ np.array(_LUMA, "uint32") + 0x8000
    return (luma >> 16).astype("uint8")[..., np.newaxis]
