"""Counts scores by their value, in bounded memory."""

from collections.abc import Sequence

import numpy as np

# Scores are sorted in blocks of this many (16 MiB).
BLOCK_SIZE = 2**22


class ScoreCounts:
    """Distinct scores with their counts and, if there are any, their weights.

    All scores are kept, 4 bytes each and 12 with a weight, until there are more
    than `max_scores`; then equal ones are joined and, where too many distinct
    ones remain, all are rounded to the multiples of a step, which grows with
    the number of scores. So memory has a bound, whatever is added.

    Attributes:
        total: How many scores were added.
        step: The step of the multiples; 0 while nothing has been rounded.
    """

    def __init__(self, max_scores: int) -> None:
        self.total = 0
        self.step = 0.0
        self._max_scores = max_scores
        self._pending: list[tuple[np.ndarray, np.ndarray | None]] = []
        self._num_pending = 0
        self._blocks: list[_Block] = []

    def add(
        self, scores: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        """Adds scores, float32, which are not kept as the array they are in."""
        self._pending.append((scores, weights))
        self._num_pending += scores.size
        self.total += scores.size
        if self._num_pending >= BLOCK_SIZE:
            self._sort_pending()

    def blocks(self) -> "list[_Block]":
        """Returns all that was added, in blocks that are sorted each."""
        self._sort_pending()
        return self._blocks

    @property
    def num_kept(self) -> int:
        """How many scores are kept, of which some may stand for many."""
        return self._num_pending + sum(b.scores.size for b in self._blocks)

    def halve(self) -> None:
        """Joins equal scores, and rounds until half as many are kept."""
        size = self.num_kept // 2
        self._sort_pending()
        if self._blocks:
            self._shrink_to(join(self._blocks), size)

    def _sort_pending(self) -> None:
        if not self._num_pending:
            return
        scores = np.concatenate([part for part, _ in self._pending])
        parts = [part for _, part in self._pending if part is not None]
        self._pending, self._num_pending = [], 0
        if parts:
            order = np.argsort(scores)
            block = _Block(scores[order], None, np.concatenate(parts)[order])
        else:
            scores.sort()
            block = _Block(scores, None, None)
        self._blocks.append(block.rounded(self.step))
        if self.num_kept > self._max_scores:
            # Then half of the room is free again.
            self._shrink_to(join(self._blocks), self._max_scores // 2)

    def _shrink_to(self, block: "_Block", size: int) -> None:
        spread = float(block.scores[-1]) - float(block.scores[0])
        while block.scores.size > max(size, 1):
            # The first one is too small, but not by much.
            self.step = max(2 * self.step, spread / (8 * size))
            block = block.rounded(self.step)
        self._blocks = [block]


class _Block:
    """Sorted scores; those with counts are distinct."""

    def __init__(
        self,
        scores: np.ndarray,
        counts: np.ndarray | None,
        weights: np.ndarray | None,
    ) -> None:
        self.scores = scores
        self.counts = counts
        self.weights = weights

    def rounded(self, step: float) -> "_Block":
        """Returns the scores as multiples of a step, joined; 0 changes none."""
        if not step:
            return self
        multiples = np.rint(self.scores.astype("float64") / step) * step
        return _distinct(multiples.astype("float32"), self.counts, self.weights)

    def count_below(
        self, thresholds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns how many scores lie below thresholds, and at or below."""
        below = np.searchsorted(self.scores, thresholds, side="left")
        up_to = np.searchsorted(self.scores, thresholds, side="right")
        if self.counts is None:
            return below, up_to
        sums = np.append(0, np.cumsum(self.counts))
        return sums[below], sums[up_to]


def join(blocks: Sequence[_Block]) -> _Block:
    """Returns the distinct scores of blocks, sorted."""
    scores = np.concatenate([b.scores for b in blocks])
    if all(b.counts is b.weights is None for b in blocks):
        scores.sort()
        return _distinct(scores, None, None)
    order = np.argsort(scores, kind="stable")
    counts = np.concatenate(
        [
            np.ones(b.scores.size, "int64") if b.counts is None else b.counts
            for b in blocks
        ]
    )
    weights = [b.weights for b in blocks if b.weights is not None]
    return _distinct(
        scores[order],
        counts[order],
        np.concatenate(weights)[order] if weights else None,
    )


def _distinct(
    scores: np.ndarray, counts: np.ndarray | None, weights: np.ndarray | None
) -> _Block:
    """Joins equal scores, which follow each other."""
    starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
    if counts is None:
        counts = np.diff(np.append(starts, scores.size))
    else:
        counts = np.add.reduceat(counts, starts)
    if weights is not None:
        weights = np.add.reduceat(weights, starts)
    return _Block(scores[starts], counts, weights)
