"""Scores the test images of a run and measures how good the scores are."""

import collections
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_sspcab import metrics
from keras_sspcab.data import ImageSample
from keras_sspcab.data.checking import warn_of_dark_files
from keras_sspcab.data.folder import GOOD
from keras_sspcab.data.masks import describe_doubts, find_doubt, load_mask
from keras_sspcab.data.parallel import parallel_iterate
from keras_sspcab.metrics import PixelScores
from keras_sspcab.metrics.diagnosis import (
    describe_shortcut,
    image_statistics,
    statistics_auroc,
)
from keras_sspcab.preprocessing import content_of
from keras_sspcab.progress import Progress
from keras_sspcab.runs.calibration import is_measured_on_own
from keras_sspcab.runs.measures import (
    SCORED,
    Measured,
    alarm_rates,
    ranking_curves,
)
from keras_sspcab.runs.outputs import (
    ImageScore,
    write_map,
    write_regions,
    write_rows,
)
from keras_sspcab.runs.sources import ImageSource
from keras_sspcab.scoring import (
    DriftComparison,
    DriftReference,
    describe_fault,
    input_statistics,
    join_statistics,
)

# More images would hardly change mean and spread of their statistics.
_MAX_NORMAL = 200


def evaluate_images(
    model: Any,
    source: ImageSource,
    samples: Sequence[ImageSample],
    split: str,
    folder: str,
    progress: Progress,
) -> Measured:
    """Scores test images; writes scores and maps."""
    warn_of_dark_files([s.path for s in samples], source.preprocessing)
    os.makedirs(os.path.join(folder, "maps"))
    rows: list[ImageScore] = []
    # By defect, "good" for normal images.
    pixels: dict[str, PixelScores] = collections.defaultdict(PixelScores)
    defects = sorted({sample.defect for sample in samples if sample.label})
    statistics: list[np.ndarray] = []
    looks: list[dict[str, np.ndarray]] = []
    size = source.data.image_size
    rule = source.config.evaluation.masks
    masks = parallel_iterate(
        lambda sample: load_mask(sample, size, rule, source.preprocessing),
        samples,
    )
    doubts: list[tuple[ImageSample, str]] = []
    num_small: list[int] = []
    num_cut = 0
    batches = source.whole_images(samples)
    for images in progress.track(batches, "Scoring batches of images"):
        statistics += map(_plain_statistics, images.numpy())
        outputs = {
            name: np.asarray(value)
            for name, value in model.predict_on_batch(images).items()
        }
        counted = model.counted_pixels(images)
        scores = {"score": outputs["anomaly_score"]}
        looks.append({**input_statistics(images.numpy()), **scores})
        for i, anomaly_map in enumerate(outputs["anomaly_map"]):
            sample = samples[len(rows)]
            one = {name: value[i] for name, value in outputs.items()}
            if fault := describe_fault(one):
                raise ValueError(
                    f"{sample.path} cannot be measured: {fault}. Has the "
                    "training diverged?"
                )
            mask, small, share_cut = next(masks)
            num_small += [small] if small else []
            num_cut += share_cut > 0
            map_path = os.path.join(folder, f"maps/{len(rows):06d}.npy")
            write_map(map_path, anomaly_map)
            where = None if counted is None else counted[i]
            if where is not None:
                write_regions(map_path, where)
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
            if _lacks_mask(sample):
                continue
            is_lost = bool((small or share_cut) and not mask.any())
            doubt = "" if is_lost else find_doubt(mask, sample.label)
            doubts.append((sample, doubt))
            if doubt not in ("empty", "marked"):
                pixels[sample.defect].add(mask, anomaly_map, where)
                PixelScores.bound(pixels.values())
    write_rows(folder, ImageScore, rows)
    all_pixels = PixelScores.joined(pixels.values())
    num_defective = sum(sample.label for sample in samples)
    values = {
        "num_test_images": len(rows),
        "num_normal_images": len(rows) - num_defective,
        "num_defective_images": num_defective,
        **_image_metrics(rows),
        **_statistics_auroc(source, rows, statistics),
        **_drift(model.calibration.reference, rows, looks),
        **all_pixels.compute(),
        "per_defect": {
            defect: {
                "num_images": sum(row.defect == defect for row in rows),
                **_image_metrics(
                    [row for row in rows if row.defect in (GOOD, defect)]
                ),
                **PixelScores.joined([pixels[GOOD], pixels[defect]]).compute(),
            }
            for defect in defects
        },
    }
    curves = ranking_curves("image", rows, lambda row: row.score)
    if all_pixels.num_normal and all_pixels.num_anomalous:
        curves["pixel_roc"] = all_pixels.roc_curve()
        curves["pixel_precision_recall"] = all_pixels.precision_recall_curve()
        curves["pro"] = all_pixels.pro_curve()
    notes = []
    if all_pixels.rounding:
        notes.append(
            "There are so many pixels that their scores were rounded, by "
            f"{all_pixels.rounding:.1g} at most, for the pixel metrics"
        )
    if num_without_mask := sum(map(_lacks_mask, samples)):
        notes.append(
            f"{num_without_mask} defective images have no mask and count for "
            "no pixel metric"
        )
    if num_cut:
        notes.append(
            f"Defects in {num_cut} masks lie in part or whole where images are "
            "cut off; their pixels there count for no metric"
        )
    if num_small and rule == "whole":
        notes.append(
            f"{len(num_small)} masks are empty at {size[0]}x{size[1]} pixels, "
            "so that their defects count as normal pixels"
        )
    elif num_small:
        notes.append(
            f"{sum(num_small)} defects in {len(num_small)} masks are so small "
            f"that masks of {size[0]}x{size[1]} pixels would pass over them: "
            "the pixels that hold most of each stand for it"
        )
    # The check of the samples has warned of the first ones already.
    values["notes"] = [*describe_doubts(doubts), *notes]
    is_circular = (
        split == "validation"
        and not model.calibrates_by_folds
        and is_measured_on_own(model.calibration.name)
    )
    gaps = _gaps(values, split, is_circular)
    return Measured(values, curves, [*gaps, *notes])


