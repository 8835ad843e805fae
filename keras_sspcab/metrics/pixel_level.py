"""Metrics of one score per pixel, in bounded memory."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from keras_sspcab.checks import (
    require_both_classes,
    standardize_binary,
    standardize_number,
    standardize_scores,
)
from keras_sspcab.metrics.image_level import Curve, thin_curve
from keras_sspcab.metrics.score_counts import ScoreCounts, join

#: False positive rate up to which AUPRO counts, as in MVTec's papers.
FPR_LIMIT = 0.3

# Those of 500 images of 256 x 256 pixels, in 130 MB.
MAX_NORMAL = 2**25

# With a weight each, and more for computing: 600 MB.
MAX_ANOMALOUS = 2**22

# Components of a mask touch at edges or corners, as in MVTec's own evaluation.
EIGHT_NEIGHBORS = np.ones((3, 3), dtype=bool)


@dataclasses.dataclass(frozen=True)
class _Counts:
    """What lies above each distinct score of an anomalous pixel, descending.

    Normal pixels between two of these thresholds move no curve but along a
    straight, level line. So the few anomalous scores carry the exact curves.
    """

    hits: np.ndarray  # anomalous pixels at or above, int64
    alarms_before: np.ndarray  # normal pixels strictly above, int64
    alarms: np.ndarray  # normal pixels at or above, int64
    overlap: np.ndarray  # mean covered share of the components, float64


class PixelScores:
    """Gathers masks and anomaly maps image by image.

    Metrics are those of scikit-learn on the concatenated pixels in float32,
    ties included, and exact up to `max_normal` normal and `max_anomalous`
    anomalous pixels, at 4 and 12 bytes each. With more, memory stays below 40
    and 150 bytes of these numbers: scores are rounded, by at most `rounding`.

    Metrics and curves raise a `ValueError` if there is no normal or no
    anomalous pixel. Curves have at most `max_points` points; see `thin_curve`.

    Args:
        max_normal: Distinct scores of normal pixels to keep. Defaults to about
            34 million.
        max_anomalous: Distinct scores of anomalous ones. Defaults to about 4
            million.

    Attributes:
        num_images: How many images were added.
        num_normal: How many normal pixels they have.
        num_anomalous: How many anomalous ones.

    Example:
        >>> pixels = PixelScores()
        >>> pixels.add([[1, 0, 0]], [[0.9, 0.2, 0.1]])
        >>> pixels.compute()
        {'pixel_auroc': 1.0, 'pixel_ap': 1.0, 'aupro': 1.0}
        >>> pixels.rounding
        0.0
    """

    def __init__(
        self, max_normal: int = MAX_NORMAL, max_anomalous: int = MAX_ANOMALOUS
    ) -> None:
        self.num_images = 0
        # Shared with what it was joined from, which must not grow then.
        self._normal = [ScoreCounts(max_normal)]
        self._anomalous = [ScoreCounts(max_anomalous)]
        self._counts: _Counts | None = None

    @classmethod
    def joined(cls, parts: "Iterable[PixelScores]") -> "PixelScores":
        """Returns the scores of all parts together, without copying any.

        Nothing may be added to the result, nor to a part after it was measured.
        """
        result = cls()
        result._normal, result._anomalous = [], []
        for part in parts:
            result.num_images += part.num_images
            result._normal += part._normal
            result._anomalous += part._anomalous
        return result

    @property
    def num_normal(self) -> int:
        """How many normal pixels there are."""
        return sum(part.total for part in self._normal)

    @property
    def num_anomalous(self) -> int:
        """How many anomalous pixels there are."""
        return sum(part.total for part in self._anomalous)

    @property
    def rounding(self) -> float:
        """By how much a score was changed at most; 0 if all are exact."""
        steps = [part.step for part in (*self._normal, *self._anomalous)]
        # Half a step each time, and each step is twice the last or more.
        return max(steps, default=0.0)

    @property
    def num_kept(self) -> int:
        """How many scores are in memory."""
        parts = (*self._normal, *self._anomalous)
        return sum(part.num_kept for part in parts)

    @staticmethod
    def bound(
        parts: "Collection[PixelScores]",
        max_normal: int = MAX_NORMAL,
        max_anomalous: int = MAX_ANOMALOUS,
    ) -> None:
        """Rounds scores if parts keep more together than one of them may.

        None of them may have been measured.
        """
        for limit, counts in (
            (max_normal, [part._normal[0] for part in parts]),
            (max_anomalous, [part._anomalous[0] for part in parts]),
        ):
            if sum(each.num_kept for each in counts) > limit:
                max(counts, key=lambda each: each.num_kept).halve()

    def add(self, mask: Any, anomaly_map: Any, counted: Any = None) -> None:
        """Adds one image; arguments are as of `pixel_metrics`, in float32.

        `counted` says which pixels count, bool; None (the default) for all.
        """
        scores = standardize_scores(anomaly_map, "anomaly_map", "float32")
        shape = None if mask is None else np.shape(mask)
        if scores.ndim != 2 or shape not in (None, scores.shape):
            raise ValueError(
                "The `mask` and `anomaly_map` arguments must be of one shape "
                f"(height, width). Received: mask of shape {shape}, "
                f"anomaly_map of shape {scores.shape}"
            )
        if mask is None:
            mask = np.zeros(scores.shape, dtype=bool)
        mask = standardize_binary(mask, "mask")
        normal = ~mask
        if counted is not None:
            normal, mask = normal & counted, mask & counted
        if mask.any():
            self._add_anomalous(mask, scores)
        # Indexing by a mask copies: the caller's map is not kept alive.
        self._normal[0].add(scores[normal])
        self.num_images += 1
        self._counts = None

    def _add_anomalous(self, mask: np.ndarray, scores: np.ndarray) -> None:
        from scipy import ndimage

        numbers, num_components = ndimage.label(mask, EIGHT_NEIGHBORS)
        components = numbers[mask] - 1
        # Each component weighs the same, so its pixels weigh by its size.
        sizes = np.bincount(components, minlength=num_components)
        self._anomalous[0].add(scores[mask], 1.0 / sizes[components])

    def compute(self, fpr_limit: float = FPR_LIMIT) -> dict[str, float]:
        """Returns all pixel-level metrics; see `pixel_metrics`."""
        standardize_number(fpr_limit, "fpr_limit", 0, 1, excluded=0)
        if self.num_normal == 0 or self.num_anomalous == 0:
            return {}
        return {
            "pixel_auroc": self.auroc(),
            "pixel_ap": self.average_precision(),
            "aupro": self.aupro(fpr_limit),
        }

    def auroc(self) -> float:
        """Returns the area under the ROC of all pixels."""
        counts = self._count()
        # A found pixel beats the normal ones below it, and half of its equals.
        gains = np.diff(counts.hits, prepend=0)
        beaten = 2 * self.num_normal - counts.alarms - counts.alarms_before
        num_pairs = 2 * self.num_normal * self.num_anomalous
        # Whole numbers as long as they fit.
        kind = "int64" if num_pairs < 2**63 else "float64"
        wins = np.sum(gains * beaten.astype(kind)).item()
        return min(wins / num_pairs, 1.0)

    def average_precision(self) -> float:
        """Returns the step-wise area under precision over recall."""
        counts = self._count()
        gains = np.diff(counts.hits, prepend=0)
        precision = counts.hits / (counts.hits + counts.alarms)
        return float(np.sum(gains * precision) / self.num_anomalous)

    def aupro(self, fpr_limit: float = FPR_LIMIT) -> float:
        """Returns the area under the per-region overlap (PRO) curve.

        PRO is the share of a connected component (8 neighbors) of the ground
        truth at or above a threshold, averaged over the components of all
        images. The curve runs over the share of the normal pixels of all
        images at or above it; its area up to `fpr_limit`, interpolated there,
        is divided by `fpr_limit`, in (0, 1] (Bergmann et al., "The MVTec
        Anomaly Detection Dataset", IJCV 2021, section 5).
        """
        standardize_number(fpr_limit, "fpr_limit", 0, 1, excluded=0)
        fpr, overlap = self._pro_curve()
        end = int(np.searchsorted(fpr, fpr_limit, side="right"))
        at_limit = np.interp(fpr_limit, fpr, overlap)
        x = np.append(fpr[:end], fpr_limit)
        y = np.append(overlap[:end], at_limit)
        area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2.0)
        return float(area) / fpr_limit

    def roc_curve(self, max_points: int = 500) -> Curve:
        """Returns false positive rate (x) and true positive rate (y)."""
        counts = self._count()
        x = _interleave(counts.alarms_before, counts.alarms, self.num_normal)
        before = np.append(0, counts.hits[:-1])
        y = _interleave(before, counts.hits, self.num_anomalous)
        return thin_curve(x, y, max_points)

    def precision_recall_curve(self, max_points: int = 500) -> Curve:
        """Returns recall (x) and precision (y), one point a threshold."""
        counts = self._count()
        precision = counts.hits / (counts.hits + counts.alarms)
        recall = counts.hits / self.num_anomalous
        return thin_curve(
            np.append(0.0, recall), np.append(1.0, precision), max_points
        )

    def pro_curve(self, max_points: int = 500) -> Curve:
        """Returns false positive rate (x) and per-region overlap (y)."""
        return thin_curve(*self._pro_curve(), max_points)

    def _pro_curve(self) -> tuple[np.ndarray, np.ndarray]:
        counts = self._count()
        x = _interleave(counts.alarms_before, counts.alarms, self.num_normal)
        before = np.append(0.0, counts.overlap[:-1])
        return x, _interleave(before, counts.overlap, 1)

    def _count(self) -> _Counts:
        require_both_classes(self.num_normal, self.num_anomalous, "pixels")
        if self._counts is None:
            self._counts = self._sort_and_count()
        return self._counts

    def _sort_and_count(self) -> _Counts:
        found = join([b for part in self._anomalous for b in part.blocks()])
        thresholds = found.scores[::-1]
        hits = np.cumsum(found.counts[::-1])  # type: ignore[index]
        overlap = np.cumsum(found.weights[::-1])  # type: ignore[index]
        alarms = np.full(thresholds.size, self.num_normal, dtype="int64")
        alarms_before = alarms.copy()
        for part in self._normal:
            for block in part.blocks():
                below, up_to = block.count_below(thresholds)
                alarms -= below
                alarms_before -= up_to
        return _Counts(
            hits=hits,
            alarms_before=alarms_before,
            alarms=alarms,
            overlap=overlap / overlap[-1],  # the number of components
        )


def _interleave(
    before: np.ndarray, after: np.ndarray, total: int
) -> np.ndarray:
    """Returns a curve's coordinate before and after each threshold, 0 to 1."""
    inner = np.stack([before, after], axis=-1).ravel() / total
    return np.concatenate([[0.0], inner, [1.0]])


def pixel_metrics(
    masks: Iterable[Any], maps: Iterable[Any], fpr_limit: float = FPR_LIMIT
) -> dict[str, float]:
    """All pixel-level metrics of a test set; see `PixelScores`.

    Args:
        masks: Array `(n, height, width)` or iterable of arrays `(height,
            width)`, 1 or True where anomalous. None stands for an image
            without a defect. Images may differ in size.
        maps: Anomaly maps of the same shapes, larger is more anomalous.
        fpr_limit: Where the area under the PRO curve ends, in (0, 1].

    Returns:
        Dict of `pixel_auroc`, `pixel_ap` and `aupro`; empty if there is no
        normal or no anomalous pixel, as none is defined then.

    Example:
        >>> pixel_metrics([[[1, 0]], None], [[[0.9, 0.2]], [[0.1, 0.1]]])
        {'pixel_auroc': 1.0, 'pixel_ap': 1.0, 'aupro': 1.0}
    """
    pixels = PixelScores()
    end = object()
    for mask, anomaly_map in itertools.zip_longest(masks, maps, fillvalue=end):
        if mask is end or anomaly_map is end:
            raise ValueError(
                "The `masks` and `maps` arguments must hold one item an "
                "image each. Received: "
                f"{'masks' if mask is end else 'maps'} that ends after "
                f"{pixels.num_images} images, before the other"
            )
        pixels.add(mask, anomaly_map)
    return pixels.compute(fpr_limit)
