"""Loads a model, trained or exported, to score single images with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_sspcab.runs import RunFolder

if TYPE_CHECKING:
    import numpy as np

_SAVED_MODEL = "saved_model.pb"


class ImageScorer:
    """What `keras_sspcab.scale` takes for a model.

    Attributes:
        image_size: Height and width of the images it takes.
        channels: 1 for gray, 3 for color.
        checksum: SHA-256 of its files.
        is_calibrated: Whether it has a threshold, as exports mostly have.
    """

    def __init__(
        self,
        path: str,
        shape: "tuple[int | None, ...]",
        function: "Callable[[np.ndarray], dict[str, Any]]",
        checksum: str,
        is_calibrated: bool = True,
    ) -> None:
        height, width, channels = shape
        if height is None or width is None or channels not in (1, 3):
            raise ValueError(
                f"Images of one size, gray or color, can be scored. Received: "
                f"{path} for images of shape {shape}. Use a model that "
                "`keras-sspcab train` has written, or export it with a size"
            )
        self.image_size = (height, width)
        self.channels = channels
        self.checksum = checksum
        self.is_calibrated = is_calibrated
        self._function = function

    def __call__(self, images: "np.ndarray") -> dict[str, Any]:
        """Scores a batch."""
        return self._function(images)


def load_scorer(path: str) -> ImageScorer:
    """Loads a run folder, a `.keras` file or a version of a SavedModel.

    Raises:
        ValueError: If there is no such model, or it looks at videos.
    """
    from keras_sspcab.cli._backend import import_backend

    import_backend()
    if os.path.isfile(os.path.join(path, _SAVED_MODEL)):
        return _load_saved_model(path)
    return _load_detector(path)


def _load_detector(path: str) -> ImageScorer:
    from keras_sspcab.cli._model import load_detector
    from keras_sspcab.scale import checksum_of_model

    file = path
    if not path.endswith(".keras"):
        _refuse_folders_of_versions(path)
        file = RunFolder(path).require("model.keras", "keras-sspcab train")
    # Before it is loaded, so that a change meanwhile is noticed.
    checksum = checksum_of_model(file) if os.path.isfile(file) else ""
    detector = load_detector(file)
    if detector.kind != "image":
        raise _looks_at_videos(path, detector.name)
    return ImageScorer(
        path,
        tuple(detector.input_shape[1:]),
        detector.predict_on_batch,
        checksum,
        detector.calibration.is_calibrated,
    )


def _load_saved_model(path: str) -> ImageScorer:
    import tensorflow as tf

    from keras_sspcab.export.serving.manifest import (
        MANIFEST_NAME,
        verify_version,
    )
    from keras_sspcab.scale import checksum_of_model

    if os.path.isfile(os.path.join(path, MANIFEST_NAME)):
        verify_version(path)
    checksum = checksum_of_model(path)
    loaded = tf.saved_model.load(path)
    function = loaded.signatures.get("serving_default")
    if function is None:
        raise ValueError(
            f"{path} has no signature 'serving_default'. Export the model "
            "with `keras-sspcab export`"
        )
    specs = function.structured_input_signature[1]
    (name, spec), *more = specs.items()
    outputs = set(function.structured_outputs)
    if more or len(spec.shape) == 5:
        raise _looks_at_videos(path, name)
    missing = {"anomaly_score", "is_anomalous"} - outputs
    if missing or len(spec.shape) != 4:
        raise ValueError(
            f"{path} holds no anomaly detector of images. Received: inputs "
            f"{list(specs.values())}, outputs {sorted(outputs)}"
        )

    def run(images: "np.ndarray") -> dict[str, Any]:
        # `loaded` stays: what the signatures refer to ends with it.
        signature = loaded.signatures["serving_default"]
        results = signature(**{name: tf.constant(images)})
        return {key: value.numpy() for key, value in results.items()}

    shape = tuple(spec.shape[1:])
    return ImageScorer(path, shape, run, checksum)


def _refuse_folders_of_versions(path: str) -> None:
    versions = sorted(
        (file.parent for file in Path(path).glob(f"[0-9]*/{_SAVED_MODEL}")),
        key=lambda folder: folder.name,
    )
    if versions:
        raise ValueError(
            f"{path} is a folder of versions. Give one of them, such as "
            f"{versions[-1]}"
        )


def _looks_at_videos(path: str, name: str) -> ValueError:
    return ValueError(
        f"The model {name!r} in {path} looks at videos, and images are to be "
        "scored. Use `keras-sspcab predict RUN --video VIDEO`"
    )
