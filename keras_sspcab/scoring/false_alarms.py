"""How high thresholds must be, and how many false alarms they leave."""

import math
from collections.abc import Sequence

import numpy as np

#: How sure an interval of false alarms is.
CONFIDENCE = 0.95


def limit_of(values: np.ndarray, quantile: float, criteria: int = 1) -> float:
    """Returns what a share `quantile` of further values stays below.

    That is an order statistic, or, beyond all of the values, the prediction of
    Student's t for a normal distribution, but never less than the largest. Of
    several criteria each gets its part of the rate of false alarms.
    """
    quantile = quantile_of_each(quantile, criteria)
    count = values.size
    limit = float(np.sort(values)[_rank(count, quantile) - 1])
    if count == 1 or not _is_beyond(count, quantile):
        return limit
    from scipy.special import stdtrit

    factor = float(stdtrit(count - 1, quantile)) * math.sqrt(1 + 1 / count)
    predicted = values.mean() + factor * values.std(ddof=1)
    return max(limit, float(predicted))


def rate_interval(
    count: int, quantiles: Sequence[float]
) -> tuple[float, float]:
    """Returns the bounds of the rate of false alarms at `limit_of` values.

    The share above the k-th of n values has the distribution Beta(n - k + 1,
    k), whatever that of the values. A limit beyond all of them has 0 as its
    lower bound.

    Args:
        count: How many values there are.
        quantiles: Those of the criteria, any of which raises an alarm.
    """
    from scipy.special import betaincinv

    lower = upper = 0.0
    for quantile in quantiles:
        rank = _rank(count, quantile)
        beta = count - rank + 1, rank
        is_beyond = _is_beyond(count, quantile)
        tail = (1.0 - CONFIDENCE) / (1 if is_beyond else 2)
        if not is_beyond:
            lower = max(lower, float(betaincinv(*beta, tail)))
        # Criteria share the error, and at worst their alarms add up.
        upper += float(betaincinv(*beta, 1.0 - tail / len(quantiles)))
    return lower, min(1.0, upper)


def quantile_of_each(quantile: float, criteria: int) -> float:
    """Returns the quantile of each criterion, for that of all together."""
    # Not by the formula where rounding could change it.
    return quantile if criteria == 1 else 1 - (1 - quantile) / criteria


def _rank(count: int, quantile: float) -> int:
    """Returns which value, from 1 on, a share of further ones stays below.

    They reach the k-th of n values with the probability (n + 1 - k) / (n + 1).
    """
    rank = math.ceil(quantile * (count + 1) - 1e-9)
    return min(max(rank, 1), count)


def _is_beyond(count: int, quantile: float) -> bool:
    """Whether a quantile lies beyond all of so many values.

    A further value exceeds the largest of n with the probability 1 / (n + 1).
    """
    return 1e-9 < 1 - quantile < 1 / (count + 1) - 1e-9


def are_as_normal(scores: np.ndarray, changed: np.ndarray) -> bool:
    """Whether changed images score as the same held-out images unchanged do.

    Yes if they score, with 95 % confidence, less than one standard deviation of
    `scores` higher on average: by a paired t-test that takes into account how
    uncertain that deviation is. Simulated, whether both scores of an image go
    together or not: of changes that add as much, at most 5 % pass; of those
    that add nothing, 23 % and more with five images, 55 % with ten, 86 % with
    twenty.
    """
    from scipy.special import stdtrit

    count = len(scores)
    added, spread = changed - scores, scores.std(ddof=1)
    error = math.hypot(
        added.std(ddof=1) / math.sqrt(count),
        spread / math.sqrt(2 * (count - 1)),
    )
    most = added.mean() + float(stdtrit(count - 1, CONFIDENCE)) * error
    return bool(most < spread)


def just_above(value: float) -> float:
    """Returns a threshold that this very value does not reach in float32."""
    threshold = np.nextafter(np.float32(value), np.float32(np.inf))
    value = np.float64(value)
    threshold += 4 * np.finfo("float32").eps * max(1.0, abs(value))
    return float(threshold)
