"""Loads a model, trained or exported, to score single images with."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_sspcab.export.audit import require_finite_constants
from keras_sspcab.export.runners import SavedModelRunner
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.models import load_detector
from keras_sspcab.scale import checksum_of_model

_SAVED_MODEL = "saved_model.pb"


class ImageScorer:
    """A model of images; a `keras_sspcab.scale.Scorer`."""

    def __init__(
        self,
        path: str,
        shape: tuple[int | None, ...],
        function: Callable[[np.ndarray], dict[str, Any]],
        checksum: str,
        preprocessing: Preprocessing,
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
        self.preprocessing = preprocessing
        self.is_calibrated = is_calibrated
        self._function = function

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        """Scores a batch of float32 images in [0, 1]."""
        return self._function(images)


def load_scorer(path: Any) -> ImageScorer:
    """Loads a run folder, a `.keras` file or a version of a SavedModel.

    Args:
        path: Its path.

    Returns:
        A `keras_sspcab.scale.Scorer`, which also knows whether it
        `is_calibrated`.

    Raises:
        ValueError: If there is no such model, or it looks at videos.

    Example:
    >>> scorer = load_scorer("runs/screws")  # doctest: +SKIP
    >>> scorer(images)["anomaly_score"]  # doctest: +SKIP
    array([0.4, 7.1], dtype=float32)
    """
    folder = pathlib.Path(path)
    if (folder / _SAVED_MODEL).is_file():
        return _load_saved_model(str(path))
    versions = sorted(folder.glob(f"[0-9]*/{_SAVED_MODEL}"))
    if versions:
        raise ValueError(
            f"{path} is a folder of versions. Give one of them, such as "
            f"{versions[-1].parent}"
        )
    return _load_detector(str(path))


def _load_detector(path: str) -> ImageScorer:
    file = path
    if not path.endswith(".keras"):
        file = RunFolder(path).require("model.keras", "keras-sspcab train")
    # Before it is loaded, so that a change meanwhile is noticed.
    is_there = pathlib.Path(file).is_file()
    checksum = checksum_of_model(file) if is_there else ""
    detector = load_detector(file)
    if detector.kind != "image":
        raise _looks_at_videos(path, detector.name)
    return ImageScorer(
        path,
        tuple(detector.input_shape[1:]),
        detector.predict_on_batch,
        checksum,
        detector.preprocessing,
        detector.calibration.is_calibrated,
    )


def _load_saved_model(path: str) -> ImageScorer:
    from keras_sspcab.export.serving.manifest import (
        MANIFEST_NAME,
        verify_version,
    )
    from keras_sspcab.export.serving.warmup import read_meta_graph

    if (pathlib.Path(path) / MANIFEST_NAME).is_file():
        verify_version(path)
    checksum = checksum_of_model(path)
    require_finite_constants(read_meta_graph(pathlib.Path(path)).graph_def)
    runner = SavedModelRunner(pathlib.Path(path))
    name, shape = runner.input_names[0], runner.input_shapes[0]
    if len(runner.input_names) > 1 or len(shape) == 5:
        raise _looks_at_videos(path, name)
    missing = {"anomaly_score", "is_anomalous"} - set(runner.output_names)
    if missing or len(shape) != 4:
        raise ValueError(
            f"{path} holds no anomaly detector of images. Received: input "
            f"{name} of shape {shape}, outputs {sorted(runner.output_names)}"
        )
    return ImageScorer(
        path,
        shape[1:],
        lambda images: runner(**{name: images}),
        checksum,
        runner.preprocessing,
    )


def _looks_at_videos(path: str, name: str) -> ValueError:
    return ValueError(
        f"The model {name!r} in {path} looks at videos, and images are to be "
        "scored. Use `keras-sspcab predict RUN --video VIDEO`"
    )
