"""Packages a model for TensorFlow Serving."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.export.images import collect_images
from keras_sspcab.export.inference import Inference
from keras_sspcab.export.manifest import write_manifest
from keras_sspcab.export.parity import MAX_IMAGES, ParityResult
from keras_sspcab.export.runs import find_inputs
from keras_sspcab.export.saved_model import export_saved_model
from keras_sspcab.export.serving.deployment import (
    BATCHING_CONFIG,
    batch_sizes,
    configured_batch_sizes,
    write_deployment,
)
from keras_sspcab.export.serving.repository import (
    Repository,
    check_name,
    staging_folder,
)
from keras_sspcab.export.serving.warmup import write_warmup
from keras_sspcab.hosts import AnomalyModel
from keras_sspcab.imports import import_optional
from keras_sspcab.locks import folder_lock
from keras_sspcab.runs import load_detector

# Limits of batches, unless told otherwise. Warm-up requests travel with every
# version.
_MAX_BATCH_SIZE = 32
_MAX_BATCH_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True)
class PackageResult:
    """A version that was packaged, and what changed beside it.

    Attributes:
        removed: Old versions that were removed.
        served: Versions that are served now. The new one is not among them
            while the model is rolled back.
        written: Names of the files beside the models that were written.
    """

    path: pathlib.Path
    name: str
    version: int
    parity: ParityResult | None
    removed: Sequence[int]
    served: Sequence[int]
    written: Sequence[str]


def package_model(
    model: Any,
    directory: Any,
    images: Any = None,
    name: str | None = None,
    version: int | None = None,
    keep: int = 3,
    precision: str = "float32",
    jit_compile: bool = False,
    image_size: Sequence[int] | None = None,
    tolerance: float | None = None,
    max_batch_size: int | None = None,
    gpus: int = 1,
    image: str | None = None,
) -> PackageResult:
    """Adds a version of a model to a repository that TensorFlow Serving mounts.

    The version appears complete, checked and warmed up, or not at all, even if
    the process is killed; what that leaves behind is removed by the next one.
    See `Repository` for the files, and README.md there for the commands.

    Args:
        model: An `AnomalyModel`, any functional Keras model, or the path of a
            run folder or `.keras` file of a detector.
        directory: The repository; it is created if it does not exist.
        images: Real images to compare SavedModel and model on, and to warm up
            with (see `check_parity`), or, for a detector, a folder of images or
            videos. None takes the data of the run.
        name: Name of the model in the repository. Defaults to its own.
        version: Number of the version, above all others. None takes the next.
        keep: How many of the newest versions to keep, besides those that are
            served. Defaults to 3.
        precision: As in `export_saved_model`, like the next three.
        jit_compile: Likewise.
        image_size: Likewise.
        tolerance: Likewise.
        max_batch_size: Images that are computed at a time, at most. None takes
            what `batching.config` says or, for a new repository, 32 or what
            fits into 32 MiB.
        gpus: GPUs of each server, for files that are not there yet.
        image: Docker image with its tag, likewise. None takes TensorFlow
            Serving in the version of the installed tensorflow-serving-api.

    Returns:
        The version (`path`, `name`, `version`, `parity`), and what else has
        changed (`removed`, `served`, `written`).

    Raises:
        ValueError: If an argument does not fit.
        ExportMismatchError: If SavedModel and model differ.

    Example:
    >>> package_model("runs/bricks", "repository").version  # doctest: +SKIP
    1
    """
    import_optional("tensorflow_serving", "Packaging needs its protos", "serve")
    keep = standardize_int(keep, "keep", minimum=1)
    run, is_loaded = None, isinstance(model, keras.Model)
    if not is_loaded:
        run = None if os.fspath(model).endswith(".keras") else model
        model = load_detector(os.fspath(model))
    is_folder = isinstance(images, (str, os.PathLike))
    if (images is None and not is_loaded) or (
        is_folder and isinstance(model, AnomalyModel)
    ):
        images, _ = find_inputs(model, run, images)
    name = model.name if name is None else name
    check_name(name)
    repository = Repository(directory)
    inference = Inference(model, allow_uncalibrated=True)
    inputs = collect_images(inference, images, MAX_IMAGES)
    with folder_lock(repository.directory, is_deep=False):
        version = repository.next_version(name, version)
        sizes = _batch_sizes(repository.directory, max_batch_size, inputs)
        with staging_folder(repository.directory) as staging:
            result = export_saved_model(
                model,
                staging / name,
                version,
                inputs,
                image_size=image_size,
                tolerance=tolerance,
                precision=precision,
                jit_compile=jit_compile,
            )
            signatures = write_warmup(result.path, name, inputs, sizes)
            write_manifest(result.path)
            written = write_deployment(
                repository.directory,
                name,
                "serving_bytes" in signatures,
                sizes,
                gpus,
                image,
            )
            path = repository.publish(result.path, name, version)
        removed = repository.prune(name, keep)
        served = repository.served(name)
    return PackageResult(
        path, name, version, result.parity, removed, served, written
    )


def _batch_sizes(
    directory: pathlib.Path,
    max_batch_size: int | None,
    inputs: Mapping[str, np.ndarray],
) -> tuple[int, ...]:
    configured = configured_batch_sizes(directory)
    if max_batch_size is None:
        if configured is not None:
            return configured
        row = sum(array[:1].nbytes for array in inputs.values())
        largest = max(1, min(_MAX_BATCH_SIZE, _MAX_BATCH_BYTES // row))
        # Down to a power of two.
        return batch_sizes(1 << (largest.bit_length() - 1))
    wanted = standardize_int(max_batch_size, "max_batch_size", minimum=1)
    if configured is not None and configured[-1] != wanted:
        raise ValueError(
            f"{os.fspath(directory / BATCHING_CONFIG)} says that batches are "
            f"computed up to a size of {configured[-1]}. Received: "
            f"max_batch_size={wanted}. Edit that file, or remove it to have it "
            "rewritten."
        )
    return configured or batch_sizes(wanted)
