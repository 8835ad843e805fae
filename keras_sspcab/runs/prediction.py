"""Scores of new images by a trained model."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_sspcab.data import (
    ImageSample,
    check_images,
    decode_image,
    image_dataset,
    scan_image_folder,
)
from keras_sspcab.report import overlay
from keras_sspcab.runs import files
from keras_sspcab.runs.sources.base import INFERENCE_BATCH_SIZE
from keras_sspcab.scoring import Calibration

PathLike = str | os.PathLike[str]
Rows = list[dict[str, Any]]


def predict_images(
    model: Any,
    paths: Iterable[PathLike],
    heat_maps: PathLike | None = None,
    on_error: str = "raise",
) -> Rows:
    """Scores image files and folders of them; see `Run.predict`."""
    samples = check_images(_list_images(paths), on_error=on_error)
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
    for images in image_dataset(
        samples, (height, width), channels, batch_size=INFERENCE_BATCH_SIZE
    ):
        outputs = model.predict_on_batch(images)
        for i in range(len(images)):
            path = samples[len(rows)].path
            row = {"path": path, **score_cells(outputs, i)}
            if heat_maps is not None:
                stem = os.path.splitext(os.path.basename(path))[0]
                row["heat_map"] = os.path.join(
                    heat_maps, f"{len(rows):06d}-{stem}.png"
                )
                _write_heat_map(
                    row["heat_map"],
                    path,
                    np.asarray(outputs["anomaly_map"][i]),
                    model.calibration,
                )
            rows.append(row)
    return rows


def _list_images(paths: Iterable[PathLike]) -> list[ImageSample]:
    samples: dict[str, ImageSample] = {}
    for path in [os.fspath(path) for path in paths]:
        if os.path.isdir(path):
            listed = scan_image_folder(path, layout="plain").train
        else:
            # A file that does not exist is reported with the broken ones.
            listed = (ImageSample(path),)
        samples |= {sample.path: sample for sample in listed}
    return list(samples.values())


def _write_heat_map(
    path: str,
    image_path: str,
    anomaly_map: np.ndarray,
    calibration: Calibration,
) -> None:
    """Writes a PNG of an image, in its own size, with its map on top.

    The colors do not depend on the image: the scale ends at twice the
    threshold of pixels, so that normal images stay as they are. Without a
    threshold it ends at the map's maximum.
    """
    pixels = decode_image(tf.io.read_file(image_path), 3).numpy()
    threshold = calibration.pixel_threshold or 0.0
    scale = 2 * threshold if threshold > 0 else float(np.max(anomaly_map))
    picture = overlay(pixels, anomaly_map, max(scale, 1e-6))
    with files.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)


def score_cells(outputs: Any, index: Any = ()) -> dict[str, Any]:
    """Returns the scores in outputs of a model as plain values."""
    return {
        "anomaly_score": float(outputs["anomaly_score"][index]),
        "is_anomalous": bool(outputs["is_anomalous"][index]),
        "raw_score": float(outputs["raw_score"][index]),
    }
