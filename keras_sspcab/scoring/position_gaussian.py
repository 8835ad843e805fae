"""A Gaussian of the features at each position of a grid."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from multiprocessing.pool import ThreadPool
from typing import Any

import keras
import numpy as np
from keras import ops
from threadpoolctl import threadpool_limits

from keras_sspcab.checks import standardize_int

# Positions that are worked at together, so that what lies between is small.
_CHUNK = 64

# Features that wait for others of their fold: small products are slow.
_WAITING_IMAGES = 32


@dataclasses.dataclass
class PositionMoments:
    """Sums from which mean and covariance at each position follow.

    Their size does not depend on the number of images: `4 c (c + 1)` bytes a
    position with `c` channels, 165 MB for 64 x 64 x 100. They can be added and
    subtracted: all images without some of them are `total - part`.

    Sums are those of the difference to `shift`, a typical image, as the squares
    of large features would leave nothing of small differences.

    Attributes:
        count: Number of images.
        shift: What is subtracted first, `(positions, channels)`; None before
            the first image.
        first: Sums of the features, `(positions, channels)`, float64.
        second: Sums of their products, `(positions, pairs of channels)`,
            float64: the upper triangles of the matrices.
    """

    count: int = 0
    shift: np.ndarray | None = None
    first: np.ndarray | None = None
    second: np.ndarray | None = None

    def update(self, features: Any) -> None:
        """Adds images.

        Args:
            features: Array `(images, rows, columns, channels)`, or with the
                positions on one axis.

        Raises:
            ValueError: If a value is not finite, or the shape is another than
                before.
        """
        features = _flat(features)
        if not len(features):
            return
        if self.shift is None:
            self.begin(features.mean(axis=0, dtype="float64"))
        shift, first, second = self._sums()
        if features.shape[1:] != shift.shape:
            raise ValueError(
                "The features of all images must have the same positions and "
                f"channels, {shift.shape}. Received: {features.shape[1:]}"
            )
        self.count += len(features)
        # One thread: many small products only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            for chunk in _chunks(len(shift)):
                values = np.asarray(
                    features[:, chunk].transpose(1, 0, 2), "float64"
                )
                values = values - shift[chunk, None]
                first[chunk] += values.sum(axis=1)
                second[chunk] += _pack(values.transpose(0, 2, 1) @ values)

    def begin(self, shift: np.ndarray) -> None:
        """Starts sums about a point.

        Moments about the same point are added and subtracted faster.

        Args:
            shift: Array `(positions, channels)`.
        """
        positions, channels = shift.shape
        self.shift = np.asarray(shift, "float64")
        self.first = np.zeros((positions, channels))
        self.second = np.zeros((positions, channels * (channels + 1) // 2))

    @property
    def mean(self) -> np.ndarray:
        """The mean at each position, `(positions, channels)`."""
        shift, first, _ = self._sums()
        return shift + first / self.count

    def covariances(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields slices of positions and their covariances.

        They are divided by one less than the number of images, and zero where
        there is only one.
        """
        _, first, second = self._sums()
        for chunk in _chunks(len(first)):
            if self.count < 2:
                # Exactly, whatever was subtracted before.
                yield chunk, _unpack(np.zeros_like(second[chunk]))
                continue
            total = first[chunk]
            products = _pack(total[:, :, None] * total[:, None, :])
            centered = second[chunk] - products / self.count
            yield chunk, _unpack(centered / (self.count - 1))

    def __add__(self, other: "PositionMoments") -> "PositionMoments":
        return self._combined(other, 1)

    def __sub__(self, other: "PositionMoments") -> "PositionMoments":
        return self._combined(other, -1)

    def _combined(
        self, other: "PositionMoments", sign: int
    ) -> "PositionMoments":
        if other.shift is None:
            return self
        if self.shift is None:
            if sign < 0:
                raise ValueError(
                    "Only images that were added can be subtracted. "
                    f"Received: {other.count} of 0"
                )
            return other
        shift, first, second = self._sums()
        if other.shift.shape != shift.shape:
            raise ValueError(
                "Moments must be of the same positions and channels. "
                f"Received: {shift.shape} and {other.shift.shape}"
            )
        first_of_other, second_of_other = other._about(shift)
        return PositionMoments(
            self.count + sign * other.count,
            shift,
            first + sign * first_of_other,
            second + sign * second_of_other,
        )

    def _about(self, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the sums of the differences to another point."""
        own, first, second = self._sums()
        moved = own - shift
        if not moved.any():
            return first, second
        second = second.copy()
        for chunk in _chunks(len(shift)):
            a, b = moved[chunk], first[chunk]
            cross = a[:, :, None] * b[:, None, :]
            square = self.count * a[:, :, None] * a[:, None, :]
            second[chunk] += _pack(cross + cross.transpose(0, 2, 1) + square)
        return first + self.count * moved, second

    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.shift is None or self.first is None or self.second is None:
            raise ValueError(
                "Moments need the features of at least one image. "
                "Received: none"
            )
        return self.shift, self.first, self.second


class FoldedMoments:
    """Moments of several folds of images, to leave out one at a time.

    Args:
        num_folds: Number of folds.
    """

    def __init__(self, num_folds: int = 1) -> None:
        self.folds = [PositionMoments() for _ in range(num_folds)]
        self._total: PositionMoments | None = None
        self._waiting: list[list[np.ndarray]] = [[] for _ in range(num_folds)]

    def update(self, features: Any, folds: Any = 0) -> None:
        """Adds images.

        Args:
            features: Array `(images, rows, columns, channels)`.
            folds: The fold of each image, or of all.
        """
        features = _flat(features)
        folds = np.broadcast_to(folds, len(features))
        for fold in np.unique(folds):
            waiting = self._waiting[fold]
            waiting.append(features[folds == fold])
            if sum(map(len, waiting)) >= _WAITING_IMAGES:
                self._flush(fold)

    def without(self, fold: int | None = None) -> PositionMoments:
        """Returns the moments of all images, or of those of other folds."""
        for index in range(len(self.folds)):
            self._flush(index)
        if self._total is None:
            self._total = sum(self.folds, PositionMoments())
        return self._total if fold is None else self._total - self.folds[fold]

    def _flush(self, fold: int) -> None:
        waiting, self._waiting[fold] = self._waiting[fold], []
        if not waiting:
            return
        features = np.concatenate(waiting)
        self._total = None
        if self.folds[fold].shift is None:
            others = [part.shift for part in self.folds]
            shift = next((x for x in others if x is not None), None)
            if shift is None:
                shift = features.mean(axis=0, dtype="float64")
            self.folds[fold].begin(shift)
        self.folds[fold].update(features)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PositionGaussian(keras.layers.Layer):
    """Mahalanobis distance to the mean of the normal features at each position.

    For aligned images: what is normal at one place may not be so at another.
    The covariance at a position `p` is

        C_p = (1 - shrinkage) S_p + shrinkage S + regularization I

    where `S_p` is that of the normal images there and `S` its mean over all
    positions. Few images tell little about `S_p`, and `S` has all positions to
    tell it from: with some shrinkage five images are enough. From a single
    image there is no `S_p`; `S` is then how its features vary from position to
    position, and so it is where all images are equal.

    A full matrix at each position takes `4 c^2` bytes with `c` channels: 95 MB
    for 32 x 32 x 152. With a `rank`, one matrix `W` is shared, that which
    whitens `shrinkage S + regularization I`, and a position keeps only the
    directions `v_k` in which it varies most, `4 c rank` bytes:

        d^2 = |z|^2 - sum_k g_k (v_k^T z)^2,    z = W (x - mean_p)

    This is exact if `rank` is at least the number of channels, or of images
    less one; else the distance is larger than the exact one.

    What was fitted lies in weights that are not trained. Before the first `fit`
    the layer gives the distance to the origin.

    References:
    - [Defard et al., 2021](https://arxiv.org/abs/2011.08785): shrinkage 0,
      regularization 0.01.
    - Ledoit and Wolf, "A well-conditioned estimator for large-dimensional
      covariance matrices", 2004: the idea of a shrinkage; their target is a
      multiple of the identity.

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
        **kwargs: Base layer keyword arguments.

    Input shape:
        `(batch, rows, columns, channels)`, all but the batch known.

    Output shape:
        `(batch, rows, columns)`, float32; larger is less normal.

    Raises:
        ValueError: If an argument is out of its range, or a size is unknown.

    Example:
    >>> layer = PositionGaussian(shrinkage=0.3, rank=32)
    >>> layer.build((None, 32, 32, 152))
    >>> layer.fit(batches_of_normal_features)
    >>> distances = layer(features)
    """

    def __init__(
        self,
        shrinkage: float = 0.0,
        regularization: float = 0.01,
        relative: bool = False,
        rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        if not 0 <= shrinkage < 1:
            raise ValueError(
                "`shrinkage` must be at least 0 and below 1. "
                f"Received: shrinkage={shrinkage}"
            )
        if not (math.isfinite(regularization) and regularization > 0):
            raise ValueError(
                "`regularization` must be finite and positive. "
                f"Received: regularization={regularization}"
            )
        if rank is not None:
            rank = standardize_int(rank, "rank", 1)
        self.shrinkage = float(shrinkage)
        self.regularization = float(regularization)
        self.relative = bool(relative)
        self.rank = rank
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        rows, columns, channels = input_shape[1:]
        if rows is None or columns is None or channels is None:
            raise ValueError(
                "The size of the grid and the number of channels must be "
                "known: each position has a mean of its own. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(
            ndim=4, axes={1: rows, 2: columns, 3: channels}
        )
        positions = rows * columns

        def weight(name: str, *shape: int, initializer: Any = "zeros") -> Any:
            return self.add_weight(
                shape=shape, initializer=initializer, trainable=False, name=name
            )

        self.mean = weight("mean", positions, channels)
        self.directions: Any = None
        if self.rank is None:
            self.whitening = weight(
                "whitening",
                *(positions, channels, channels),
                initializer=_identities,
            )
        else:
            self.whitening = weight(
                "whitening",
                *(channels, channels),
                initializer=keras.initializers.Identity(),
            )
            # Each times the root of its `g`.
            rank = min(self.rank, channels)
            self.directions = weight("directions", positions, channels, rank)

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

    def fit(self, batches: Iterable[Any]) -> None:
        """Fits mean and covariance to the features of normal images.

        Args:
            batches: Iterable of arrays `(images, rows, columns, channels)`,
                which is read once; what is kept does not grow with it.

        Raises:
            ValueError: If there is no image, a shape is another than the layer
                was built for, or a value is not finite.
        """
        moments = PositionMoments()
        for features in batches:
            moments.update(features)
        self.fit_collected(moments)

    def collector(self, num_folds: int = 1) -> FoldedMoments:
        """Returns what collects the features that `fit_collected` needs.

        Args:
            num_folds: In how many parts, each of which can be left out.
        """
        return FoldedMoments(num_folds)

    def fit_collected(self, moments: PositionMoments) -> None:
        """Fits to moments, such as those of `collector().without(fold)`.

        Args:
            moments: The moments of the features of normal images.

        Raises:
            ValueError: If they are those of no image, or of other positions or
                channels than the layer was built for.
        """
        expected = tuple(self.mean.shape)
        if moments.count < 1 or moments.shift is None:
            raise ValueError(
                f"{self.name} needs the features of at least one normal image. "
                "Received: none"
            )
        if moments.shift.shape != expected:
            raise ValueError(
                f"{self.name} is built for {expected[0]} positions with "
                f"{expected[1]} channels. Received: features of "
                f"{moments.shift.shape[0]} positions with "
                f"{moments.shift.shape[1]}"
            )
        with threadpool_limits(1, user_api="blas"):
            self._fit(moments)

    def _fit(self, moments: PositionMoments) -> None:
        mean = moments.mean
        pooled = sum(part.sum(axis=0) for _, part in moments.covariances())
        pooled = pooled / len(mean)
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
            whitening = np.empty(self.whitening.shape, "float32")
            for chunk, part in moments.covariances():
                root = np.linalg.cholesky((1 - self.shrinkage) * part + shared)
                whitening[chunk] = np.linalg.inv(root).transpose(0, 2, 1)
        else:
            whitening = np.linalg.inv(np.linalg.cholesky(shared)).T
            self.directions.assign(self._directions(moments, whitening))
        self.mean.assign(mean)
        self.whitening.assign(whitening)

    def _directions(
        self, moments: PositionMoments, whitening: np.ndarray
    ) -> np.ndarray:
        """Directions of the largest variance, behind the shared whitening."""
        directions = np.empty(self.directions.shape, "float32")
        rank = directions.shape[-1]

        def decompose(chunk: slice, part: np.ndarray) -> None:
            part = (1 - self.shrinkage) * (whitening.T @ part @ whitening)
            values, vectors = np.linalg.eigh(part)
            values = np.maximum(values[:, -rank:], 0.0)
            gains = np.sqrt(values / (1.0 + values))
            directions[chunk] = vectors[:, :, -rank:] * gains[:, None, :]

        with ThreadPool() as pool:
            pool.starmap(decompose, moments.covariances())
        return directions

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape[:3])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shrinkage": self.shrinkage,
            "regularization": self.regularization,
            "relative": self.relative,
            "rank": self.rank,
        }


def _identities(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Identity matrices, one for each position."""
    return ops.broadcast_to(ops.eye(shape[-1], dtype=dtype), shape)


def _flat(features: Any) -> np.ndarray:
    """Returns features `(images, positions, channels)`, checked."""
    features = np.asarray(features)
    if features.ndim not in (3, 4):
        raise ValueError(
            "Features must be an array (images, rows, columns, channels). "
            f"Received: shape {features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("Features must be finite. Received: NaN or infinity")
    positions = math.prod(features.shape[1:-1])
    return features.reshape(len(features), positions, features.shape[-1])


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
