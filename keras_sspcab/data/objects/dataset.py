"""Files of objects to batches."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_choice, standardize_int
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

KINDS = ("hf2vad", "crops")

# Where each input comes from: a dataset, or its last frame alone.
_SOURCES = {
    "hf2vad": {"appearance": "appearance", "motion": "motion"},
    "crops": {
        "appearance": "appearance[-1]",
        "previous_motion": "motion[-1]",
        "next_motion": "next_motion",
    },
}

# Luma of BT.601 in 1/65536, as Pillow computes it.
_LUMA = (19595, 38470, 7471)


def cube_dataset(
    files: Iterable[Any],
    kind: str = "hf2vad",
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
    Only what is used is read from the files.

    Args:
        files: From `extract_cubes`, or paths.
        kind: `"hf2vad"` (the default) for cubes, or `"crops"` for single frames
            as the background-agnostic host takes them.
        batch_size: Objects a batch. Defaults to 32.
        shuffle: True to shuffle all objects, anew in every epoch.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.
        epochs: Epochs in the dataset, from `epoch` on. Defaults to 1.
        with_index: Adds where objects come from.
        drop_remainder: True drops the last batch of an epoch if it is smaller.
        step: Frames from one whose objects are taken to the next, in each
            video. Defaults to 1.
        with_masks: True adds the masks of crops, where files have them.

    Returns:
        A `tf.data.Dataset` of dicts of float32 tensors. Of cubes:
        `"appearance"` `(batch, frames, size, size, channels)` in [0, 1] and
        `"motion"` `(batch, frames, size, size, 2)` in pixels. Of crops:
        `"appearance"` `(batch, size, size, 1)`, gray, in [0, 1], and
        `"previous_motion"` and `"next_motion"` `(batch, size, size, 2)`,
        and, if wanted, `"mask"` `(batch, size, size, 1)`, 1 on the object. Or
        pairs of these and a dict of int32 `(batch,)`: `"video"`, position in
        `files`, `"frame"`, position in the video, and `"object"`, row of the
        file, all from 0.

    Raises:
        ValueError: If an argument is out of range, there is no object, or files
            cannot be read or differ in the shape of their rows.
    """
    given = standardize_cube_files(files)
    kind = standardize_choice(kind, KINDS, "kind")
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
    shapes = _shapes(given[0], kind)
    sources = _SOURCES[kind]
    if with_masks:
        _check_masks(given, kind)
        shapes["mask"] = (given[0].size, given[0].size, 1)
        sources = {**sources, "mask": "mask"}
    read = _reader(given, frames, kind, sources)

    def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
        order = order_of_epoch(count, shuffle, seed, epoch)
        numbers = tf.data.Dataset.from_tensor_slices(tf.gather(taken, order))
        return numbers.batch(batch_size, drop_remainder).map(
            gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    size_of_batch = batch_size if drop_remainder else None

    def gather(numbers: tf.Tensor) -> Any:
        types = [tf.float32] * len(shapes) + [tf.int32] * 3
        values = tf.numpy_function(read, [numbers], types)
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


def _check_masks(files: tuple[CubeFile, ...], kind: str) -> None:
    if kind != "crops":
        raise ValueError(
            f'Masks are those of crops, kind="crops". Received: kind={kind!r}'
        )
    without = [file.path for file in files if not file.has_masks]
    if without:
        raise ValueError(
            "All files must hold masks. Received: "
            f"{enumerate_names(without)} without. Give `extract_cubes` masks "
            "of these videos, or leave `with_masks` out"
        )


def _shapes(file: CubeFile, kind: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each input."""
    crop = file.size, file.size
    if kind == "crops":
        return {
            "appearance": (*crop, 1),
            "previous_motion": (*crop, 2),
            "next_motion": (*crop, 2),
        }
    return {
        "appearance": (file.length, *crop, file.channels),
        "motion": (file.length, *crop, 2),
    }


def _reader(
    files: tuple[CubeFile, ...],
    frames: list[np.ndarray],
    kind: str,
    sources: dict[str, str],
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Returns what reads objects of given numbers, and where they are from."""
    reader = CubeReader(files)
    ends = np.cumsum([file.num_objects for file in files])

    def read(numbers: np.ndarray) -> list[np.ndarray]:
        of_file = np.searchsorted(ends, numbers, side="right")
        rows = numbers - np.where(of_file > 0, ends[of_file - 1], 0)
        parts: dict[str, Any] = dict.fromkeys(sources)
        frame = np.empty(len(numbers), "int32")
        for file in np.unique(of_file).tolist():
            where = np.flatnonzero(of_file == file)
            frame[where] = frames[file][rows[where]]
            for name, source in sources.items():
                values = reader.read(file, source, rows[where])
                if parts[name] is None:
                    shape = (len(numbers), *values.shape[1:])
                    parts[name] = np.empty(shape, values.dtype)
                parts[name][where] = values
        if kind == "crops":
            parts["appearance"] = _gray(parts["appearance"])
        parts["appearance"] = parts["appearance"].astype("float32") / 255
        if "mask" in parts:
            parts["mask"] = parts["mask"].astype("float32")
        index = of_file.astype("int32"), frame, rows.astype("int32")
        return [*parts.values(), *index]

    return read


def _gray(pixels: np.ndarray) -> np.ndarray:
    """Returns gray pixels, rounded as Pillow does."""
    if pixels.shape[-1] == 1:
        return pixels
    luma = pixels.astype("uint32") @ np.array(_LUMA, "uint32") + 0x8000
    return (luma >> 16).astype("uint8")[..., np.newaxis]
