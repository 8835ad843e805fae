"""Writes an artifact so that it appears whole, checked, or not at all."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
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

PACKAGES = (
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


@dataclasses.dataclass(frozen=True)
class ParityCheck:
    """The check that an artifact has to pass before it is moved into place.

    Attributes:
        inference: What the artifact must compute.
        inputs: Real images for each input; None where the check is off.
        tolerance: As in `check_parity`.
        precision: As in `check_parity`.
        image_size: As in `check_parity`.
    """

    inference: Inference
    inputs: list[np.ndarray] | None
    tolerance: float | None = None
    precision: str = "float32"
    image_size: Sequence[int] | None = None

    @classmethod
    def prepare(
        cls, inference: Inference, images: Any, check: bool, **options: Any
    ) -> "ParityCheck":
        """Takes the images, before anything takes time.

        Raises:
            ValueError: If there are none and the check is not switched off.
        """
        if check and images is None:
            raise ValueError(
                "An export compares the artifact with the model: pass some "
                "real images as `images`, or `check=False` to go without. "
                "Received: images=None"
            )
        inputs = (
            collect_images(inference, images, MAX_IMAGES) if check else None
        )
        return cls(inference, inputs, **options)

    def run(
        self, staged: pathlib.Path, target: pathlib.Path
    ) -> ParityResult | None:
        """Compares the staged artifact with the model.

        Raises:
            ExportMismatchError: If they differ.
            ValueError: If the artifact does not run.
        """
        if self.inputs is None:
            return None
        images = dict(zip(self.inference.input_names, self.inputs, strict=True))
        try:
            result = check_parity(
                self.inference.model,
                staged,
                images,
                tolerance=self.tolerance,
                precision=self.precision,
                image_size=self.image_size,
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
        is_detector = self.inference.is_detector
        calibration = (
            self.inference.model.calibration.to_dict() if is_detector else None
        )
        return {
            "model": self.inference.model.name,
            "precision": self.precision,
            "inputs": {
                spec.name: {
                    "shape": list(spec.shape),
                    "dtype": spec.dtype.name,
                    "value_range": self.inference.value_range(spec.name),
                }
                for spec in frozen.specs
            },
            "outputs": list(frozen.output_names),
            "image_size": self._known_size(frozen),
            "calibration": calibration,
            "sha256": digest(staged),
            "packages": package_versions(),
            "parity": None if parity is None else parity.to_dict(),
        }

    def _known_size(self, frozen: FrozenInference) -> list[int] | None:
        if self.image_size is not None:
            return list(standardize_size(self.image_size))
        shape = frozen.specs[0].shape
        if len(shape) < 4 or None in shape[-3:-1]:
            return None
        return list(shape[-3:-1])


def publish_file(
    staged: pathlib.Path, target: pathlib.Path, report: dict[str, Any]
) -> None:
    """Moves a checked file and its report into place."""
    path = report_path(target)
    with staging_path(path) as staged_report:
        write_report(staged_report, report)
        # Between these two moves the old report is gone, never wrong.
        path.unlink(missing_ok=True)
        os.replace(staged, target)
        os.replace(staged_report, path)


def report_path(target: pathlib.Path) -> pathlib.Path:
    """Where the report on a file lies."""
    return target.with_name(f"{target.name}.parity.json")


def write_report(path: pathlib.Path, report: dict[str, Any]) -> None:
    """Writes a report as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def digest(artifact: pathlib.Path) -> str:
    """SHA-256 of the file, or of the graph in a SavedModel folder."""
    file = artifact / "saved_model.pb" if artifact.is_dir() else artifact
    return hashlib.sha256(file.read_bytes()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages that had a part in an export."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
