"""A memory of normal patches: how far is the nearest of them?"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import FeatureStatistics
from keras_sspcab.scoring.patches import PatchReservoir, k_center

# Greater than the square of any distance in float32 features.
_FAR = 1e30


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MemoryBank(FeatureStatistics):
    """Distance of each patch to the nearest one of a memory of normal patches.

    A patch is the features at one position. `fit` chooses those that represent
    all the others best: one after the other, always that which is farthest from
    those chosen so far (greedy k-center), as seen in a random projection. The
    patches to choose from are a random sample.

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
                "`num_neighbors` must not be greater than `capacity`. Received:"
                f" num_neighbors={num_neighbors}, capacity={capacity}"
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
        nearest = _place_of_least(self._comparison(patches))
        # The product of matrices says which is nearest, but small distances are
        # lost in its rounding.
        distances = _lengths(patches - ops.take(self.memory, nearest, axis=0))
        of_image = ops.reshape(distances, (batch, rows * columns))
        scores = ops.max(of_image, axis=1)
        if self.neighbors is not None:
            start = ops.arange(batch, dtype="int32") * (rows * columns)
            place = start + _place_of_least(-of_image)
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


def _place_of_least(values: Any) -> Any:
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
