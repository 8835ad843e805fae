"""Scores the test images of a run and measures how good the scores are."""

import collections
import dataclasses
import os
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._data import ImageSource, images_of
from keras_sspcab.cli._maps import save_map
from keras_sspcab.runs import Config, RunFolder, files

if TYPE_CHECKING:
    from keras_sspcab.data import ImageSample
    from keras_sspcab.metrics import PixelScores

COLUMNS = (
    "path",
    "label",
    "defect",
    "anomaly_score",
    "is_anomalous",
    "raw_score",
    "mask_path",
    "map_file",
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate_images` found.

    Attributes:
        metrics: As written to `metrics.json`.
        split: `"test"`, or `"validation"` where there are no test images.
        num_without_mask: Defective images that count for no pixel metric.
    """

    metrics: dict[str, Any]
    split: str
    num_without_mask: int


def evaluate_images(run: RunFolder, config: Config, model: Any) -> Evaluation:
    """Writes `predictions/` and `metrics.json` of a run.

    Args:
        run: A finished run.
        config: Its configuration; `data.path` may be another folder.
        model: Its model.

    Returns:
        The metrics, and what they were measured on.

    Raises:
        ValueError: If images cannot be used.
    """
    samples, split, root = ImageSource().samples_to_evaluate(config)
    with files.replacing_folder(run.file("predictions")) as predictions:
        rows, pixels, num_without_mask = _score(
            model, samples, config, predictions
        )
        files.write_csv(os.path.join(predictions, "scores.csv"), COLUMNS, rows)
    metrics = {
        **_counts(samples),
        **_image_metrics(rows),
        **pixels[None].compute(),
        "per_defect": {
            defect: {
                "num_images": sum(row["defect"] == defect for row in rows),
                **_image_metrics(
                    [row for row in rows if row["defect"] in ("good", defect)]
                ),
                **pixels[defect].compute(),
            }
            for defect in sorted({s.defect for s in samples if s.label})
        },
        "calibration": model.calibration.to_dict(),
    }
    run.record_evaluation(metrics, split, root)
    return Evaluation(metrics, split, num_without_mask)


def _score(
    model: Any,
    samples: "tuple[ImageSample, ...]",
    config: Config,
    predictions: str,
) -> "tuple[list[dict[str, Any]], dict[str | None, PixelScores], int]":
    """Writes the maps; returns rows, and pixels of all and by defect."""
    import numpy as np

    from keras_sspcab.metrics import PixelScores

    os.makedirs(os.path.join(predictions, "maps"))
    rows: list[dict[str, Any]] = []
    pixels: dict[str | None, PixelScores] = collections.defaultdict(PixelScores)
    defects = {sample.defect for sample in samples if sample.label}
    num_without_mask = 0
    batches = images_of(
        samples, config.data, with_masks=True, allow_missing_masks=True
    )
    for images, others in batches:
        outputs = {
            name: np.asarray(value)
            for name, value in model.predict_on_batch(images).items()
        }
        for i, mask in enumerate(others["mask"].numpy()):
            sample, number = samples[len(rows)], len(rows)
            anomaly_map = outputs["anomaly_map"][i]
            map_file = f"maps/{number:06d}.npy"
            save_map(os.path.join(predictions, map_file), anomaly_map)
            rows.append(
                {
                    "path": sample.path,
                    "label": sample.label,
                    "defect": sample.defect,
                    "anomaly_score": float(outputs["anomaly_score"][i]),
                    "is_anomalous": int(outputs["is_anomalous"][i]),
                    "raw_score": float(outputs["raw_score"][i]),
                    "mask_path": sample.mask_path,
                    "map_file": map_file,
                }
            )
            if sample.label and sample.mask_path is None:
                num_without_mask += 1
                continue
            groups = {sample.defect} if sample.label else defects
            for group in (None, *groups):
                pixels[group].add(mask, anomaly_map)
    return rows, pixels, num_without_mask


def _counts(samples: "tuple[ImageSample, ...]") -> dict[str, int]:
    defective = sum(sample.label for sample in samples)
    return {
        "num_test_images": len(samples),
        "num_normal_images": len(samples) - defective,
        "num_defective_images": defective,
    }


def _image_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Ranking metrics, and the rates at the calibrated threshold."""
    from keras_sspcab.metrics import image_metrics

    result = image_metrics(
        [row["label"] for row in rows], [row["anomaly_score"] for row in rows]
    )
    for name, label in (("false_alarm_rate", 0), ("detection_rate", 1)):
        flags = [row["is_anomalous"] for row in rows if row["label"] == label]
        if flags:
            result[name] = sum(flags) / len(flags)
    return result
