"""A memory of normal patches: how far is the nearest of them?"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import FeatureStatistics, finite_maps

# Dimensions in which patches are compared to choose among them, as published.
_PROJECTED = 128

# How many of the farthest patches are kept up to date, and how many are worked
# at together: what fits into the caches of a processor.
_FARTHEST = 4096
_BLOCK = 4096


class PatchReservoir:
    """A random sample of patches, of a stream of any length.

    Each patch gets a random number, and those with the smallest are kept, with
    their folds, which can be left out one at a time.
    """

    def __init__(self, max_patches: int = 100_000, seed: int = 0) -> None:
        self.max_patches = max_patches
        self._rng = np.random.default_rng(seed)
        self._patches: list[np.ndarray] = []
        self._keys = np.empty(0)
        self._folds = np.empty(0, "int64")

    def update(self, features: Any, folds: Any = 0) -> None:
        """Adds the patches of images, with the fold of each image or of all."""
        features = finite_maps(features).astype("float32")
        channels = features.shape[-1]
        if self._patches and self._patches[0].shape[1] != channels:
            raise ValueError(
                "The features of all images must have the same channels, "
                f"{self._patches[0].shape[1]}. Received: {channels}"
            )
        patches = features.reshape(-1, channels)
        count = len(patches) // max(len(features), 1)
        folds = np.repeat(np.broadcast_to(folds, len(features)), count)
        keys = self._rng.random(len(patches))
        if len(self._keys) == self.max_patches:
            # Most of a long stream need not be looked at further.
            chosen = keys < self._keys.max()
            patches, folds, keys = patches[chosen], folds[chosen], keys[chosen]
        self._patches.append(patches)
        self._keys = np.concatenate([self._keys, keys])
        self._folds = np.concatenate([self._folds, folds])
        if len(self._keys) > self.max_patches:
            least = np.argpartition(self._keys, self.max_patches - 1)
            least = np.sort(least[: self.max_patches])
            self._patches = [np.concatenate(self._patches)[least]]
            self._keys, self._folds = self._keys[least], self._folds[least]

    def without(self, fold: int | None = None) -> np.ndarray:
        """Returns the patches `(patches, channels)` of all folds but one."""
        if not self._patches:
            return np.empty((0, 0), "float32")
        self._patches = [np.concatenate(self._patches)]
        return self._patches[0][self._folds != (-1 if fold is None else fold)]


def k_center(patches: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Chooses patches one by one, always that farthest from those chosen.

    Only the farthest patches are compared with each new one, as long as the
    farthest of all must be among them; then the others catch up with all new
    ones at once. The indices are fewer than `count` if no more differ.
    """
    rng = np.random.default_rng(seed)
    points = _projected(np.asarray(patches, "float32"), rng)
    squares = np.square(points).sum(axis=1)
    # Differences of squares are rounded.
    least = 1e-6 * float(squares.max(initial=0.0))
    count = min(count, len(points))
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf, "float32")
    new = chosen
    while True:
        for start in range(0, len(points), _BLOCK):
            rows = slice(start, start + _BLOCK)
            distances = squares[new] - 2 * (points[rows] @ points[new].T)
            distances = distances.min(axis=1) + squares[rows]
            nearest[rows] = np.minimum(nearest[rows], distances)
        nearest[chosen] = 0.0
        far = np.argpartition(nearest, -min(_FARTHEST, len(points)))
        far, others = far[-_FARTHEST:], far[:-_FARTHEST]
        limit = max(least, float(nearest[others].max(initial=0.0)))
        far_points, far_squares = points[far], squares[far]
        remaining = nearest[far]
        new = []
        while len(chosen) < count:
            place = int(remaining.argmax())
            if remaining[place] <= least or remaining[place] < limit:
                break
            index = int(far[place])
            distances = far_squares - 2 * (far_points @ points[index])
            np.minimum(remaining, distances + squares[index], out=remaining)
            remaining[place] = 0.0
            new.append(index)
            chosen.append(index)
        if not new or len(chosen) == count:
            return np.array(chosen)


