"""Means over seeds and classes, and paired differences with intervals."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from keras_sspcab.compare.grid import Cell

# With fewer pairs, resampling them says nothing.
MIN_PAIRS = 3

LEVEL = 0.95
_RESAMPLES = 9999


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and spread of some values.

    Attributes:
        mean: The mean.
        std: Sample standard deviation (n - 1); None for one value.
        count: How many values there are.
    """

    mean: float
    std: float | None
    count: int


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """The mean of differences within pairs.

    Attributes:
        mean: Mean of the differences.
        interval: Bootstrap interval of the mean at the level `LEVEL`; None with
            fewer than `MIN_PAIRS` pairs.
        count: Number of pairs.
    """

    mean: float
    interval: tuple[float, float] | None
    count: int


def summarise(values: Sequence[float]) -> Summary | None:
    """Returns mean and sample standard deviation; None without values."""
    if not len(values):
        return None
    array = np.asarray(values, "float64")
    std = float(array.std(ddof=1)) if array.size > 1 else None
    return Summary(float(array.mean()), std, array.size)


def means_by_seed(
    values: Mapping[Cell, float],
    classes: Sequence[str],
    model: str,
    block: str,
    seeds: Sequence[int],
) -> list[float]:
    """Returns the mean over classes for each seed.

    Args:
        values: One metric of the finished cells.
        classes: The classes to average over.
        model: The host.
        block: The block.
        seeds: The seeds; one that lacks any of the classes is left out.
    """
    means = []
    for seed in seeds:
        found = [
            values.get(Cell(data_class, model, block, seed))
            for data_class in classes
        ]
        there = [value for value in found if value is not None]
        if there and len(there) == len(found):
            means.append(float(np.mean(there)))
    return means


def paired_difference(
    values: Mapping[Cell, float], model: str, reference: str, block: str
) -> PairedDifference | None:
    """Compares two blocks of a host over pairs of equal class and seed.

    The interval is the percentile interval of the bootstrap (Efron and
    Tibshirani 1993, chapter 13): pairs are drawn with replacement, with a fixed
    seed. It takes the pairs for independent.

    Args:
        values: One metric of the finished cells.
        model: The host.
        reference: The block to subtract.
        block: The block to subtract it from.

    Returns:
        Mean and interval; None without pairs.
    """
    differences = []
    for cell, value in values.items():
        if (cell.model, cell.block) == (model, block):
            other = values.get(dataclasses.replace(cell, block=reference))
            if other is not None:
                differences.append(value - other)
    if not differences:
        return None
    interval = None
    if len(differences) >= MIN_PAIRS:
        interval = bootstrap_interval(np.asarray(differences, "float64"))
    return PairedDifference(
        float(np.mean(differences)), interval, len(differences)
    )


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean."""
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=_RESAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return float(low), float(high)
