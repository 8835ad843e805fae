"""Scores the test images of a run and measures how good the scores are."""

import collections
import dataclasses
import os
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._data import ImageSource, images_of
from keras_sspcab.cli._maps import save_map
from keras_sspcab.cli._sources import source_of
from keras_sspcab.runs import Config, RunFolder, files

if TYPE_CHECKING:
    import numpy as np

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

# More images would hardly change mean and spread of their statistics.
_MAX_NORMAL = 200


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate_images` found.

    Attributes:
        metrics: As written to `metrics.json`.
        split: `"test"`, or `"validation"` or `"train"` where there are no test
            images.
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
    samples, split, root = source_of(config).samples_to_evaluate(config)
    with files.replacing_folder(run.file("predictions")) as predictions:
        scored = _score(model, samples, config, predictions)
        files.write_csv(
            os.path.join(predictions, "scores.csv"), COLUMNS, scored.rows
        )
    rows, pixels = scored.rows, scored.pixels
    metrics = {
        **_counts(samples),
        **_image_metrics(rows),
        **_statistics_auroc(run, config, samples, scored.statistics),
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
    return Evaluation(metrics, split, scored.num_without_mask)


@dataclasses.dataclass
class _Scored:
    """What the test images gave.

    Attributes:
        rows: Of `scores.csv`.
        pixels: By defect, and of all images under None.
        statistics: `image_statistics` of each image.
        num_without_mask: Defective images without one.
    """

    rows: list[dict[str, Any]]
    pixels: "dict[str | None, PixelScores]"
    statistics: "np.ndarray"
    num_without_mask: int


def _score(
    model: Any,
    samples: "tuple[ImageSample, ...]",
    config: Config,
    predictions: str,
) -> _Scored:
    """Writes the maps."""
    import numpy as np

    from keras_sspcab.metrics import PixelScores, image_statistics

    os.makedirs(os.path.join(predictions, "maps"))
    rows: list[dict[str, Any]] = []
    pixels: dict[str | None, PixelScores] = collections.defaultdict(PixelScores)
    defects = {sample.defect for sample in samples if sample.label}
    statistics: list[np.ndarray] = []
    num_without_mask = 0
    batches = images_of(
        samples, config.data, with_masks=True, allow_missing_masks=True
    )
    for images, others in batches:
        statistics += map(image_statistics, images.numpy())
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
    return _Scored(rows, pixels, np.stack(statistics), num_without_mask)


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


def _statistics_auroc(
    run: RunFolder,
    config: Config,
    samples: "tuple[ImageSample, ...]",
    statistics: "np.ndarray",
) -> dict[str, float]:
    """How well brightness and contrast alone would have done.

    There is no such figure without both classes, or without normal images to
    compare with.
    """
    from keras_sspcab.metrics import statistics_auroc

    labels = [sample.label for sample in samples]
    if len(set(labels)) < 2:
        return {}
    normal = _normal_statistics(run, config)
    if normal is None or len(normal) < 2:
        return {}
    value = statistics_auroc(normal, statistics, labels)
    return {"image_statistics_auroc": value}


def _normal_statistics(run: RunFolder, config: Config) -> "np.ndarray | None":
    """Returns the statistics of normal training images, if there are any.

    They are those of the run, or, where these are gone, those that lie beside
    the test images.
    """
    import numpy as np

    from keras_sspcab.metrics import image_statistics

    source = ImageSource()
    for path in dict.fromkeys((run.config.data.path, config.data.path)):
        data = config.data.model_copy(update={"path": path})
        try:
            folder = source.scan(config.model_copy(update={"data": data}))
            samples = (*folder.train, *folder.validation)
            chosen = samples[:: -(-len(samples) // _MAX_NORMAL)]
            batches = images_of(source.check_samples(chosen, "skip"), data)
        except (ValueError, OSError):
            continue
        return np.array(
            [image_statistics(x) for batch in batches for x in batch.numpy()]
        )
    return None
