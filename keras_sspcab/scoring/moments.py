"""Means and covariances of features at each position of a grid."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from keras_sspcab.scoring.base import finite_maps

# Positions that are worked at together, so that what lies between is small.
_CHUNK = 64

# Features that wait for others of their fold: small products are slow.
_WAITING_IMAGES = 32


@dataclasses.dataclass
class PositionMoments:
    """Sums from which mean and covariance at each position follow.

    Their size does not depend on the number of images: `4 c (c + 1)` bytes a
    position with `c` channels, 165 MB for 64 x 64 x 100. Those about the same
    point can be added and subtracted.
    """

    #: Number of images.
    count: int
    #: Subtracted from features first, a typical image `(positions, channels)`:
    #: the squares of large features would leave nothing of small differences.
    shift: np.ndarray
    #: Sums of the differences, `(positions, channels)`, float64.
    first: np.ndarray
    #: Sums of their products, `(positions, pairs of channels)`, float64: the
    #: upper triangles of the matrices.
    second: np.ndarray

    @classmethod
    def about(cls, shift: np.ndarray) -> "PositionMoments":
        """Returns those of no image."""
        positions, channels = shift.shape
        pairs = channels * (channels + 1) // 2
        zeros = np.zeros((positions, channels)), np.zeros((positions, pairs))
        return cls(0, shift, *zeros)

    def add_images(self, features: np.ndarray) -> None:
        """Adds images `(images, positions, channels)`."""
        self.count += len(features)
        # One thread: many small products only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            for chunk in _chunks(len(self.shift)):
                values = features[:, chunk].transpose(1, 0, 2)
                values = values.astype("float64") - self.shift[chunk, None]
                self.first[chunk] += values.sum(axis=1)
                products = values.transpose(0, 2, 1) @ values
                self.second[chunk] += _pack(products)

    @property
    def mean(self) -> np.ndarray:
        """The mean at each position, `(positions, channels)`."""
        return self.shift + self.first / self.count

    def covariances(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields slices of positions and their covariances; of one image 0."""
        for chunk in _chunks(len(self.shift)):
            total = self.first[chunk]
            products = _pack(total[:, :, None] * total[:, None, :])
            centered = self.second[chunk] - products / self.count
            if self.count < 2:
                # Exactly, whatever was subtracted before.
                centered = np.zeros_like(centered)
            yield chunk, _unpack(centered / max(self.count - 1, 1))

    def __add__(self, other: "PositionMoments") -> "PositionMoments":
        return self._plus(other, 1)

    def __sub__(self, other: "PositionMoments") -> "PositionMoments":
        return self._plus(other, -1)

    def _plus(self, other: "PositionMoments", sign: int) -> "PositionMoments":
        return PositionMoments(
            self.count + sign * other.count,
            self.shift,
            self.first + sign * other.first,
            self.second + sign * other.second,
        )


class FoldedMoments:
    """Moments of several folds of images, to leave out one at a time."""

    def __init__(self) -> None:
        self._folds: dict[int, PositionMoments] = {}
        self._total: PositionMoments | None = None
        self._waiting: dict[int, list[np.ndarray]] = {}
        self._shape: tuple[int, ...] | None = None

    def update(self, features: Any, folds: Any = 0) -> None:
        """Adds features of images, with the fold of each image or of all."""
        features = finite_maps(features)
        if not len(features):
            return
        if self._shape not in (None, features.shape[1:]):
            raise ValueError(
                "The features of all images must have the same rows, columns "
                f"and channels, {self._shape}. Received: {features.shape[1:]}"
            )
        self._shape = features.shape[1:]
        features = features.reshape(len(features), -1, self._shape[-1])
        folds = np.broadcast_to(folds, len(features))
        for fold in np.unique(folds).tolist():
            waiting = self._waiting.setdefault(fold, [])
            waiting.append(features[folds == fold])
            if sum(map(len, waiting)) >= _WAITING_IMAGES:
                self._flush(fold)

    def without(self, fold: int | None = None) -> PositionMoments:
        """Returns the moments of all images, or of those of other folds."""
        for waiting in list(self._waiting):
            self._flush(waiting)
        if not self._folds:
            return PositionMoments.about(np.zeros((0, 0)))
        if self._total is None:
            first, *others = self._folds.values()
            self._total = sum(others, first)
        if fold not in self._folds:
            return self._total
        return self._total - self._folds[fold]

    def _flush(self, fold: int) -> None:
        features = np.concatenate(self._waiting.pop(fold))
        if fold not in self._folds:
            # All about the same point.
            shifts = [part.shift for part in self._folds.values()]
            shift = shifts[0] if shifts else features.mean(0, dtype="float64")
            self._folds[fold] = PositionMoments.about(shift)
        self._folds[fold].add_images(features)
        self._total = None


def _chunks(positions: int) -> Iterator[slice]:
    for start in range(0, positions, _CHUNK):
        yield slice(start, start + _CHUNK)


def _pack(matrices: np.ndarray) -> np.ndarray:
    """Returns the upper triangles of symmetric matrices as rows."""
    size = matrices.shape[-1]
    rows, columns = np.triu_indices(size)
    flat = matrices.reshape(len(matrices), size * size)
    return flat.take(rows * size + columns, axis=1)


def _unpack(triangles: np.ndarray) -> np.ndarray:
    """Returns the symmetric matrices of `_pack`."""
    size = (math.isqrt(8 * triangles.shape[1] + 1) - 1) // 2
    rows, columns = np.triu_indices(size)
    matrices = np.empty((len(triangles), size, size))
    matrices[:, rows, columns] = triangles
    matrices[:, columns, rows] = triangles
    return matrices
