"""Choice of a few patches that represent many."""

from typing import Any

import numpy as np

from keras_sspcab.scoring.base import finite_maps

# Dimensions in which patches are compared to choose among them, as published.
_PROJECTED = 128

# How many of the farthest patches are kept up to date, and how many are worked
# at together: what fits into the caches of a processor.
_FARTHEST = 4096
_BLOCK = 4096


class PatchReservoir:
    """A random sample of patches, of a stream of any length.

    Each patch gets a random number, and those with the smallest are kept: every
    patch has the same chance. Which fold a patch is of is kept along with it,
    so that folds can be left out one at a time.
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

    Distances are those of a random projection to 128 dimensions, where there
    are more. Only the farthest patches are compared with each new one, as long
    as the farthest of all must be among them; then the others catch up with all
    new ones at once. The choice is the same as without, in a fraction of the
    time. The indices are fewer than `count` if there are no more that differ.
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
