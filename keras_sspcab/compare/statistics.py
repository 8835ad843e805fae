"""Means over seeds and classes, and paired differences with intervals."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import optimize, stats

from keras_sspcab.compare.grid import Cell

# Fewer pairs hardly tell their own spread, which the interval rests on, and
# leave no way to see whether the differences are anywhere near normal.
MIN_PAIRS = 5

LEVEL = 0.95
POWER = 0.8


@dataclasses.dataclass(frozen=True)
class MeanAndSpread:
    """Mean and sample standard deviation of some values."""

    mean: float
    std: float | None
    count: int


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """The mean of differences within pairs, and how well it is known.

    See `t_interval` and `detectable_difference`; both are None with fewer than
    `MIN_PAIRS` pairs.
    """

    mean: float
    interval: tuple[float, float] | None
    detectable: float | None
    count: int


def summarize(values: Sequence[float]) -> MeanAndSpread | None:
    """Returns mean and sample standard deviation; None without values."""
    if not len(values):
        return None
    array = np.asarray(values, "float64")
    std = float(array.std(ddof=1)) if array.size > 1 else None
    return MeanAndSpread(float(array.mean()), std, array.size)


def means_by_seed(
    values: Mapping[Cell, float],
    classes: Sequence[str],
    model: str,
    block: str,
    seeds: Sequence[int],
) -> list[float]:
    """Returns the mean over classes for each seed that lacks none of them."""
    means = []
    for seed in seeds:
        cells = [Cell(name, model, block, seed) for name in classes]
        if cells and all(cell in values for cell in cells):
            means.append(float(np.mean([values[cell] for cell in cells])))
    return means


def paired_difference(
    values: Mapping[Cell, float], model: str, reference: str, block: str
) -> PairedDifference | None:
    """Compares two blocks of a host over pairs of equal class and seed.

    The pairs are taken to be independent.
    """
    differences = np.array(
        [
            value - values[pair]
            for cell, value in values.items()
            if (cell.model, cell.block) == (model, block)
            and (pair := dataclasses.replace(cell, block=reference)) in values
        ]
    )
    if not differences.size:
        return None
    mean, count = float(differences.mean()), differences.size
    if count < MIN_PAIRS:
        return PairedDifference(mean, None, None, count)
    low, high = t_interval(differences)
    detectable = detectable_difference(differences.std(ddof=1), count)
    return PairedDifference(
        mean, (float(low), float(high)), float(detectable), count
    )


def t_interval(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the t interval of the mean at the level `LEVEL`.

    It covers the true mean as often as the level says if the differences are
    normal, with any number of them. `differences` are `(..., n)`, n > 1; both
    limits are `(...)`.
    """
    count = differences.shape[-1]
    mean = differences.mean(axis=-1)
    error = differences.std(axis=-1, ddof=1) / np.sqrt(count)
    half = _critical_t(count) * error
    return mean - half, mean + half


def detectable_difference(std: float, count: int) -> float:
    """Returns the smallest true difference that pairs are likely to show.

    With the power `POWER`, an interval of `count` pairs excludes zero if the
    true difference is this large: that is, a two-sided paired t test at the
    level 1 - `LEVEL` rejects. A difference that was not found may still be real
    if it is smaller.
    """
    critical = _critical_t(count)

    def missing_power(noncentrality: float) -> float:
        # The other side rejects with a probability of next to nothing.
        return POWER - stats.nct.sf(critical, count - 1, noncentrality)

    # The power is all but 1 at the upper end, with any number of pairs.
    noncentrality = optimize.brentq(missing_power, 0, 2 * critical + 2)
    return float(noncentrality * std / np.sqrt(count))


def _critical_t(count: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1))
