"""Scores the test images of a run and measures how good the scores are."""

import collections
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_sspcab import metrics
from keras_sspcab.data import ImageSample
from keras_sspcab.metrics import PixelScores
from keras_sspcab.runs.measures import Measured, alarm_rates, ranking_curves
from keras_sspcab.runs.outputs import (
    ImageScore,
    write_image_scores,
    write_map,
)
from keras_sspcab.runs.sources import ImageSource

# More images would hardly change mean and spread of their statistics.
_MAX_NORMAL = 200


def evaluate_images(
    model: Any,
    source: ImageSource,
    samples: Sequence[ImageSample],
    folder: str,
) -> Measured:
    """Scores test images; writes scores and maps."""
    os.makedirs(os.path.join(folder, "maps"))
    rows: list[ImageScore] = []
    # By defect, and of all images under None.
    pixels: dict[str | None, PixelScores] = collections.defaultdict(PixelScores)
    defects = sorted({sample.defect for sample in samples if sample.label})
    statistics: list[np.ndarray] = []
    for images, others in source.whole_images(
        samples, with_masks=True, allow_missing_masks=True
    ):
        statistics += map(metrics.image_statistics, images.numpy())
        outputs = {
            name: np.asarray(value)
            for name, value in model.predict_on_batch(images).items()
        }
        for i, mask in enumerate(others["mask"].numpy()):
            sample, anomaly_map = samples[len(rows)], outputs["anomaly_map"][i]
            map_path = os.path.join(folder, f"maps/{len(rows):06d}.npy")
            write_map(map_path, anomaly_map)
            rows.append(
                ImageScore(
                    sample.path,
                    sample.label,
                    sample.defect,
                    float(outputs["anomaly_score"][i]),
                    bool(outputs["is_anomalous"][i]),
                    float(outputs["raw_score"][i]),
                    sample.mask_path,
                    map_path,
                )
            )
            if not _lacks_mask(sample):
                groups = [sample.defect] if sample.label else defects
                for group in (None, *groups):
                    pixels[group].add(mask, anomaly_map)
    write_image_scores(folder, rows)
    num_defective = sum(sample.label for sample in samples)
    return Measured(
        {
            "num_test_images": len(rows),
            "num_normal_images": len(rows) - num_defective,
            "num_defective_images": num_defective,
            **_image_metrics(rows),
            **_statistics_auroc(source, rows, statistics),
            **pixels[None].compute(),
            "per_defect": {
                defect: {
                    "num_images": sum(row.defect == defect for row in rows),
                    **_image_metrics(
                        [row for row in rows if row.defect in ("good", defect)]
                    ),
                    **pixels[defect].compute(),
                }
                for defect in defects
            },
        },
        {
            **ranking_curves("image", rows, lambda row: row.score),
            **_pixel_curves(pixels[None]),
        },
        tuple(sample.path for sample in samples if _lacks_mask(sample)),
    )


def _lacks_mask(sample: ImageSample) -> bool:
    return bool(sample.label) and sample.mask_path is None


def _image_metrics(rows: Sequence[ImageScore]) -> dict[str, float]:
    """Ranking metrics, and the rates at the calibrated threshold."""
    labels, scores = [row.label for row in rows], [row.score for row in rows]
    return {**metrics.image_metrics(labels, scores), **alarm_rates(rows)}


def _pixel_curves(pixels: PixelScores) -> dict[str, metrics.Curve]:
    if not pixels.num_normal or not pixels.num_anomalous:
        return {}
    return {
        "pixel_roc": pixels.roc_curve(),
        "pixel_precision_recall": pixels.precision_recall_curve(),
        "pro": pixels.pro_curve(),
    }


def _statistics_auroc(
    source: ImageSource,
    rows: Sequence[ImageScore],
    statistics: Sequence[np.ndarray],
) -> dict[str, float]:
    """How well brightness and contrast alone would have done.

    There is no such measure without both classes, or without normal images to
    compare with.
    """
    labels = [row.label for row in rows]
    if len(set(labels)) < 2:
        return {}
    normal = _normal_statistics(source)
    if len(normal) < 2:
        return {}
    value = metrics.statistics_auroc(normal, statistics, labels)
    return {"image_statistics_auroc": value}


def _normal_statistics(source: ImageSource) -> list[np.ndarray]:
    """Returns the statistics of normal training images, if there are any.

    They are those of the run, or, where these are gone, those that lie beside
    the test images.
    """
    paths = [source.data.path]
    if source.run is not None:
        paths.insert(0, source.run.config.data.path)
    for path in dict.fromkeys(paths):
        try:
            folder = source.scan(path)
            samples = (*folder.train, *folder.validation)
            chosen = samples[:: -(-len(samples) // _MAX_NORMAL)]
            checked = source.check_samples(chosen, "skip")
        except (ValueError, OSError):
            continue
        return [
            metrics.image_statistics(image)
            for batch in source.whole_images(checked)
            for image in batch.numpy()
        ]
    return []
