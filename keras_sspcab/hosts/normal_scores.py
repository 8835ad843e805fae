"""The raw scores of normal images, which calibrations are computed from."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from keras_sspcab.scoring import join_statistics

#: Pixels kept for the quantile of the map, at most; 40 MB as float32.
MAX_PIXELS = 10_000_000


class NormalScores(NamedTuple):
    """Raw scores and maps of normal images, to compute a calibration from.

    Example:
    >>> zeros = np.zeros(4)
    >>> NormalScores(zeros, np.zeros(400), zeros, {}).scores.shape
    (4,)
    """

    #: One an image, or a frame of video.
    scores: np.ndarray
    #: Values of the maps, a part of them where there are many.
    pixels: np.ndarray
    #: The highest value of the map of each, as far as it is kept.
    peaks: np.ndarray
    #: As of `input_statistics`, in any order.
    statistics: dict[str, np.ndarray]
    #: How many of them are changed copies of a single image.
    stand_ins: int = 0
    #: The highest value of the map in each region, `(images, regions)`.
    of_regions: np.ndarray | None = None
    #: What the images score when they are turned, `"rotate"`, and mirrored,
    #: `"flip"`, if that was asked for.
    changed: Mapping[str, np.ndarray] = MappingProxyType({})

    def joined(self, extra: "NormalScores") -> "NormalScores":
        """Returns both; each image has the same weight."""
        counts = len(self.scores), len(extra.scores)
        if not all(counts):
            raise ValueError(
                "`data` and `extra_data` must each hold at least one normal "
                f"image. Received: {counts[0]} and {counts[1]}"
            )
        of_regions = None
        if self.of_regions is not None:
            of_regions = np.concatenate([self.of_regions, extra.of_regions])
        return NormalScores(
            np.concatenate([self.scores, extra.scores]),
            _join_pixels(self.pixels, extra.pixels, *counts),
            np.concatenate([self.peaks, extra.peaks]),
            join_statistics([self.statistics, extra.statistics]),
            self.stand_ins,
            of_regions,
        )


class PixelSample:
    """`MAX_PIXELS` values of maps at most, evenly spread over all of them."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._seen, self._step = 0, 1

    def add(self, maps: np.ndarray) -> None:
        """Adds the values of maps, and thins out all where there are too many.

        What is kept is every `_step`-th value of all that were added.
        """
        first = -self._seen % self._step
        self._parts.append(maps.ravel()[first :: self._step].copy())
        self._seen += maps.size
        while self._seen > MAX_PIXELS * self._step:
            # Odd: at the usual widths an even one would skip whole columns.
            self._parts = [np.concatenate(self._parts)[::3].copy()]
            self._step *= 3

    def result(self) -> np.ndarray:
        """Returns the values that are kept."""
        return np.concatenate([np.empty(0, "float32"), *self._parts])


def highest_by_frame(
    scores: Sequence[np.ndarray], indices: Sequence[Any]
) -> np.ndarray:
    """Joins scores; where indices name frames, the highest of each counts."""
    joined = np.concatenate(scores) if scores else np.empty(0)
    keys = ("video", "frame")
    if not indices or not all(
        isinstance(index, Mapping) and set(keys) <= set(index)
        for index in indices
    ):
        return joined
    places = np.stack(
        [
            np.concatenate([np.asarray(index[key]) for index in indices])
            for key in keys
        ],
        axis=-1,
    )
    _, where = np.unique(places, axis=0, return_inverse=True)
    highest = np.full(where.max(initial=-1) + 1, -np.inf)
    np.maximum.at(highest, where.ravel(), joined)
    return highest


def _join_pixels(
    first: np.ndarray, second: np.ndarray, num_first: int, num_second: int
) -> np.ndarray:
    """Joins pixels of two sets so that each image has the same weight."""
    share = len(first) * num_second / (len(second) * num_first)
    if share < 1:
        first, second = second, first
        share = 1 / share
    # The one of which more was kept for each image is thinned out.
    return np.concatenate([first[:: max(1, round(share))], second])
