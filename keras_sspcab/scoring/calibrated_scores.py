"""Scores and flags as outputs of a graph."""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.scoring.base import ScoringLayer
from keras_sspcab.scoring.calibration import Calibration, scaled_limit


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
        self.calibration = Calibration.standardize(calibration)

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


def decide_with(
    calibration: Calibration,
    outputs: Mapping[str, Any],
    threshold: Any,
    sensitivity: Any,
) -> dict[str, Any]:
    """Returns the flags of a batch, in a graph; see `Calibration.adjusted`.

    Where both are given, the threshold counts.

    Args:
        calibration: What decides where nothing else is given.
        outputs: Those of the model, by name.
        threshold: Tensor `(batch,)`, NaN where it is left out.
        sensitivity: Likewise.

    Example:
    >>> scores = {"anomaly_score": np.array([1.0, 2.0], "float32")}
    >>> nan = np.full(2, np.nan, "float32")
    >>> flags = decide_with(
    ...     Calibration(threshold=3.0), scores, np.array([1.5, 1.5]), nan
    ... )
    >>> ops.convert_to_numpy(flags["is_anomalous"])
    array([False,  True])
    """
    if calibration.products:
        # Of an unknown product nothing is normal.
        flags = ops.less(outputs["product_index"], 0)
        for number, part in enumerate(calibration.products):
            own = decide_with(part, outputs, threshold, sensitivity)
            is_own = ops.equal(outputs["product_index"], number)
            own_flags = ops.logical_and(is_own, own["is_anomalous"])
            flags = ops.logical_or(flags, own_flags)
        return {"is_anomalous": flags}
    # All numbers but NaN, in a form that converters of graphs leave alone.
    has_threshold, has_sensitivity = (
        ops.logical_or(ops.greater_equal(value, 0.0), ops.less(value, 0.0))
        for value in (threshold, sensitivity)
    )
    has_sensitivity = ops.logical_and(
        has_sensitivity, ops.logical_not(has_threshold)
    )

    def is_reached(values: Any, limit: Any) -> Any:
        reached = calibration.reached(values, _along(limit, values), ops)
        if len(values.shape) > 1:
            reached = ops.max(reached, axis=(1, 2))
        return ops.greater(reached, 0.5)

    def is_flagged(values: Any, limit: Any) -> Any:
        return _choose(
            has_sensitivity,
            is_reached(values, scaled_limit(limit, sensitivity)),
            is_reached(values, limit),
        )

    score = outputs["anomaly_score"]
    flags = []
    if calibration.decision != "pixels":
        flags.append(is_flagged(score, calibration.threshold))
    if calibration.decision != "score":
        anomaly_map = outputs["anomaly_map"]
        flags.append(is_flagged(anomaly_map, calibration.peak_limit))
    flag = functools.reduce(ops.logical_or, flags)
    flag = _choose(has_threshold, is_reached(score, threshold), flag)
    if not calibration.regions:
        return {"is_anomalous": flag}
    of_regions = ops.stack(
        [
            is_flagged(outputs["region_scores"][:, i], part.threshold)
            for i, part in enumerate(calibration.regions)
        ],
        axis=-1,
    )
    return {
        "is_anomalous": ops.logical_or(flag, ops.any(of_regions, axis=-1)),
        "region_is_anomalous": of_regions,
    }


def _along(limit: Any, values: Any) -> Any:
    """Gives limits of rows axes for what rows have more."""
    for _ in range(len(values.shape) - 1 if hasattr(limit, "shape") else 0):
        limit = limit[..., np.newaxis]
    return limit


def _choose(condition: Any, first: Any, second: Any) -> Any:
    """Chooses between flags; `where` may become a sum, which NaN would spoil.

    That is what it becomes in ONNX.
    """
    return ops.logical_or(
        ops.logical_and(condition, first),
        ops.logical_and(ops.logical_not(condition), second),
    )
