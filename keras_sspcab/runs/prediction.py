"""Scores of new images by a trained model."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab.data import (
    ImageSample,
    check_images,
    image_dataset,
    scan_image_folder,
)
from keras_sspcab.data.checking import warn_of_dark_files
from keras_sspcab.data.file_system import (
    is_folder,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.image_files import load_photo
from keras_sspcab.data.scanning import is_image
from keras_sspcab.report import overlay
from keras_sspcab.runs import files
from keras_sspcab.runs.progress import Progress
from keras_sspcab.runs.sources.base import INFERENCE_BATCH_SIZE
from keras_sspcab.scoring import Calibration, describe_fault

PathLike = str | os.PathLike[str]
Rows = list[dict[str, Any]]


def predict_images(
    model: Any,
    paths: Iterable[PathLike],
    heat_maps: PathLike | None = None,
    on_error: str = "raise",
    progress: Progress | None = None,
) -> Rows:
    """Scores image files and folders of them; see `Run.predict`."""
    preprocessing = model.preprocessing
    samples = check_images(
        _list_images(paths), on_error=on_error, preprocessing=preprocessing
    )
    warn_of_dark_files([sample.path for sample in samples], preprocessing)
    height, width, channels = model.input_shape[1:]
    if height is None or width is None:
        raise ValueError(
            "The model takes images of any size, so it does not say which one "
            "they shall have. Use a model that `keras-sspcab train` has "
            "written, or predict from Python"
        )
    if heat_maps is not None:
        os.makedirs(heat_maps, exist_ok=True)
    rows: Rows = []
    batches = image_dataset(
        samples,
        (height, width),
        channels,
        batch_size=INFERENCE_BATCH_SIZE,
        preprocessing=preprocessing,
    )
    progress = progress or Progress()
    for images in progress.track(batches, "Scoring batches of images"):
        outputs = model.predict_on_batch(images)
        for i in range(len(images)):
            path = samples[len(rows)].path
            one = {name: np.asarray(v[i]) for name, v in outputs.items()}
            row = {"path": path, **score_cells(one, model.calibration)}
            if heat_maps is not None:
                row["heat_map"] = None
            if heat_maps is not None and row["error"] is None:
                stem = os.path.splitext(os.path.basename(path))[0]
                row["heat_map"] = os.path.join(
                    heat_maps, f"{len(rows):06d}-{stem}.png"
                )
                _write_heat_map(
                    row["heat_map"],
                    np.asarray(load_photo(path, preprocessing)),
                    one["anomaly_map"],
                    model.calibration,
                )
            rows.append(row)
    return rows


def _list_images(paths: Iterable[PathLike]) -> list[ImageSample]:
    samples: dict[str, ImageSample] = {}
    for path in [standardize_path(path, "images") for path in paths]:
        if not (scheme_of(path) and is_image(path)) and is_folder(path):
            listed = scan_image_folder(path, layout="plain").train
        else:
            # A file that does not exist is reported with the broken ones.
            listed = (ImageSample(path),)
        samples |= {sample.path: sample for sample in listed}
    return list(samples.values())


def _write_heat_map(
    path: str,
    pixels: np.ndarray,
    anomaly_map: np.ndarray,
    calibration: Calibration,
) -> None:
    """Writes a PNG of an image, in its own size, with its map on top.

    The colors do not depend on the image: the scale ends at twice the
    threshold of pixels, so that normal images stay as they are. Without a
    threshold it ends at the map's maximum.
    """
    threshold = calibration.pixel_threshold or 0.0
    scale = 2 * threshold if threshold > 0 else float(np.max(anomaly_map))
    picture = overlay(pixels, anomaly_map, max(scale, 1e-6))
    with files.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)


def score_cells(
    outputs: Mapping[str, np.ndarray], calibration: Calibration
) -> dict[str, Any]:
    """Returns the scores in outputs for one image as plain values.

    Where one is not finite there are none, but an `error`. `conflict` says if
    score and pixels disagree.
    """
    names = ("anomaly_score", "is_anomalous", "raw_score")
    error, conflict = describe_fault(outputs), None
    if error is None and "boxes" not in outputs:
        conflict = calibration.describe_conflict(
            outputs["anomaly_score"], outputs["anomaly_map"]
        )
    return {
        **{n: None if error else np.asarray(outputs[n]).item() for n in names},
        "error": error,
        "conflict": conflict,
    }
