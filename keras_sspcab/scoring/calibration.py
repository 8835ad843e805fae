"""What is normal: the scale and the thresholds that a detector applies."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_number
from keras_sspcab.scoring.base import ScoringLayer


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scale and thresholds, measured on normal images held out of training.

    Scores and maps are reported in standard deviations above the mean of the
    normal images (`z`): 0 is a typical normal image, whatever the model.

    Attributes:
        score_mean: Mean raw score of the normal images.
        score_std: Standard deviation of the raw score, positive.
        map_mean: Mean raw value of the pixels of the normal images.
        map_std: Standard deviation of these, positive.
        threshold: An image is anomalous from this score (in `z`) on. None: not
            calibrated, nothing is anomalous.
        pixel_threshold: The same for a pixel of the map.
        quantile: Share of the normal images below `threshold`.
        pixel_quantile: Share of their pixels below `pixel_threshold`.
        num_images: How many normal images were measured.

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

    def __post_init__(self) -> None:
        for name in ("score_std", "map_std"):
            standardize_number(getattr(self, name), name, excluded=0)
        for name in ("score_mean", "map_mean", "threshold", "pixel_threshold"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"`{name}` must be finite. Received: {name}={value}"
                )

    @property
    def is_calibrated(self) -> bool:
        """Whether a threshold has been set."""
        return self.threshold is not None

    @classmethod
    def measure(
        cls,
        scores: Any,
        pixels: Any,
        quantile: float = 0.99,
        pixel_quantile: float = 0.999,
    ) -> "Calibration":
        """Measures raw scores and raw map values of normal images.

        Args:
            scores: Array of raw scores, one an image.
            pixels: Array of raw map values of any shape.
            quantile: Share of the scores that lie below the threshold, in
                (0, 1]. 1 puts the threshold just above the largest.
            pixel_quantile: The same for the pixels.

        Raises:
            ValueError: If there is no score or no pixel, if one is not finite,
                or if a quantile is out of its range.
        """
        score_mean, score_std, threshold = _measure(scores, quantile, "score")
        map_mean, map_std, pixel_threshold = _measure(
            pixels, pixel_quantile, "map value"
        )
        return cls(
            score_mean=score_mean,
            score_std=score_std,
            map_mean=map_mean,
            map_std=map_std,
            threshold=threshold,
            pixel_threshold=pixel_threshold,
            quantile=quantile,
            pixel_quantile=pixel_quantile,
            num_images=int(np.size(scores)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for JSON."""
        return dataclasses.asdict(self)


def _measure(
    values: Any, quantile: float, what: str
) -> tuple[float, float, float]:
    """Returns mean, standard deviation and the threshold in units of it."""
    if not 0 < quantile <= 1:
        raise ValueError(
            "A quantile must lie in (0, 1]. "
            f"Received: {quantile} for the {what}s"
        )
    values = np.asarray(values, dtype="float64").ravel()
    if values.size == 0:
        raise ValueError(
            f"Calibration needs at least one {what} of a normal image. "
            "Received none: is the validation data empty?"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"Calibration met {int((~np.isfinite(values)).sum())} {what}s "
            "that are NaN or infinite. Has the training diverged?"
        )
    mean = float(values.mean())
    # One image, or a constant map, has no spread to measure by.
    std = float(values.std()) or 1.0
    limit = (np.quantile(values, quantile, method="higher") - mean) / std
    # Scores are float32: the threshold must lie above this very value.
    threshold = np.nextafter(np.float32(limit), np.float32(np.inf))
    threshold += 4 * np.finfo("float32").eps * max(1.0, abs(limit))
    return mean, std, float(threshold)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class CalibratedScores(ScoringLayer):
    """Turns raw scores and maps into the outputs that all detectors share.

    The calibration is plain numbers in the layer's config, not weights: it
    travels with every saved file and becomes constants in every exported graph,
    and the parameter count stays that of the published network.

    Args:
        calibration: A `Calibration`, the dict of one, or None (raw scores,
            nothing anomalous).

    Call arguments:
        raw_score: Tensor `(batch,)`.
        raw_map: Tensor `(batch, height, width)`.

    Output:
        Dict of `anomaly_score` `(batch,)` and `anomaly_map` `(batch, height,
        width)`, float32, in standard deviations above the mean of normal
        images, and `is_anomalous` `(batch,)`, bool.

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
        self.calibration = calibration

    def call(self, raw_score: Any, raw_map: Any) -> dict[str, Any]:
        calibration = self.calibration
        score = (raw_score - calibration.score_mean) / calibration.score_std
        threshold = calibration.threshold
        return {
            "anomaly_score": score,
            "anomaly_map": (raw_map - calibration.map_mean)
            / calibration.map_std,
            "is_anomalous": ops.greater_equal(
                score, math.inf if threshold is None else threshold
            ),
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
