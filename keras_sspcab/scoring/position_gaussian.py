"""A Gaussian of the features at each position of a grid."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import FeatureStatistics, finite_maps

# Positions that are worked at together, so that what lies between is small.
_CHUNK = 64

# Features that wait for others of their fold: small products are slow.
_WAITING_IMAGES = 32


@dataclasses.dataclass
class PositionMoments:
    """Sums from which mean and covariance at each position follow.

    They take `4 c (c + 1)` bytes a position with `c` channels. Those about the
    same point can be added and subtracted.
    """

    count: int  # of images
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
        """Those of no image."""
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

    def covariances(self, chunk: slice) -> np.ndarray:
        """Returns the covariances at some positions; zeros for one image."""
        total = self.first[chunk]
        products = _pack(total[:, :, None] * total[:, None, :])
        centered = self.second[chunk] - products / self.count
        if self.count < 2:
            # Exactly, whatever was subtracted before.
            centered = np.zeros_like(centered)
        return _unpack(centered / max(self.count - 1, 1))

    def mean_covariance(self) -> np.ndarray:
        """Returns the mean covariance of all positions; zeros for one image."""
        positions, channels = self.shift.shape
        if self.count < 2:
            return np.zeros((channels, channels))
        (products,) = _unpack(self.second.sum(axis=0, keepdims=True))
        centered = products - self.first.T @ self.first / self.count
        return centered / ((self.count - 1) * positions)

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


def _for_chunks(work: Callable[[slice], None], positions: int) -> None:
    with ThreadPool() as pool:
        pool.map(work, _chunks(positions))


def _pack(matrices: np.ndarray) -> np.ndarray:
    """Upper triangles of symmetric matrices, as rows."""
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


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PositionGaussian(FeatureStatistics):
    """Mahalanobis distance to the mean of the normal features at each position.

    For aligned images. The covariance at a position `p` is

        C_p = (1 - shrinkage) S_p + shrinkage S + regularization I

    where `S_p` is that of the normal images there and `S` its mean over all
    positions: with some shrinkage five images are enough. From a single image,
    or from equal ones, there is no `S_p`; `S` is then how features vary from
    position to position.

    A full matrix takes `4 c^2` bytes a position with `c` channels. With a
    `rank`, one matrix `W` is shared, that which whitens `shrinkage S +
    regularization I`, and a position keeps only the directions `v_k` in which
    it varies most, `4 c rank` bytes:

        d^2 = |z|^2 - sum_k g_k (v_k^T z)^2,    z = W (x - mean_p)

    This is exact if `rank` is at least the number of channels, or of images
    less one; else the distance is larger than the exact one.

    Before the first `fit` the layer gives the distance to the origin.

    References:
    - [Defard et al., 2021](https://arxiv.org/abs/2011.08785): shrinkage 0,
      regularization 0.01.
    - Ledoit and Wolf, "A well-conditioned estimator for large-dimensional
      covariance matrices", 2004: shrinkage, to a multiple of the identity.

    Args:
        shrinkage: Share of the covariance that all positions have in common, in
            [0, 1). Defaults to 0.
        regularization: What is added to the variances, positive. Defaults to
            0.01.
        relative: Whether `regularization` counts in units of the variance of
            each channel, in the mean over all positions, so that the scale of
            the features does not matter. Defaults to False.
        rank: Directions that each position keeps, at least 1. None (the
            default) keeps a full matrix.

    Input shape:
        `(batch, rows, columns, channels)`, all but the batch known.

    Output shape:
        `(batch, rows, columns)`, float32; larger is less normal.

    Example:
    >>> layer = PositionGaussian(shrinkage=0.3, rank=2)
    >>> layer.build((None, 4, 4, 8))
    >>> normal = np.random.rand(20, 4, 4, 8)
    >>> layer.fit([normal[:10], normal[10:]])
    >>> tuple(layer(normal).shape)
    (20, 4, 4)
    """

    config_names = ("shrinkage", "regularization", "relative", "rank")

    def __init__(
        self,
        shrinkage: float = 0.0,
        regularization: float = 0.01,
        relative: bool = False,
        rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.shrinkage = standardize_number(
            shrinkage, "shrinkage", 0, 1, excluded=1
        )
        self.regularization = standardize_number(
            regularization, "regularization", excluded=0
        )
        self.relative = bool(relative)
        self.rank = None if rank is None else standardize_int(rank, "rank", 1)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Shape) -> None:
        rows, columns, channels = self.fix_sizes(input_shape, 1, 2, 3)
        positions = rows * columns
        self.mean = self.add_state("mean", positions, channels)
        # One for each position, or one that all share.
        shape: tuple[int, ...] = (channels, channels)
        if self.rank is None:
            shape = (positions, *shape)
        self.whitening = self.add_state(
            "whitening", *shape, initializer=_identities
        )
        self.directions: Any = None
        if self.rank is not None:
            # Each times the root of its `g`.
            rank = min(self.rank, channels)
            self.directions = self.add_state(
                "directions", positions, channels, rank
            )

    def call(self, inputs: Any) -> Any:
        _, rows, columns, channels = ops.shape(inputs)
        x = ops.reshape(inputs, (-1, rows * columns, channels)) - self.mean
        if self.directions is None:
            x = ops.matmul(ops.transpose(x, (1, 0, 2)), self.whitening)
            squares = ops.sum(ops.square(x), axis=-1)
        else:
            x = ops.matmul(x, self.whitening)
            x = ops.transpose(x, (1, 0, 2))
            known = ops.matmul(x, self.directions)
            squares = ops.sum(ops.square(x), axis=-1)
            squares = squares - ops.sum(ops.square(known), axis=-1)
        distances = ops.sqrt(ops.maximum(ops.transpose(squares), 0.0))
        return ops.reshape(distances, (-1, rows, columns))

    def collector(self) -> FoldedMoments:
        return FoldedMoments()

    def fit_collected(self, collected: PositionMoments) -> None:
        self._require_images(collected.count)
        expected = tuple(self.mean.shape)
        if collected.shift.shape != expected:
            raise ValueError(
                f"{self.name} is built for {expected[0]} positions with "
                f"{expected[1]} channels. Received: features of "
                f"{collected.shift.shape[0]} positions with "
                f"{collected.shift.shape[1]}"
            )
        with threadpool_limits(1, user_api="blas"):
            self._fit(collected)

    def _fit(self, moments: PositionMoments) -> None:
        mean = moments.mean
        pooled = moments.mean_covariance()
        # Less is rounding.
        least = 1e-12 * np.mean(np.square(mean))
        if not np.trace(pooled) / len(pooled) > least:
            centered = mean - mean.mean(axis=0)
            pooled = centered.T @ centered / max(len(mean) - 1, 1)
        variances = np.diag(pooled)
        added = np.full(len(pooled), self.regularization)
        if self.relative:
            # Channels that never vary have no scale of their own.
            added *= np.maximum(variances, 1e-6 * variances.mean())
        if self.relative and not variances.mean() > least:
            raise ValueError(
                f"{self.name} received {moments.count} images with equal "
                "features at all positions, which have no spread to measure "
                "by. Are the images all the same?"
            )
        shared = self.shrinkage * pooled + np.diag(added)
        if self.rank is None:
            whitening = self._whitenings(moments, shared)
        else:
            whitening = np.linalg.inv(np.linalg.cholesky(shared)).T
            self.directions.assign(self._directions(moments, whitening))
        self.mean.assign(mean)
        self.whitening.assign(whitening)

    def _whitenings(
        self, moments: PositionMoments, shared: np.ndarray
    ) -> np.ndarray:
        """Returns the matrices that whiten the features at each position.

        They are the transposed inverses of the Cholesky factors.
        """
        whitenings = np.empty(self.whitening.shape, "float32")

        def invert(chunk: slice) -> None:
            part = (1 - self.shrinkage) * moments.covariances(chunk)
            roots = np.linalg.cholesky(part + shared)
            for whitening, root in zip(whitenings[chunk], roots, strict=True):
                # An eighth of the operations of a general inverse.
                whitening[:] = lapack.dtrtri(root.T, lower=0)[0]

        _for_chunks(invert, len(whitenings))
        return whitenings

    def _directions(
        self, moments: PositionMoments, whitening: np.ndarray
    ) -> np.ndarray:
        """Directions of the largest variance, behind the shared whitening."""
        directions = np.empty(self.directions.shape, "float32")
        rank = directions.shape[-1]

        def decompose(chunk: slice) -> None:
            part = whitening.T @ moments.covariances(chunk) @ whitening
            part = (1 - self.shrinkage) * part
            values, vectors = np.linalg.eigh(part)
            values = np.maximum(values[:, -rank:], 0.0)
            gains = np.sqrt(values / (1.0 + values))
            directions[chunk] = vectors[:, :, -rank:] * gains[:, None, :]

        _for_chunks(decompose, len(directions))
        return directions

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[:3])


def _identities(shape: tuple[int, ...], dtype: Any = None) -> Any:
    # Not broadcast: torch cannot write to what shares its memory.
    return ops.ones(shape, dtype=dtype) * ops.eye(shape[-1], dtype=dtype)
