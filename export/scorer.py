"""Loads a model, trained or exported, to score single images with."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_sspcab.export.audit import require_finite_constants
from keras_sspcab.export.manifest import (
    MANIFEST_NAME,
    find_versions,
    verify_version,
)
from keras_sspcab.export.reports import calibration_in, read_report
from keras_sspcab.export.runners import SavedModelRunner
from keras_sspcab.hosts import AnomalyModel
from keras_sspcab.optional_inputs import product_index
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.models import load_detector
from keras_sspcab.scale import checksum_of_model
from keras_sspcab.scoring import Calibration, DriftReference

_SAVED_MODEL = "saved_model.pb"


@dataclasses.dataclass
class ImageScorer:
    """A model of images; a `keras_sspcab.scale.Scorer`."""

    image_size: tuple[int, int]
    channels: int
    preprocessing: Preprocessing
    calibration: Calibration | None
    function: Callable[[np.ndarray], dict[str, Any]]
    region_names: Sequence[str]
    product_names: Sequence[str]
    checksum: str = ""
    decision: str = ""

    @property
    def reference(self) -> DriftReference | None:
        """What normal images were like, as far as it is known."""
        return self.calibration.reference if self.calibration else None

    def __call__(self, images: np.ndarray) -> dict[str, Any]:
        """Scores a batch of float32 images in [0, 1]."""
        return self.function(images)


def load_scorer(
    path: Any,
    threshold: float | None = None,
    sensitivity: float | None = None,
    product: str | None = None,
) -> ImageScorer:
    """Loads a run folder, a `.keras` file or a version of a SavedModel.

    Args:
        path: Its path.
        threshold: The score to flag images from, in place of what was
            calibrated; see `Calibration.adjusted`.
        sensitivity: From 0 to 1, instead; 0.5 is as calibrated.
        product: Which of several products all images show. None recognizes it.

    Returns:
        A `keras_sspcab.scale.Scorer`, which also has the `calibration` of the
        model; that is None where an export does not note it.

    Raises:
        ValueError: If there is no such model, it looks at videos, or an export
            takes no threshold.

    Example:
    >>> scorer = load_scorer("runs/screws")  # doctest: +SKIP
    >>> scorer(images)["anomaly_score"]  # doctest: +SKIP
    array([0.4, 7.1], dtype=float32)
    """
    folder = pathlib.Path(path)
    given = {"threshold": threshold, "sensitivity": sensitivity}
    options = {k: value for k, value in given.items() if value is not None}
    if (folder / _SAVED_MODEL).is_file():
        return _load_saved_model(str(path), options, product)
    versions = {
        number: version
        for number, version in find_versions(folder).items()
        if (version / _SAVED_MODEL).is_file()
    }
    if versions:
        raise ValueError(
            f"{path} is a folder of versions. Give one of them, such as "
            f"{versions[max(versions)]}"
        )
    return _load_detector(str(path), options, product)


def _load_detector(
    path: str, options: dict[str, float], product: str | None
) -> ImageScorer:
    file = path
    if not path.endswith(".keras"):
        file = RunFolder(path).require("model.keras", "keras-sspcab train")
    # Before it is loaded, so that a change meanwhile is noticed.
    is_there = pathlib.Path(file).is_file()
    checksum = checksum_of_model(file) if is_there else ""
    detector = load_detector(file)
    if detector.kind != "image":
        raise _looks_at_videos(path, detector.name)
    detector.calibration = detector.calibration.adjusted(**options)
    return dataclasses.replace(
        scorer_of(detector, path, product),
        checksum=checksum,
        decision=_describe(options, product),
    )


def scorer_of(
    detector: AnomalyModel, path: str, product: str | None = None
) -> ImageScorer:
    """Returns the scorer of a detector of images, loaded from a path."""
    names = _product_names(detector.calibration)
    score: Callable[..., Any] = detector.predict_on_batch
    if product is not None:
        score = functools.partial(score, product=product_index(names, product))
    return ImageScorer(
        *_check_shape(path, detector.input_shape[1:]),
        detector.preprocessing,
        detector.calibration,
        score,
        [part.name for part in detector.region_parts],
        names,
    )


def _load_saved_model(
    path: str, options: dict[str, float], product: str | None
) -> ImageScorer:
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
    if unknown := sorted(set(options) - set(runner.option_names)):
        raise ValueError(
            f"The export in {path} takes no {unknown[0]}: it is of an earlier "
            "version, or of a model without thresholds. Export it again"
        )
    known = calibration_in(read_report(pathlib.Path(path)))
    # Checks the options in any case.
    calibration = (known or Calibration(threshold=0.0)).adjusted(**options)
    has_regions = "region_scores" in runner.output_names
    names = _product_names(calibration)
    given: dict[str, Any] = {k: np.float32(v) for k, v in options.items()}
    if product is not None:
        given["product"] = np.int32(product_index(names, product))
    return ImageScorer(
        *_check_shape(path, shape[1:]),
        runner.preprocessing,
        known and calibration,
        lambda images: runner(
            **{name: images},
            **{
                option: np.full(len(images), value)
                for option, value in given.items()
            },
        ),
        [part.name for part in calibration.regions] if has_regions else [],
        names if "product_index" in runner.output_names else [],
        checksum,
        _describe(options, product),
    )


def _check_shape(
    path: str, shape: Sequence[int | None]
) -> tuple[tuple[int, int], int]:
    """Returns size and channels of images, unless they may be any."""
    height, width, channels = shape
    if height is None or width is None or channels not in (1, 3):
        raise ValueError(
            f"Images of one size, gray or color, can be scored. Received: "
            f"{path} for images of shape {tuple(shape)}. Use a model that "
            "`keras-sspcab train` has written, or export it with a size"
        )
    return (height, width), channels


def _product_names(calibration: Calibration) -> list[str]:
    return [part.name for part in calibration.products]


def _describe(options: dict[str, float], product: str | None) -> str:
    texts = [f"{name}={value:g}" for name, value in options.items()]
    return ", ".join([*texts, *([f"product={product}"] if product else [])])


def _looks_at_videos(path: str, name: str) -> ValueError:
    return ValueError(
        f"The model {name!r} in {path} looks at videos, and images are to be "
        "scored. Use `keras-sspcab predict RUN --video VIDEO`"
    )
