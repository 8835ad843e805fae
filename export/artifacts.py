"""Artifacts appear whole and checked, or not at all."""

import contextlib
import ctypes
import dataclasses
import gc
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_sspcab import files
from keras_sspcab.export.images import collect_images
from keras_sspcab.export.inference import FrozenInference, Inference
from keras_sspcab.export.parity import (
    MAX_IMAGES,
    ExportMismatchError,
    ParityResult,
    check_parity,
)
from keras_sspcab.imports import versions_of

# Those that have a part in an export.
_PACKAGES = (
    *("keras-sspcab", "keras", "tensorflow", "tensorflow-cpu", "numpy"),
    *("tf2onnx", "onnx", "onnxruntime", "ai-edge-litert"),
    *("openvino", "nncf"),
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
    # Its suffix tells formats apart; TensorFlow Serving looks past it.
    staged = pathlib.Path(files.temporary_path(target))
    try:
        yield staged
    finally:
        if staged.is_dir():
            shutil.rmtree(staged)
        else:
            staged.unlink(missing_ok=True)
        _return_memory()


def _return_memory() -> None:
    """Gives what is free back to the system.

    Converters need many times the size of the weights for a moment, in objects
    that refer to each other; the C library of Linux would keep it even then.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class ParityCheck:
    """The check that an artifact has to pass before it is moved into place."""

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
        # At once: images that do not fit are told before the work.
        self._images = (
            collect_images(inference, images, MAX_IMAGES) if check else None
        )
        self._options: dict[str, Any] = {
            "tolerance": tolerance,
            "precision": precision,
            "image_size": image_size,
        }

    def run(
        self,
        staged: pathlib.Path,
        target: pathlib.Path,
        frozen: FrozenInference,
    ) -> tuple[ParityResult | None, dict[str, Any]]:
        """Returns the comparison with the model, and the artifact's report."""
        parity = None
        if self._images is not None:
            parity = self._compare(staged, target.name, self._images)
        inference = self._inference
        shape = frozen.specs[0].shape
        is_fixed = len(shape) >= 4 and None not in shape[-3:-1]
        size = shape[-3:-1] if is_fixed else self._options["image_size"]
        file = staged / "saved_model.pb" if staged.is_dir() else staged
        return parity, {
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
            "optional_inputs": {
                spec.name: {"dtype": spec.dtype.name} for spec in frozen.options
            },
            "outputs": list(frozen.output_names),
            "regions": inference.regions,
            "region_labels": inference.region_labels,
            "image_size": None if size is None else list(size),
            "calibration": inference.calibration,
            "preprocessing": inference.preprocessing.to_dict(),
            "sha256": files.sha256_of(file),
            **(
                {"sha256_weights": files.sha256_of(weights)}
                if (weights := staged.with_suffix(".bin")).is_file()
                else {}
            ),
            "packages": versions_of(_PACKAGES),
            "parity": None if parity is None else parity.to_dict(),
        }

    def _compare(
        self, staged: pathlib.Path, name: str, images: Any
    ) -> ParityResult:
        try:
            result = check_parity(
                self._inference.model, staged, images, **self._options
            )
        except ValueError:
            raise
        except Exception as error:  # each runtime has its own
            raise ValueError(
                f"The exported {name} does not run: {error}\n"
                "Nothing has been written."
            ) from error
        result = dataclasses.replace(result, artifact=name)
        if not result.passes:
            raise ExportMismatchError(result)
        return result


def publish_file(
    target: pathlib.Path,
    save: Callable[[pathlib.Path], Any],
    check: ParityCheck,
    frozen: FrozenInference,
    **facts: Any,
) -> ExportResult:
    """Saves a file, checks it, and moves it and its report into place.

    What is saved beside it, such as its weights, comes along.
    """
    report_name = f"{target.name}.parity.json"
    with staging_path(target) as folder:
        folder.mkdir()
        staged = folder / target.name
        save(staged)
        parity, report = check.run(staged, target, frozen)
        files.write_json(str(folder / report_name), {**facts, **report})
        last = (target.name, report_name)
        names = [n for n in sorted(os.listdir(folder)) if n not in last]
        # Between these moves the old report is gone, never wrong; so is a file
        # that would be read together with what is new beside it.
        for name in (report_name, *([target.name] if names else [])):
            target.with_name(name).unlink(missing_ok=True)
        for name in (*names, *last):
            os.replace(folder / name, target.with_name(name))
    return ExportResult(target, parity)