def _gaps(values: dict[str, Any], split: str, is_circular: bool) -> list[str]:
    texts = []
    if split != "test":
        texts.append(
            f"There are no test images; the {SCORED[split]} images were scored"
        )
    if is_circular:
        texts.append(
            "The thresholds were measured on these very images: the false "
            "alarm rate is the one that was meant, and no finding"
        )
    if not values["num_defective_images"]:
        texts.append(
            "Metrics need defective images, as in test/DEFECT. There are only "
            "normal ones: scores were written, and the false alarms counted"
        )
    elif not values["num_normal_images"]:
        texts.append(
            "Image metrics need normal images as well, as in test/good. There "
            "are only defective ones"
        )
    if shortcut := describe_shortcut(values):
        texts.append(shortcut)
    texts += [
        drift["text"] for drift in values.get("drift", {}).get("drifts", ())
    ]
    return texts


def _lacks_mask(sample: ImageSample) -> bool:
    return bool(sample.label) and sample.mask_path is None


def _image_metrics(rows: Sequence[ImageScore]) -> dict[str, float]:
    """Ranking metrics, and the rates at the calibrated threshold."""
    labels, scores = [row.label for row in rows], [row.score for row in rows]
    return {**metrics.image_metrics(labels, scores), **alarm_rates(rows)}


def _drift(
    reference: DriftReference | None,
    rows: Sequence[ImageScore],
    looks: Sequence[dict[str, np.ndarray]],
) -> dict[str, Any]:
    """Compares normal test images with those that the model is calibrated on.

    Where none is normal, all of them.
    """
    if reference is None:
        return {}
    chosen = np.array([not row.label for row in rows])
    chosen |= not chosen.any()
    statistics = join_statistics(looks)
    comparison = DriftComparison.of(
        reference, {name: each[chosen] for name, each in statistics.items()}
    )
    drifts = [drift.to_dict() for drift in comparison.drifts(reference)]
    return {"drift": {**dataclasses.asdict(comparison), "drifts": drifts}}


def _statistics_auroc(
    source: ImageSource,
    rows: Sequence[ImageScore],
    statistics: Sequence[np.ndarray],
) -> dict[str, float]:
    """Returns how well brightness and contrast alone would have done."""
    labels = [row.label for row in rows]
    if len(set(labels)) < 2:
        return {}
    normal = _normal_statistics(source)
    if len(normal) < 2:  # The spread of a single one is unknown.
        return {}
    value = statistics_auroc(normal, statistics, labels)
    return {"image_statistics_auroc": value}


def _plain_statistics(image: np.ndarray) -> np.ndarray:
    return image_statistics(image[content_of(image)])


def _normal_statistics(source: ImageSource) -> list[np.ndarray]:
    """Returns those of the normal training images, if there are any."""
    # Where those of the run are gone, those beside the test images serve.
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
            _plain_statistics(image)
            for batch in source.whole_images(checked)
            for image in batch.numpy()
        ]
    return []
