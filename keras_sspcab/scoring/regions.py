"""Layers that leave out padding, and what no region of interest holds."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.layers.base import Shape
from keras_sspcab.preprocessing import BLANK
from keras_sspcab.regions import Regions
from keras_sspcab.scoring.base import ScoringLayer
from keras_sspcab.scoring.calibration import Calibration


@keras.saving.register_keras_serializable(package="keras_sspcab")
class RegionMask(ScoringLayer):
    """Blanks images outside of the regions, so that nothing there counts.

    Args:
        regions: `Regions`, or the dict of some.

    Input and output shape:
        `(batch, height, width, channels)`.

    Example:
    >>> mask = RegionMask(Regions(np.array([[1, 0]])))
    >>> ops.convert_to_numpy(mask(np.ones((1, 1, 2, 1)))).ravel()
    array([1. , 0.5], dtype=float32)
    """

    def __init__(self, regions: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regions = _standardize(regions)

    def call(self, inputs: Any) -> Any:
        inside = self.regions.inside[..., np.newaxis]
        return ops.where(inside, inputs, ops.cast(BLANK, inputs.dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        own = {"regions": self.regions.to_dict()}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PaddingMask(ScoringLayer):
    """Brings maps to their lowest where images are padding.

    That are rows and columns at the edges in which every value is exactly 0.5,
    as `keras_sspcab.data.resize` puts them there.

    Call arguments:
        images: Tensor `(batch, height, width, channels)`.
        raw_map: Tensor `(batch, height, width)`.

    Output shape:
        `(batch, height, width)`.

    Example:
    >>> images = np.array([0.5, 0.2, 0.9]).reshape(1, 1, 3, 1)
    >>> raw_map = np.array([[[7.0, 1.0, 2.0]]])
    >>> ops.convert_to_numpy(PaddingMask()(images, raw_map)).ravel()
    array([1., 1., 2.], dtype=float32)
    """

    def inside(self, images: Any) -> Any:
        """Returns which pixels are no padding, bool `(batch, height, width)`.

        All of them, where an image is nothing else.
        """
        is_seen = ops.any(ops.not_equal(images, BLANK), axis=-1)
        rows = _span(ops.any(is_seen, axis=2), images.shape[1])
        columns = _span(ops.any(is_seen, axis=1), images.shape[2])
        return ops.logical_and(rows[:, :, None], columns[:, None, :])

    def call(self, images: Any, raw_map: Any) -> Any:
        return _lowered(raw_map, self.inside(images))

    def compute_output_shape(
        self, images_shape: Shape, raw_map_shape: Shape
    ) -> Shape:
        return tuple(raw_map_shape)


def _span(is_seen: Any, length: int) -> Any:
    """Returns what lies from the first to the last place that is seen."""
    places = np.arange(length, dtype="int32")
    first = ops.min(ops.where(is_seen, places, length), -1, keepdims=True)
    last = ops.max(ops.where(is_seen, places, -1), -1, keepdims=True)
    between = ops.logical_and(places >= first, places <= last)
    return ops.logical_or(between, first > last)


def _lowered(raw_map: Any, inside: Any) -> Any:
    """Returns a map that is at the lowest of its inside elsewhere."""
    highest = ops.max(raw_map, axis=(1, 2), keepdims=True)
    lowest = ops.min(
        ops.where(inside, raw_map, highest), axis=(1, 2), keepdims=True
    )
    return ops.where(inside, raw_map, lowest)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class RegionScores(ScoringLayer):
    """Takes a raw map apart into regions, each with its score and threshold.

    The score of a region is the highest value of the map in it.

    Args:
        regions: `Regions`, or the dict of some.
        calibrations: A `Calibration` of each, or the dict of one. None (the
            default): raw scores, nothing anomalous.

    Call arguments:
        raw_map: Tensor `(batch, height, width)`.

    Output:
        Dict of the map, which outside of the regions is at its lowest
        (`raw_map`), and of `raw_region_scores`, `region_scores` and
        `region_is_anomalous`, each `(batch, regions)`.

    Example:
    >>> layer = RegionScores(Regions(np.array([[1, 0, 1]])))
    >>> outputs = layer(np.array([[[1.0, 5.0, 3.0]]]))
    >>> ops.convert_to_numpy(outputs["region_scores"])
    array([[3.]], dtype=float32)
    """

    def __init__(
        self, regions: Any, calibrations: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.regions = _standardize(regions)
        self.calibrations = calibrations

    @property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The `Calibration` of each region."""
        return self._calibrations

    @calibrations.setter
    def calibrations(self, value: Any) -> None:
        count = len(self.regions.parts)
        given = tuple(map(Calibration.standardize, value or [None] * count))
        if len(given) != count:
            raise ValueError(
                f"{self.name} needs a calibration of each of {count} regions. "
                f"Received: {len(given)}"
            )
        self._calibrations = given

    def raw_scores(self, raw_map: Any) -> Any:
        """Returns the highest value in each region, `(batch, regions)`."""
        lowest = ops.min(raw_map, axis=(1, 2), keepdims=True)
        numbers = range(1, len(self.regions.parts) + 1)
        return ops.stack(
            [
                ops.max(
                    ops.where(self.regions.labels == number, raw_map, lowest),
                    axis=(1, 2),
                )
                for number in numbers
            ],
            axis=-1,
        )

    def call(self, raw_map: Any) -> dict[str, Any]:
        scores, flags = [], []
        raw_scores = self.raw_scores(raw_map)
        for number, limits in enumerate(self.calibrations):
            raw = raw_scores[:, number]
            score = (raw - limits.score_mean) / limits.score_std
            scores.append(score)
            flags.append(limits.decide(score, None, ops))
        return {
            "raw_map": _lowered(raw_map, self.regions.inside),
            "raw_region_scores": raw_scores,
            "region_scores": ops.stack(scores, axis=-1),
            "region_is_anomalous": ops.stack(flags, axis=-1),
        }

    def compute_output_spec(self, raw_map: Any) -> dict[str, Any]:
        shape = (raw_map.shape[0], len(self.regions.parts))
        dtype = self.compute_dtype
        return {
            "raw_map": keras.KerasTensor(raw_map.shape, dtype),
            "raw_region_scores": keras.KerasTensor(shape, dtype),
            "region_scores": keras.KerasTensor(shape, dtype),
            "region_is_anomalous": keras.KerasTensor(shape, "bool"),
        }

    def get_config(self) -> dict[str, Any]:
        own = {
            "regions": self.regions.to_dict(),
            "calibrations": [part.to_dict() for part in self.calibrations],
        }
        return {**super().get_config(), **own}


def region_columns(names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Returns the output, and the place in it, of each column of a table.

    Example:
    >>> region_columns(["thread"])["region_score_thread"]
    ('region_scores', 0)
    """
    return {
        f"{kind}_{name}": (output, place)
        for place, name in enumerate(names)
        for kind, output in (
            ("region_score", "region_scores"),
            ("region_is_anomalous", "region_is_anomalous"),
        )
    }


def _standardize(regions: Any) -> Regions:
    if isinstance(regions, Regions):
        return regions
    return Regions.from_dict(regions)