def _projected(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Centers points, and projects those of many dimensions at random."""
    points = points - points.mean(axis=0, dtype="float64").astype("float32")
    channels = points.shape[1]
    if channels <= _PROJECTED:
        return points
    projection = rng.normal(0, 1 / np.sqrt(_PROJECTED), (channels, _PROJECTED))
    return points @ projection.astype("float32")


# Greater than the square of any distance in float32 features.
_FAR = 1e30


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MemoryBank(FeatureStatistics):
    """Distance of each patch to the nearest one of a memory of normal patches.

    A patch is the features at one position. `fit` chooses from a random sample
    of them one after the other, always that which is farthest from those chosen
    so far (greedy k-center), as seen in a random projection.

    The score of an image is the distance of its farthest patch, weighted by how
    usual its neighborhood is: with `m` the nearest entry of the memory, and
    `N(m)` the `num_neighbors` entries nearest to that, itself included,

        score = (1 - exp(|q - m|) / sum_{n in N(m)} exp(|q - n|)) |q - m|

    Before the first `fit` the memory holds the origin alone.

    References:
    - [Roth et al., CVPR 2022](https://arxiv.org/abs/2106.08265), sections 3.2
      and 3.3.

    Open points: the paper keeps a share of all patches (1 to 25 %), here their
    number is fixed, and with it the time of a prediction. The published code
    does not weigh scores.

    Args:
        capacity: Entries of the memory. Where there are fewer patches to choose
            from, or fewer that differ, the others stay unused. Defaults to
            2048.
        num_neighbors: Entries that the weight of a score takes into account.
            1 does not weigh. Defaults to 9.
        max_candidates: Patches to choose from. Defaults to 100,000.
        seed: Seed of sample, projection and first choice.

    Input shape:
        `(batch, rows, columns, channels)`; only the channels must be known.

    Output:
        Distances `(batch, rows, columns)` and scores `(batch,)`, float32.

    Example:
    >>> layer = MemoryBank(capacity=16, num_neighbors=3)
    >>> layer.build((None, 4, 4, 8))
    >>> normal = np.random.rand(10, 4, 4, 8)
    >>> layer.fit([normal])
    >>> distances, scores = layer(normal)
    >>> tuple(distances.shape), tuple(scores.shape)
    ((10, 4, 4), (10,))
    """

    config_names = ("capacity", "num_neighbors", "max_candidates", "seed")

    def __init__(
        self,
        capacity: int = 2048,
        num_neighbors: int = 9,
        max_candidates: int = 100_000,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.capacity = standardize_int(capacity, "capacity", 1)
        self.num_neighbors = standardize_int(num_neighbors, "num_neighbors", 1)
        self.max_candidates = standardize_int(
            max_candidates, "max_candidates", 1
        )
        self.seed = standardize_int(seed, "seed", 0)
        if self.num_neighbors > self.capacity:
            raise ValueError(
                "`num_neighbors` must not be greater than the patches that are "
                f"kept. Received: num_neighbors={num_neighbors} of {capacity}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Shape) -> None:
        (channels,) = self.fix_sizes(input_shape, -1)
        self.center = self.add_state("center", channels)
        # About the center, where the difference of squares is exact.
        self.memory = self.add_state("memory", self.capacity, channels)
        self.used = self.add_state(
            "used", self.capacity, initializer=_first_only
        )
        self.neighbors = None
        if self.num_neighbors > 1:
            self.neighbors = self.add_state(
                "neighbors",
                *(self.capacity, self.num_neighbors),
                dtype="int32",
                initializer=_first_column_only,
            )

    def call(self, inputs: Any) -> tuple[Any, Any]:
        batch, rows, columns, channels = ops.shape(inputs)
        patches = ops.reshape(inputs - self.center, (-1, channels))
        nearest = place_of_least(self._comparison(patches))
        # The product of matrices says which is nearest, but small distances are
        # lost in its rounding.
        distances = _lengths(patches - ops.take(self.memory, nearest, axis=0))
        of_image = ops.reshape(distances, (batch, rows * columns))
        scores = ops.max(of_image, axis=1)
        if self.neighbors is not None:
            start = ops.arange(batch, dtype="int32") * (rows * columns)
            place = start + place_of_least(-of_image)
            scores = scores * self._unusualness(
                ops.take(patches, place, axis=0),
                ops.take(nearest, place, axis=0),
            )
        return ops.reshape(distances, (batch, rows, columns)), scores

    def _comparison(self, patches: Any) -> Any:
        """Squared distances to the memory, less the squares of the patches."""
        squares = ops.sum(ops.square(self.memory), axis=1)
        squares = squares + _FAR * (1.0 - self.used)
        return squares - 2 * ops.matmul(patches, ops.transpose(self.memory))

    def _unusualness(self, patches: Any, nearest: Any) -> Any:
        """Weights of the scores of patches, from their nearest entries."""
        # The nearest one itself comes first.
        indices = ops.take(self.neighbors, nearest, axis=0)
        neighbors = ops.take(self.memory, indices, axis=0)
        distances = _lengths(neighbors - ops.expand_dims(patches, 1))
        used = ops.take(self.used, indices, axis=0)
        share = ops.softmax(distances - _FAR * (1.0 - used), axis=1)[:, 0]
        # A memory of one entry has no neighborhood.
        return ops.where(ops.sum(self.used) > 1.5, 1.0 - share, 1.0)

    def collector(self) -> PatchReservoir:
        return PatchReservoir(self.max_candidates, self.seed)

    def fit_collected(self, collected: np.ndarray) -> None:
        self._require_images(len(collected))
        channels = self.memory.shape[1]
        if collected.shape[1] != channels:
            raise ValueError(
                f"{self.name} is built for {channels} channels. "
                f"Received: {collected.shape[1]}"
            )
        chosen = collected[k_center(collected, self.capacity, self.seed)]
        center = chosen.mean(axis=0, dtype="float64").astype("float32")
        count = len(chosen)
        memory = np.zeros(self.memory.shape, "float32")
        memory[:count] = chosen - center
        if self.neighbors is not None:
            table = np.tile(
                np.arange(self.num_neighbors, dtype="int32"),
                (self.capacity, 1),
            )
            table[:count, :count] = _neighbors(
                memory[:count], self.num_neighbors
            )
            self.neighbors.assign(table)
        self.center.assign(center)
        self.memory.assign(memory)
        self.used.assign(np.arange(self.capacity) < count)

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        return tuple(input_shape[:3]), tuple(input_shape[:1])


def place_of_least(values: Any) -> Any:
    """Returns the index of the least value of each row.

    By integers: `argmin` of floats has operations in Keras that TFLite lacks,
    and TFLite rounds the values that `top_k` compares to eight bits.
    """
    least = ops.min(values, axis=1, keepdims=True)
    is_least = ops.cast(ops.less_equal(values, least), "int32")
    return ops.cast(ops.argmax(is_least, axis=1), "int32")


def _lengths(vectors: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1))


def _neighbors(memory: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the nearest entries of each, itself first."""
    squares = np.square(memory).sum(axis=1)
    distances = squares[:, None] + squares - 2 * memory @ memory.T
    np.fill_diagonal(distances, -np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :count]


def _first_only(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return ops.cast(ops.arange(shape[0]) < 1, dtype)


def _first_column_only(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """The neighbors of an unfitted memory: the origin, then unused entries."""
    # Not broadcast: torch cannot write to what shares its memory.
    columns = ops.arange(shape[1], dtype=dtype)
    return ops.zeros(shape, dtype=dtype) + columns
