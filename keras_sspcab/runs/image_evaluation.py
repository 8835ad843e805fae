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
from keras_sspcab.runs.calibration import measured_on
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


class _MaskedMaps:
    """The maps of test images, in their order, beside the masks."""

    def __init__(
        self, source: ImageSource, samples: Sequence[ImageSample]
    ) -> None:
        self._size = source.data.image_size
        self._rule = source.config.evaluation.masks
        self._masks = parallel_iterate(
            lambda sample: load_mask(
                sample, self._size, self._rule, source.preprocessing
            ),
            samples,
        )
        # By defect, "good" for normal images.
        self._pixels: dict[str, PixelScores] = collections.defaultdict(
            PixelScores
        )
        self._doubts: list[tuple[ImageSample, str]] = []
        self._num_small: list[int] = []
        self._num_cut = 0
        self._num_without = 0

    def add(
        self,
        sample: ImageSample,
        anomaly_map: np.ndarray,
        counted: np.ndarray | None,
    ) -> None:
        """Takes the map of the next image, and which of its pixels count."""
        mask, small, share_cut = next(self._masks)
        self._num_small += [small] if small else []
        self._num_cut += share_cut > 0
        if sample.label and sample.mask_path is None:
            self._num_without += 1
            return
        is_lost = bool((small or share_cut) and not mask.any())
        doubt = "" if is_lost else find_doubt(mask, sample.label)
        self._doubts.append((sample, doubt))
        if doubt not in ("empty", "marked"):
            self._pixels[sample.defect].add(mask, anomaly_map, counted)
            PixelScores.bound(self._pixels.values())

    def scores(self, *defects: str) -> PixelScores:
        """Returns the pixels of some defects, or of all images."""
        names = defects or tuple(self._pixels)
        return PixelScores.joined([self._pixels[name] for name in names])

    def doubts(self) -> list[str]:
        """Returns sentences on the masks that contradict their labels."""
        return describe_doubts(self._doubts)

    def notes(self) -> list[str]:
        """Says what counts for no pixel metric, or otherwise than it is."""
        notes = []
        height, width = self._size
        if self._num_without:
            notes.append(
                f"{self._num_without} defective images have no mask and count "
                "for no pixel metric"
            )
        if self._num_cut:
            notes.append(
                f"Defects in {self._num_cut} masks lie in part or whole where "
                "images are cut off; their pixels there count for no metric"
            )
        if self._num_small and self._rule == "whole":
            notes.append(
                f"{len(self._num_small)} masks are empty at {height}x{width} "
                "pixels, so that their defects count as normal pixels"
            )
        elif self._num_small:
            notes.append(
                f"{sum(self._num_small)} defects in {len(self._num_small)} "
                f"masks are so small that masks of {height}x{width} pixels "
                "would pass over them: the pixels that hold most of each stand "
                "for it"
            )
        return notes


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
    normal = [sample for sample in samples if not sample.label]
    num_known = len(measured_on(model, source, normal, split))
    os.makedirs(os.path.join(folder, "maps"))
    rows: list[ImageScore] = []
    masked = _MaskedMaps(source, samples)
    statistics: list[np.ndarray] = []
    looks: list[dict[str, np.ndarray]] = []
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
        for i in range(len(images)):
            sample = samples[len(rows)]
            one = {name: value[i] for name, value in outputs.items()}
            where = None if counted is None else counted[i]
            map_path = os.path.join(folder, f"maps/{len(rows):06d}.npy")
            rows.append(_write_score(sample, one, where, map_path))
            masked.add(sample, one["anomaly_map"], where)
    write_rows(folder, ImageScore, rows)
    pixels = masked.scores()
    defects = sorted({sample.defect for sample in samples if sample.label})
    values = {
        "num_test_images": len(rows),
        "num_normal_images": len(normal),
        "num_defective_images": len(rows) - len(normal),
        **_image_metrics(rows),
        **_statistics_auroc(source, rows, statistics),
        **_drift(model.calibration.reference, rows, looks),
        **pixels.compute(),
        "per_defect": {
            defect: {
                "num_images": sum(row.defect == defect for row in rows),
                **_image_metrics(
                    [row for row in rows if row.defect in (GOOD, defect)]
                ),
                **masked.scores(GOOD, defect).compute(),
            }
            for defect in defects
        },
    }
    curves = ranking_curves("image", rows, lambda row: row.score)
    if pixels.num_normal and pixels.num_anomalous:
        curves["pixel_roc"] = pixels.roc_curve()
        curves["pixel_precision_recall"] = pixels.precision_recall_curve()
        curves["pro"] = pixels.pro_curve()
    notes = []
    if pixels.rounding:
        notes.append(
            "There are so many pixels that their scores were rounded, by "
            f"{pixels.rounding:.1g} at most, for the pixel metrics"
        )
    notes += masked.notes()
    # The check of the samples has warned of the first ones already.
    values["notes"] = [*masked.doubts(), *notes]
    gaps = _gaps(values, split, num_known)
    return Measured(values, curves, [*gaps, *notes])


def _write_score(
    sample: ImageSample,
    outputs: dict[str, np.ndarray],
    counted: np.ndarray | None,
    map_path: str,
) -> ImageScore:
    """Writes the map of an image; returns its row of the table."""
    if fault := describe_fault(outputs):
        raise ValueError(
            f"{sample.path} cannot be measured: {fault}. Has the training "
            "diverged?"
        )
    write_map(map_path, outputs["anomaly_map"])
    if counted is not None:
        write_regions(map_path, counted)
    return ImageScore(
        sample.path,
        sample.label,
        sample.defect,
        float(outputs["anomaly_score"]),
        bool(outputs["is_anomalous"]),
        float(outputs["raw_score"]),
        sample.mask_path,
        map_path,
    )


def _gaps(values: dict[str, Any], split: str, num_known: int) -> list[str]:
    """Returns a sentence on each thing that the metrics lack.

    The thresholds were measured on `num_known` of the normal images.
    """
    texts = []
    if split != "test":
        texts.append(
            f"There are no test images; the {SCORED[split]} images were scored"
        )
    if num_known:
        which = "these very images"
        if num_known < values["num_test_images"]:
            which = f"{num_known} of the normal images among these"
        texts.append(
            f"The thresholds were measured on {which}: the false alarm rate is "
            "the one that was meant there, and no finding"
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
            if not samples:
                continue
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
