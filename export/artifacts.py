"""Artifacts appear whole and checked, or not at all."""

import contextlib
import dataclasses
import importlib.metadata
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.export.images import collect_images
from keras_sspcab.export.inference import FrozenInference, Inference
from keras_sspcab.export.parity import (
    MAX_IMAGES,
    ExportMismatchError,
    ParityResult,
    check_parity,
)
from keras_sspcab.runs import files

# Those that have a part in an export.
_PACKAGES = (
    "keras-sspcab",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "numpy",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
)


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What an export has written.

    Attributes:
        path: The artifact: a file, or the folder of a version.
        parity: How far it is from the model; None where the check was
            switched off.

    Example:
    >>> result = ExportResult(pathlib.Path("screws.onnx"), parity=None)
    >>> result.path.suffix
    '.onnx'
    """

    path: pathlib.Path
    parity: ParityResult | None


@contextlib.contextmanager
def staging_path(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path beside `target` and removes what is left there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix tells formats apart. A leading dot: TensorFlow Serving and
    # file managers look past it.
    staged = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    try:
        yield staged
    finally:
        if staged.is_dir():
            shutil.rmtree(staged)
        else:
            staged.unlink(missing_ok=True)


class ParityCheck:
    """The check that an artifact has to pass before it is moved into place.

    Args:
        inference: What the artifact must compute.
        images: Real images; None is for `check=False` only.
        check: Whether there is a check at all.
        image_size: As of `check_parity`, and so are the others.

    Raises:
        ValueError: If there are no images, or they do not fit.
    """

    def __init__(
        self,
        inference: Inference,
        images: Any,
        check: bool,
        image_size: Sequence[int] | None,
        tolerance: float | None,
        precision: str = "float32",
    ) -> None:
        if check and images is None:
            raise ValueError(
                "An export compares the artifact with the model: pass some "
                "real images as `images`, or `check=False` to go without. "
                "Received: images=None"
            )
        self._inference = inference
        self._images: dict[str, np.ndarray] | None = None
        if check:
            self._images = collect_images(inference, images, MAX_IMAGES)
        self._options: dict[str, Any] = {
            "tolerance": tolerance,
            "precision": precision,
            "image_size": image_size,
        }

    def run(
        self, staged: pathlib.Path, target: pathlib.Path
    ) -> ParityResult | None:
        """Compares the staged artifact with the model.

        Raises:
            ExportMismatchError: If they differ.
            ValueError: If the artifact does not run.
        """
        if self._images is None:
            return None
        try:
            result = check_parity(
                self._inference.model, staged, self._images, **self._options
            )
        except ValueError:
            raise
        except Exception as error:  # each runtime has its own
            raise ValueError(
                f"The exported {target.name} does not run: {error}\n"
                "Nothing has been written."
            ) from error
        result = dataclasses.replace(result, artifact=target.name)
        if not result.passes:
            raise ExportMismatchError(result)
        return result

    def report(
        self,
        staged: pathlib.Path,
        frozen: FrozenInference,
        parity: ParityResult | None,
    ) -> dict[str, Any]:
        """Describes the artifact, for those who have nothing else of it."""
        inference = self._inference
        size = self._options["image_size"]
        shape = frozen.specs[0].shape
        if size is not None:
            size = list(standardize_size(size))
        elif len(shape) >= 4 and None not in shape[-3:-1]:
            size = list(shape[-3:-1])
        file = staged / "saved_model.pb" if staged.is_dir() else staged
        return {
            "model": inference.model.name,
            "precision": self._options["precision"],
            "inputs": {
                spec.name: {
                    "shape": list(spec.shape),
                    "dtype": spec.dtype.name,
                    "value_range": inference.value_range(spec.name),
                }
                for spec in frozen.specs
            },
            "outputs": list(frozen.output_names),
            "image_size": size,
            "calibration": inference.calibration,
            "sha256": files.sha256_of(file),
            "packages": _package_versions(),
            "parity": None if parity is None else parity.to_dict(),
        }


def publish_file(
    staged: pathlib.Path, target: pathlib.Path, report: dict[str, Any]
) -> None:
    """Moves a checked file into place, and its report beside it."""
    path = target.with_name(f"{target.name}.parity.json")
    with staging_path(path) as staged_report:
        files.write_json(str(staged_report), report)
        # Between these two moves the old report is gone, never wrong.
        path.unlink(missing_ok=True)
        os.replace(staged, target)
        os.replace(staged_report, path)


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
