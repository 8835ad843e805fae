"""Motion that is too fast."""

import math
import numbers
from typing import Any


def speed_up(flow: Any, speed: float) -> Any:
    """Makes a flow `speed` times as fast.

    The framework estimates the flow between frames that are `k` steps apart;
    for an even motion that is `k` times the flow of one step. This takes the
    latter, which needs no frames. It knows nothing of what a long step brings
    besides: errors of the estimate, turns, and a crop that the object leaves.

    Args:
        flow: Tensor or array `(..., 2)`, in pixels a frame.
        speed: The `k`, more than 1.

    Returns:
        The flow times `speed`.

    Raises:
        ValueError: If `speed` is not more than 1.
    """
    return flow * standardize_speed(speed)


def standardize_speed(speed: Any) -> float:
    """Returns a speed of more than 1, or raises a ValueError."""
    is_number = isinstance(speed, numbers.Real)
    if not is_number or not 1 < speed < math.inf:
        raise ValueError(
            "The `speed` argument must be a number of more than 1: motion at "
            f"its own speed is normal. Received: speed={speed!r}"
        )
    return float(speed)
