"""What is normal: the scale and the thresholds that a detector applies."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_choice, standardize_number
from keras_sspcab.optional_inputs import decision_options
from keras_sspcab.regions import Region
from keras_sspcab.scoring.drift import DriftReference
from keras_sspcab.scoring.false_alarms import (
    CONFIDENCE,
    just_above,
    limit_of,
    quantile_of_each,
    rate_interval,
)

#: What can decide that an image is anomalous.
DECISIONS = ("score", "pixels", "either")

# Below the lowest finite number nothing is normal either.
_LOWEST = float(np.finfo("float32").min)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scale and thresholds, measured on normal images held out of training.

    Scores and maps are reported in standard deviations above the mean of the
    normal images (`z`): 0 is a typical normal image, whatever the model.

    What is not finite is anomalous.

    Attributes:
        score_mean: Mean raw score of the normal images.
        score_std: Standard deviation of the raw score, positive.
        map_mean: Mean raw value of the pixels of the normal images.
        map_std: Standard deviation of these, positive.
        threshold: An image is anomalous by its score (in `z`) from here on.
            None: not calibrated, nothing is anomalous.
        pixel_threshold: The same for a pixel of the map, as maps are colored.
        quantile: Share of the normal images that shall not be flagged.
        pixel_quantile: Share of their pixels below `pixel_threshold`.
        num_images: How many normal images were measured.
        decision: What decides: `"score"`, `"pixels"` or `"either"`.
        peak_threshold: An image is anomalous by its pixels from this value of
            the highest on. None (the default) takes `pixel_threshold`.
        name: Tells this calibration from others of the model; may be empty.
        reference: What the normal images were like, which further ones are
            compared with; see `DriftMonitor`. None where it is unknown.
        stand_ins: Changed copies of a single normal image that were measured in
            place of others.
        regions: Those of parts of the image that decide as well, each by the
            highest value of the raw map in it; their names tell them apart.
        products: Those of a model for several products, each with its name.
            Each decides about its own images; what stands beside them is then
            the mean of theirs.

    Example:
    >>> scores = np.array([1.0, 2.0, 3.0])
    >>> calibration = Calibration.measure(scores, pixels=scores, quantile=1.0)
    >>> calibration.score_mean, round(calibration.threshold, 3)
    (2.0, 1.225)
    """

    score_mean: float = 0.0
    score_std: float = 1.0
    map_mean: float = 0.0
    map_std: float = 1.0
    threshold: float | None = None
    pixel_threshold: float | None = None
    quantile: float | None = None
    pixel_quantile: float | None = None
    num_images: int = 0
    decision: str = "score"
    peak_threshold: float | None = None
    name: str = ""
    reference: DriftReference | None = None
    stand_ins: int = 0
    regions: tuple["Calibration", ...] = ()
    products: tuple["Calibration", ...] = ()

    def __post_init__(self) -> None:
        for name in ("regions", "products"):
            parts = tuple(map(Calibration.standardize, getattr(self, name)))
            object.__setattr__(self, name, parts)
        if isinstance(self.reference, Mapping):
            reference = DriftReference(**self.reference)
            object.__setattr__(self, "reference", reference)
        standardize_choice(self.decision, DECISIONS, "decision")
        for name in ("score_std", "map_std"):
            standardize_number(getattr(self, name), name, excluded=0)
        limits = ("threshold", "pixel_threshold", "peak_threshold")
        for name in ("score_mean", "map_mean", *limits):
            value = getattr(self, name)
            if value is None and name in limits:
                continue
            if value is None or not math.isfinite(value):
                raise ValueError(
                    f"`{name}` must be finite. Received: {name}={value}"
                )
        is_complete = self.peak_limit is not None or self.decision == "score"
        if self.is_calibrated and not is_complete:
            raise ValueError(
                "Pixels decide by `peak_threshold` or `pixel_threshold`. "
                f"Received: None for both, decision={self.decision!r}"
            )

    @classmethod
    def standardize(
        cls, value: "Calibration | Mapping[str, Any] | None"
    ) -> "Calibration":
        """Returns a calibration as such: one, the dict of one, or None.

        None stands for raw scores, and nothing anomalous.
        """
        if isinstance(value, Mapping):
            return cls(**value)
        if not isinstance(value, (cls, type(None))):
            raise ValueError(
                "`calibration` must be a Calibration, a dict of its fields, or "
                f"None. Received: calibration={value!r}"
            )
        return value or cls()

    @classmethod
    def of_products(cls, parts: Mapping[str, "Calibration"]) -> "Calibration":
        """Returns that of a model for several products, of those by name."""
        products = tuple(
            dataclasses.replace(part, name=name) for name, part in parts.items()
        )
        decisions = {part.decision for part in products}

        def mean(name: str) -> float | None:
            values = [getattr(part, name) for part in products]
            return None if None in values else float(np.mean(values))

        return cls(
            threshold=mean("threshold"),
            pixel_threshold=mean("pixel_threshold"),
            peak_threshold=mean("peak_threshold"),
            num_images=sum(part.num_images for part in products),
            decision=decisions.pop() if len(decisions) == 1 else "score",
            products=products,
        )

    def of_product(self, product: Any) -> "Calibration":
        """Returns that of a product, by its index in an output of a model.

        It is this one where there are no products, or none is meant: None, or
        less than 0.
        """
        if not self.products or product is None or product < 0:
            return self
        return self.products[int(product)]

    @property
    def is_calibrated(self) -> bool:
        """Whether a threshold has been set."""
        return self.threshold is not None

    @property
    def peak_limit(self) -> float | None:
        """The value of a pixel that an image is anomalous from."""
        is_known = self.peak_threshold is not None
        return self.peak_threshold if is_known else self.pixel_threshold

    @property
    def false_alarm_interval(self) -> tuple[float, float] | None:
        """Shares of normal images between which false alarms lie, at 95 %.

        None where it is unknown. It holds for independent images, whatever the
        distribution of their scores. Of copies of a single image it is all.
        """
        if not self.is_calibrated or not self.quantile or not self.num_images:
            return None
        if self.stand_ins:
            return 0.0, 1.0
        quantiles = self._quantiles()
        if quantiles is None:
            return None
        return rate_interval(self.num_images, quantiles)

    @property
    def intended_rate(self) -> float | None:
        """Share of normal images that the quantiles allow to be flagged.

        None where it is unknown. Quantiles of single regions add to it.
        """
        quantiles = self._quantiles()
        if quantiles is None:
            return None
        return min(1.0, sum(1 - quantile for quantile in quantiles))

    def _quantiles(self) -> list[float] | None:
        """Quantiles of all criteria that flag; None where one is unknown."""
        own = [part.quantile for part in self.regions if part.quantile]
        if not self.quantile or len(own) < len(self.regions):
            return None
        criteria = _count_criteria(self.decision, self.regions)
        each = quantile_of_each(self.quantile, criteria)
        return [each] * (criteria - len(own)) + own

    @property
    def certainty(self) -> str:
        """How sure the rate of false alarms is: "sure", "rough" or "a guess".

        By how often more images may be flagged than were meant: less than 2.5
        times, which takes 43 images where 5 % are meant; less than 4 times,
        which takes 14; or more. Empty where it is unknown.
        """
        interval, intended = self.false_alarm_interval, self.intended_rate
        if interval is None or intended is None:
            return ""
        excess = interval[1] / max(intended, 0.01)
        return "sure" if excess < 2.5 else "rough" if excess < 4 else "a guess"

    @classmethod
    def measure(
        cls,
        scores: Any,
        pixels: Any,
        quantile: float = 0.99,
        pixel_quantile: float = 0.999,
        decision: str = "score",
        peaks: Any = None,
        statistics: Mapping[str, Any] | None = None,
        stand_ins: int = 0,
        regions: Sequence[Region] = (),
        region_scores: Any = None,
    ) -> "Calibration":
        """Measures raw scores and raw map values of normal images.

        Where fewer than `1 / (1 - quantile) - 1` images have no score as high
        as the quantile, the threshold is what a further image stays below with
        that probability if scores are normally distributed, by Student's t, and
        never below the highest score.

        Args:
            scores: Array of raw scores, one an image.
            pixels: Array of raw map values of any shape.
            quantile: Share of the images that are not flagged, in (0, 1]. 1
                puts the threshold just above the largest. With `"either"` the
                false alarms are divided between both criteria.
            pixel_quantile: Share of all pixels below their threshold.
            decision: What decides: `"score"`, `"pixels"` or `"either"`.
            peaks: Array of the highest raw map value of each image. None (the
                default) leaves `peak_threshold` out.
            statistics: Those of each image, as of `input_statistics`. None (the
                default) or empty leaves `reference` out.
            stand_ins: How many of the scores are of changed copies of a single
                image.
            regions: Parts of the image that decide as well. False alarms are
                divided among all that decides.
            region_scores: Array `(images, regions)` of the highest raw map
                value in each.
        """
        decision = standardize_choice(decision, DECISIONS, "decision")
        standardize_number(quantile, "quantile", 0, 1, excluded=0)
        standardize_number(pixel_quantile, "pixel_quantile", 0, 1, excluded=0)
        scores = _finite(scores, "score")
        pixels = _finite(pixels, "map value")
        score_mean, score_std = _mean_and_std(scores)
        map_mean, map_std = _mean_and_std(pixels)
        criteria = _count_criteria(decision, regions)
        limit = limit_of(scores, quantile, criteria)
        pixel_limit = np.quantile(pixels, pixel_quantile, method="higher")
        peak_threshold = None
        if peaks is not None:
            peaks = _finite(peaks, "map value")
            peak_limit = limit_of(peaks, quantile, criteria)
            peak_threshold = _threshold(peak_limit, map_mean, map_std)
        each = quantile_of_each(quantile, criteria)
        reference = None
        if statistics:
            normalized = (scores - score_mean) / score_std
            reference = DriftReference.measure(
                {**statistics, "score": normalized}
            )
        return cls(
            score_mean=score_mean,
            score_std=score_std,
            map_mean=map_mean,
            map_std=map_std,
            threshold=_threshold(limit, score_mean, score_std),
            pixel_threshold=_threshold(pixel_limit, map_mean, map_std),
            quantile=quantile,
            pixel_quantile=pixel_quantile,
            num_images=scores.size - max(0, stand_ins - 1),
            stand_ins=stand_ins,
            decision=decision,
            peak_threshold=peak_threshold,
            reference=reference,
            regions=tuple(
                _measure_region(region, region_scores[:, number], each)
                for number, region in enumerate(regions)
            ),
        )

    def verdicts(self, score: Any, anomaly_map: Any, xp: Any = np) -> Any:
        """Returns whether images are anomalous by score, and by their pixels.

        Args:
            score: Scores `(...)` in `z`.
            anomaly_map: Maps `(..., height, width)` in `z`.
            xp: `numpy` or `keras.ops`.
        """
        reached = self.reached(anomaly_map, self.peak_limit, xp)
        by_pixels = xp.greater(xp.max(reached, axis=(-2, -1)), 0.5)
        by_score = xp.greater(self.reached(score, self.threshold, xp), 0.5)
        return by_score, by_pixels

    def decide(self, score: Any, anomaly_map: Any, xp: Any = np) -> Any:
        """Returns whether images are anomalous; arguments as of `verdicts`."""
        if self.decision == "score":
            return xp.greater(self.reached(score, self.threshold, xp), 0.5)
        by_score, by_pixels = self.verdicts(score, anomaly_map, xp)
        if self.decision == "pixels":
            return by_pixels
        return xp.logical_or(by_score, by_pixels)

    def adjusted(
        self,
        threshold: float | None = None,
        sensitivity: float | None = None,
    ) -> "Calibration":
        """Returns it with other limits; scales and maps stay as they are.

        Args:
            threshold: The score to flag images from, in place of all that
                decides but regions with thresholds of their own. None (the
                default) leaves it.
            sensitivity: From 0 to 1, instead: all limits that decide, of score,
                pixels and regions, become `2 * limit * (1 - sensitivity)`. 0.5
                is as calibrated, and 1 flags what lies above the mean of normal
                images. Limits below 0 become lower likewise.

        Raises:
            ValueError: If both are given, one is out of its range, or there is
                no calibrated threshold.
        """
        given = decision_options(threshold, sensitivity)
        if not given:
            return self
        if self.threshold is None:
            raise ValueError(
                "The model has not been calibrated: its scores have no scale "
                "that a threshold or a sensitivity could be for. Calibrate it "
                "with normal images first"
            )
        # What share of normal images is flagged is not known.
        changed = dataclasses.replace(self, quantile=None)
        if threshold is not None:
            value = given["threshold"]
            return dataclasses.replace(
                changed,
                threshold=value,
                decision="score",
                products=tuple(part.adjusted(value) for part in self.products),
            )
        value = given["sensitivity"]
        peak = self.peak_limit
        return dataclasses.replace(
            changed,
            threshold=scaled_limit(self.threshold, value),
            peak_threshold=None if peak is None else scaled_limit(peak, value),
            regions=tuple(
                part.adjusted(sensitivity=value) for part in self.regions
            ),
            products=tuple(
                part.adjusted(sensitivity=value) for part in self.products
            ),
        )

    def reached(self, values: Any, threshold: Any, xp: Any = np) -> Any:
        """Returns 1 where values are anomalous, 0 elsewhere."""
        if threshold is None or not self.is_calibrated:
            return xp.zeros_like(values)
        # Not the comparison from above: it is false for NaN. Nor its negation,
        # which converters of graphs turn into that comparison.
        is_normal = xp.logical_and(
            xp.less(values, threshold), xp.greater_equal(values, _LOWEST)
        )
        return xp.where(is_normal, 0.0, 1.0)

    def describe_rule(self) -> str:
        """Says from when on an image is anomalous; "never" if uncalibrated."""
        if self.threshold is None:
            return "never"
        if self.products:
            return ", ".join(
                f"{part.name}: {part.describe_rule()}" for part in self.products
            )
        rules = {"score": f"from score {self.threshold:.4g} on"}
        if self.peak_limit is not None:
            rules["pixels"] = f"from a pixel of {self.peak_limit:.4g} on"
        rule = rules.get(self.decision) or " or ".join(rules.values())
        return rule + (" or by a region" if self.regions else "")

    def describe_conflict(self, score: Any, anomaly_map: Any) -> str | None:
        """Says in which way score and pixels of an image disagree, or None."""
        by_score, by_pixels = map(bool, self.verdicts(score, anomaly_map))
        if by_score == by_pixels or self.peak_limit is None:
            return None
        if by_score:
            return "image score above its threshold, pixels below"
        return "pixels above their threshold, image score below"

    def describe_false_alarms(self, noun: str = "images") -> str:
        """Says how many false alarms there will be, and how sure that is.

        Empty where it is unknown.
        """
        interval, intended = self.false_alarm_interval, self.intended_rate
        if interval is None or intended is None:
            return ""
        low, high = (f"{100 * share:.3g}" for share in interval)
        start = (
            f"The threshold is {self.certainty}. False alarms to expect: {low} "
            f"to {high} % of normal {noun}, where "
            f"{100 * intended:.3g} % are meant"
        )
        if self.stand_ins:
            return (
                f"{start} ({self.stand_ins} changed copies of a single image "
                "stood in for others, which differ more)"
            )
        alike = "; less sure, as frames of one video are alike"
        return (
            f"{start} ({100 * CONFIDENCE:g} % interval from {self.num_images} "
            f"{noun}{alike if noun == 'frames' else ''})"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Returns what `to_dict` or `summary` was made of."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in names})

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for JSON."""
        return {k: _plain(v) for k, v in dataclasses.asdict(self).items()}

    def summary(self) -> dict[str, Any]:
        """Returns the fields and what follows from them, for people."""
        interval = self.false_alarm_interval
        shown = None if interval is None else list(interval)
        return {**self.to_dict(), "false_alarm_interval": shown}


def describe_fault(outputs: Mapping[str, Any]) -> str | None:
    """Says what is not finite in the outputs for one image, or None.

    Example:
    >>> describe_fault({"anomaly_score": np.nan})
    'the model gives the score nan'
    """
    score = outputs["anomaly_score"]
    if not np.isfinite(score):
        return f"the model gives the score {score}"
    num_bad = int(np.sum(~np.isfinite(outputs.get("anomaly_map", 0.0))))
    if not num_bad:
        return None
    return f"the model gives a map with {num_bad} values that are not finite"


def _plain(value: Any) -> Any:
    """Turns tuples into lists, as JSON does."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def scaled_limit(limit: float, sensitivity: Any) -> Any:
    """Returns `2 * limit * (1 - sensitivity)`, of any sign lower for more.

    At 0.5 it is the limit itself, to the last bit.
    """
    return limit + (1.0 - 2.0 * sensitivity) * abs(limit)


def _count_criteria(decision: str, regions: Sequence[Any]) -> int:
    return (2 if decision == "either" else 1) + len(regions)


def _measure_region(
    region: Region, scores: np.ndarray, quantile: float
) -> Calibration:
    quantile = quantile if region.quantile is None else region.quantile
    measured = Calibration.measure(scores, scores, quantile)
    named = dataclasses.replace(measured, name=region.name)
    if region.threshold is None:
        return named
    # What share of normal images it flags is not known.
    return dataclasses.replace(named, threshold=region.threshold, quantile=None)


def _finite(values: Any, what: str) -> np.ndarray:
    values = np.asarray(values, dtype="float64").ravel()
    if values.size == 0:
        raise ValueError(
            f"Calibration needs at least one {what} of a normal image. "
            "Received none: is the validation data empty?"
        )
    num_bad = int((~np.isfinite(values)).sum())
    if num_bad:
        raise ValueError(
            f"Calibration met {num_bad} {what}s that are NaN or infinite. Has "
            "the training diverged?"
        )
    return values


def _threshold(limit: float, mean: float, std: float) -> float:
    """Returns a threshold in `z` just above a raw limit.

    `z` is rounded as `CalibratedScores` and `RegionScores` round it: with a
    mean of many deviations the rounding is larger than what is just above.
    """
    raw, center, spread = map(np.float32, (limit, mean, std))
    return just_above(float((raw - center) / spread))


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    # One image, or a constant map, has no spread to measure by.
    return float(values.mean()), float(values.std()) or 1.0
