"""Files of objects to batches."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.epochs import (
    chain_epochs,
    order_of_epoch,
    state_length,
)
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects.cube_files import (
    CubeFile,
    CubeReader,
    open_cube_file,
)

Cubes = Mapping[str, np.ndarray]

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
    drop_remainder: bool = False,
    step: int = 1,
    with_masks: bool = False,
) -> tf.data.Dataset:
    """Makes batches of objects that `extract_cubes` has cut out.

    In order, objects come file by file and frame by frame. Shuffled, those of
    all files are mixed, and their order follows from `(seed, epoch)` alone.

    Args:
        files: From `extract_cubes`, or paths.
        inputs: Function that makes the inputs of a model from cubes, usually
            the `cube_inputs` of a host. It takes a mapping with NumPy arrays:
            `"appearance"` `(n, frames, size, size, channels)` uint8, `"motion"`
            `(n, frames, size, size, 2)` and `"next_motion"` `(n, size, size,
            2)` float32, in pixels; what it does not look up is not read. uint8
            arrays in its result are divided by 255. The default returns
            `"appearance"` and `"motion"` as they are.
        batch_size: Objects a batch. Defaults to 32.
        shuffle: True to shuffle all objects, differently in every epoch.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.
        epochs: Epochs in the dataset, from `epoch` on. Defaults to 1.
        with_index: True adds where objects come from.
        drop_remainder: True drops the last batch of an epoch if it is smaller.
        step: Frames from one whose objects are taken to the next, in each
            video. Defaults to 1.
        with_masks: True adds `"mask"` `(batch, size, size, 1)`, 1 on the object
            in its frame, where files have masks.

    Returns:
        A `tf.data.Dataset` of dicts of float32 tensors, or of pairs of these
        and a dict of int32 `(batch,)`: `"video"`, position in `files`,
        `"frame"`, position in the video, and `"object"`, row of the file, all
        from 0.

    Raises:
        ValueError: If an argument is out of range, there is no object, or files
            cannot be read or differ in the shape of their rows.
    """
    given = standardize_cube_files(files)
    batch_size = standardize_int(batch_size, "batch_size", 1)
    seed = standardize_int(seed, "seed", 0)
    epoch = standardize_int(epoch, "epoch", 0)
    epochs = standardize_int(epochs, "epochs", 1)
    frames = _frames(given)
    taken = _taken(frames, step)
    count = len(taken)
    if not count:
        raise ValueError(
            "There must be at least one object. Received: "
            f"{len(given)} files without any, such as {given[0].path!r}"
        )
    if with_masks:
        _check_masks(given)
    reader = _ObjectReader(given, frames, inputs, with_masks)
    shapes = reader.shapes
    size_of_batch = batch_size if drop_remainder else None

    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = order_of_epoch(count, shuffle, seed, epoch)
        numbers = tf.data.Dataset.from_tensor_slices(tf.gather(taken, order))
        return numbers.batch(batch_size, drop_remainder).map(
            gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def gather(numbers: tf.Tensor) -> Any:
        types = [tf.float32] * len(shapes) + [tf.int32] * 3
        values = tf.numpy_function(reader.read, [numbers], types)
        names = [*shapes, "video", "frame", "object"]
        named = dict(zip(names, values, strict=True))
        for name, value in named.items():
            shape = (size_of_batch, *shapes.get(name, ()))
            named[name] = tf.ensure_shape(value, shape)
        objects = {name: named.pop(name) for name in shapes}
        return (objects, named) if with_index else objects

    batches = chain_epochs(batches_of, epoch, epochs)
    batches = state_length(batches, count, batch_size, drop_remainder, epochs)
    return batches.prefetch(tf.data.AUTOTUNE)


def count_objects(files: Iterable[Any], step: int = 1) -> int:
    """Counts the objects that `cube_dataset` takes in an epoch.

    Args:
        files: From `extract_cubes`, or paths.
        step: Frames from one whose objects are taken to the next.

    Raises:
        ValueError: As `cube_dataset`.
    """
    return len(_taken(_frames(standardize_cube_files(files)), step))


def _frames(files: tuple[CubeFile, ...]) -> list[np.ndarray]:
    """Returns the frame of each object, by file."""
    return [file.read("frames") for file in files]


def _taken(frames: list[np.ndarray], step: int) -> np.ndarray:
    """Returns the numbers of the objects in every `step`-th frame."""
    step = standardize_int(step, "step", 1)
    return np.flatnonzero(np.concatenate(frames) % step == 0)


def standardize_cube_files(files: Any) -> tuple[CubeFile, ...]:
    """Returns at least one file, of rows of one shape, or raises a ValueError.

    Args:
        files: `CubeFile`s or paths, or a single one.
    """
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
    shapes = {
        file.path: (file.length, file.size, file.channels) for file in given
    }
    first = shapes[given[0].path]
    others = [path for path, shape in shapes.items() if shape != first]
    if others:
        raise ValueError(
            "Files of objects must have the same frames, size and channels. "
            f"Received: {first} in {given[0].path!r}, others in "
            f"{enumerate_names(others)}"
        )
    return given


def _check_masks(files: tuple[CubeFile, ...]) -> None:
    without = [file.path for file in files if not file.has_masks]
    if without:
        raise ValueError(
            "All files must hold masks. Received: "
            f"{enumerate_names(without)} without. Give `extract_cubes` masks "
            "of these videos, or leave `with_masks` out"
        )


class _ObjectReader:
    """Reads objects of given numbers, counted over all files.

    Attributes:
        shapes: Shape of an object's part, by the name of the input.
    """

    def __init__(
        self,
        files: tuple[CubeFile, ...],
        frames: list[np.ndarray],
        inputs: Callable[[Cubes], Mapping[str, np.ndarray]],
        with_masks: bool,
    ) -> None:
        self._reader = CubeReader(files)
        self._frames = frames
        self._inputs = inputs
        self._with_masks = with_masks
        counts = [file.num_objects for file in files]
        self._ends = np.cumsum(counts)
        first = self._parts(int(np.flatnonzero(counts)[0]), np.array([0]))
        self.shapes = {name: part.shape[1:] for name, part in first.items()}

    def read(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Returns the inputs, and video, frame and row of each object."""
        of_file = np.searchsorted(self._ends, numbers, side="right")
        rows = numbers - np.where(of_file > 0, self._ends[of_file - 1], 0)
        frame = np.empty(len(numbers), "int32")
        joined = {
            name: np.empty((len(numbers), *shape), "float32")
            for name, shape in self.shapes.items()
        }
        for file in np.unique(of_file).tolist():
            where = np.flatnonzero(of_file == file)
            frame[where] = self._frames[file][rows[where]]
            for name, part in self._parts(file, rows[where]).items():
                joined[name][where] = part
        index = of_file.astype("int32"), frame, rows.astype("int32")
        return [*joined.values(), *index]

    def _parts(self, file: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        cubes = _LazyCubes(self._reader, file, rows)
        parts = {
            name: part.astype("float32") / (255 if part.dtype == "uint8" else 1)
            for name, part in self._inputs(cubes).items()
        }
        if self._with_masks:
            parts["mask"] = cubes["mask"].astype("float32")
        return parts


class _LazyCubes(dict[str, np.ndarray]):
    """Datasets of some rows of a file, each read when it is looked up."""

    def __init__(self, reader: CubeReader, file: int, rows: np.ndarray) -> None:
        super().__init__()
        self._read = lambda name: reader.read(file, name, rows)

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = self._read(name)
        return self[name]


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 pixels `(..., 1)`, rounded as Pillow does.

    Args:
        pixels: uint8 array `(..., channels)`, gray or RGB.
    """
    if pixels.shape[-1] == 1:
        return pixels
    luma = pixels.astype("uint32") @ np.array(_LUMA, "uint32") + 0x8000
    return (luma >> 16).astype("uint8")[..., np.newaxis]
