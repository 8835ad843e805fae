"""What is normal: the scale and the thresholds that a detector applies."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_choice, standardize_number
from keras_sspcab.scoring.base import ScoringLayer
from keras_sspcab.scoring.false_alarms import (
    CONFIDENCE,
    just_above,
    limit_of,
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

    def __post_init__(self) -> None:
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
        is_complete = self._peak_limit is not None or self.decision == "score"
        if self.is_calibrated and not is_complete:
            raise ValueError(
                "Pixels decide by `peak_threshold` or `pixel_threshold`. "
                f"Received: None for both, decision={self.decision!r}"
            )

    @property
    def is_calibrated(self) -> bool:
        """Whether a threshold has been set."""
        return self.threshold is not None

    @property
    def _peak_limit(self) -> float | None:
        is_known = self.peak_threshold is not None
        return self.peak_threshold if is_known else self.pixel_threshold

    @property
    def false_alarm_interval(self) -> tuple[float, float] | None:
        """Shares of normal images between which false alarms lie, at 95 %.

        None where it is unknown. It holds for independent images, whatever the
        distribution of their scores.
        """
        if not self.is_calibrated or not self.quantile or not self.num_images:
            return None
        criteria = 2 if self.decision == "either" else 1
        return rate_interval(self.num_images, self.quantile, criteria)

    @classmethod
    def measure(
        cls,
        scores: Any,
        pixels: Any,
        quantile: float = 0.99,
        pixel_quantile: float = 0.999,
        decision: str = "score",
        peaks: Any = None,
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
        """
        decision = standardize_choice(decision, DECISIONS, "decision")
        for value in (quantile, pixel_quantile):
            if not 0 < value <= 1:
                raise ValueError(
                    f"A quantile must lie in (0, 1]. Received: {value}"
                )
        scores = _finite(scores, "score")
        pixels = _finite(pixels, "map value")
        score_mean, score_std = _mean_and_std(scores)
        map_mean, map_std = _mean_and_std(pixels)
        criteria = 2 if decision == "either" else 1
        limit = limit_of(scores, quantile, criteria)
        pixel_limit = np.quantile(pixels, pixel_quantile, method="higher")
        peak_threshold = None
        if peaks is not None:
            peaks = _finite(peaks, "map value")
            peak_limit = limit_of(peaks, quantile, criteria)
            peak_threshold = just_above((peak_limit - map_mean) / map_std)
        return cls(
            score_mean=score_mean,
            score_std=score_std,
            map_mean=map_mean,
            map_std=map_std,
            threshold=just_above((limit - score_mean) / score_std),
            pixel_threshold=just_above((pixel_limit - map_mean) / map_std),
            quantile=quantile,
            pixel_quantile=pixel_quantile,
            num_images=scores.size,
            decision=decision,
            peak_threshold=peak_threshold,
        )

    def verdicts(self, score: Any, anomaly_map: Any, xp: Any = np) -> Any:
        """Returns whether images are anomalous by score, and by their pixels.

        Args:
            score: Scores `(...)` in `z`.
            anomaly_map: Maps `(..., height, width)` in `z`.
            xp: `numpy` or `keras.ops`.
        """
        reached = self._reached(anomaly_map, self._peak_limit, xp)
        by_pixels = xp.greater(xp.max(reached, axis=(-2, -1)), 0.5)
        by_score = xp.greater(self._reached(score, self.threshold, xp), 0.5)
        return by_score, by_pixels

    def decide(self, score: Any, anomaly_map: Any, xp: Any = np) -> Any:
        """Returns whether images are anomalous; arguments as of `verdicts`."""
        if self.decision == "score":
            return xp.greater(self._reached(score, self.threshold, xp), 0.5)
        by_score, by_pixels = self.verdicts(score, anomaly_map, xp)
        if self.decision == "pixels":
            return by_pixels
        return xp.logical_or(by_score, by_pixels)

    def _reached(self, values: Any, threshold: float | None, xp: Any) -> Any:
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
        rules = {
            "score": f"from score {self.threshold:.4g} on",
            "pixels": f"from a pixel of {self._peak_limit:.4g} on",
        }
        return rules.get(self.decision) or " or ".join(rules.values())

    def describe_conflict(self, score: Any, anomaly_map: Any) -> str | None:
        """Says in which way score and pixels of an image disagree, or None."""
        by_score, by_pixels = map(bool, self.verdicts(score, anomaly_map))
        if by_score == by_pixels or self._peak_limit is None:
            return None
        if by_score:
            return "image score above its threshold, pixels below"
        return "pixels above their threshold, image score below"

    def describe_false_alarms(self, noun: str = "images") -> str:
        """Says how many false alarms there will be; empty where unknown."""
        interval = self.false_alarm_interval
        if interval is None:
            return ""
        low, high = (f"{100 * share:.3g}" for share in interval)
        alike = "; less sure, as frames of one video are alike"
        return (
            f"False alarms to expect: {low} to {high} % of normal {noun} "
            f"({100 * CONFIDENCE:g} % interval from {self.num_images} {noun}"
            f"{alike if noun == 'frames' else ''})"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Returns what `to_dict` or `summary` was made of."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in names})

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for JSON."""
        return dataclasses.asdict(self)

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


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    # One image, or a constant map, has no spread to measure by.
    return float(values.mean()), float(values.std()) or 1.0


@keras.saving.register_keras_serializable(package="keras_sspcab")
class CalibratedScores(ScoringLayer):
    """Turns raw scores and maps into the outputs that all detectors share.

    The calibration is plain numbers in the layer's config, not weights: it
    travels with saved files and becomes constants in exported graphs.

    Args:
        calibration: A `Calibration`, the dict of one, or None (raw scores,
            nothing anomalous).

    Call arguments:
        raw_score: Tensor `(batch,)`.
        raw_map: Tensor `(batch, height, width)`.

    Output:
        Dict of `anomaly_score` and `anomaly_map`, of the same shapes and in
        standard deviations above the mean of normal images, and
        `is_anomalous` `(batch,)`, bool.

    Example:
    >>> layer = CalibratedScores(Calibration(score_mean=1.0, threshold=3.0))
    >>> outputs = layer(np.array([1.0, 5.0]), np.zeros((2, 8, 8)))
    >>> ops.convert_to_numpy(outputs["is_anomalous"])
    array([False,  True])
    """

    def __init__(
        self,
        calibration: Calibration | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if calibration is None:
            calibration = Calibration()
        elif isinstance(calibration, dict):
            calibration = Calibration(**calibration)
        elif not isinstance(calibration, Calibration):
            raise ValueError(
                "`calibration` must be a Calibration, a dict of its fields, or "
                f"None. Received: calibration={calibration!r}"
            )
        self.calibration = calibration

    def call(self, raw_score: Any, raw_map: Any) -> dict[str, Any]:
        calibration = self.calibration
        score = (raw_score - calibration.score_mean) / calibration.score_std
        anomaly_map = (raw_map - calibration.map_mean) / calibration.map_std
        return {
            "anomaly_score": score,
            "anomaly_map": anomaly_map,
            "is_anomalous": calibration.decide(score, anomaly_map, ops),
        }

    def compute_output_spec(
        self, raw_score: Any, raw_map: Any
    ) -> dict[str, Any]:
        dtype = self.compute_dtype
        return {
            "anomaly_score": keras.KerasTensor(raw_score.shape, dtype),
            "anomaly_map": keras.KerasTensor(raw_map.shape, dtype),
            "is_anomalous": keras.KerasTensor(raw_score.shape, "bool"),
        }

    def get_config(self) -> dict[str, Any]:
        own = {"calibration": self.calibration.to_dict()}
        return {**super().get_config(), **own}
