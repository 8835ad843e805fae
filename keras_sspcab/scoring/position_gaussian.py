"""A Gaussian of the features at each position of a grid."""

from multiprocessing.pool import ThreadPool
from typing import Any

import keras
import numpy as np
from keras import ops
from threadpoolctl import threadpool_limits

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import FeatureStatistics
from keras_sspcab.scoring.moments import FoldedMoments, PositionMoments


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PositionGaussian(FeatureStatistics):
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

    Before the first `fit` the layer gives the distance to the origin.

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

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[:3])


def _identities(shape: tuple[int, ...], dtype: Any = None) -> Any:
    # Not broadcast: torch cannot write to what shares its memory.
    return ops.ones(shape, dtype=dtype) * ops.eye(shape[-1], dtype=dtype)
