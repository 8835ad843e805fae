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

    See `t_interval` and `detectable_difference`, which take independent
    differences; both are None with fewer than `MIN_PAIRS` of them.

    Attributes:
        mean: Mean over the pairs.
        interval: Where the true mean lies.
        detectable: The smallest one that would likely have been seen.
        pairs: How many pairs of equal class and seed these are. With an
            interval over seeds, those of seeds that lack a class are left out.
        unit: What the independent differences are of: `"seeds"`, each the mean
            over all classes, or else `"classes"`, each the mean over its seeds.
        count: How many of these there are.
    """

    mean: float
    interval: tuple[float, float] | None
    detectable: float | None
    pairs: int
    unit: str
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

    Trainings with other seeds are independent; pairs of one class are not, as
    they share the test data. So the differences are those of seeds, if there
    are enough that have all classes: the interval is for the mean of these
    classes. Else they are those of classes: it is for classes like these.
    """
    differences = {
        (cell.data_class, cell.seed): value - values[pair]
        for cell, value in values.items()
        if (cell.model, cell.block) == (model, block)
        and (pair := dataclasses.replace(cell, block=reference)) in values
    }
    if not differences:
        return None
    of_classes: dict[str, list[float]] = {}
    of_seeds: dict[int, list[float]] = {}
    for (data_class, seed), difference in differences.items():
        of_classes.setdefault(data_class, []).append(difference)
        of_seeds.setdefault(seed, []).append(difference)
    units = {
        "seeds": [v for v in of_seeds.values() if len(v) == len(of_classes)],
        "classes": [*of_classes.values()],
    }
    unit = "seeds"
    if len(units[unit]) < MIN_PAIRS <= len(of_classes):
        unit = "classes"
    means = np.array([np.mean(group) for group in units[unit]])
    known = PairedDifference(
        float(np.mean([*differences.values()])),
        None,
        None,
        len(differences),
        unit,
        len(means),
    )
    if len(means) < MIN_PAIRS:
        return known
    low, high = t_interval(means)
    return dataclasses.replace(
        known,
        mean=float(means.mean()),
        pairs=sum(len(group) for group in units[unit]),
        interval=(float(low), float(high)),
        detectable=float(detectable_difference(means.std(ddof=1), len(means))),
    )


def t_interval(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the t interval of the mean at the level `LEVEL`.

    It covers the true mean as often as the level says if the differences are
    normal, with any number of them. With 5 to 10 it is 93 to 97 % also where
    both sides of the pairs are skewed alike, or the differences have a skewness
    of 1; where one training in ten collapses on one side alone, 80 %.
    `differences` are `(..., n)`, n > 1; both limits are `(...)`.
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
