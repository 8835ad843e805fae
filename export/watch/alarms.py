"""Decides by successive frames when an alarm begins and ends."""

from typing import Literal

from keras_sspcab.checks import standardize_int


class AlarmCounter:
    """Turns verdicts on frames into alarms that do not flicker.

    Args:
        alarm_after: Anomalous frames in a row after which an alarm begins.
        clear_after: Normal frames in a row after which it ends.

    Raises:
        ValueError: If one of them is no positive integer.

    Example:
    >>> counter = AlarmCounter(alarm_after=2, clear_after=2)
    >>> [counter.update(v) for v in (True, True, False, True, False, False)]
    [None, 'begin', None, None, None, 'end']
    """

    def __init__(self, alarm_after: int = 3, clear_after: int = 10) -> None:
        self._alarm_after = standardize_int(alarm_after, "alarm_after", 1)
        self._clear_after = standardize_int(clear_after, "clear_after", 1)
        self.is_on = False
        self._opposing = 0

    def update(self, is_anomalous: bool) -> Literal["begin", "end"] | None:
        """Counts the next frame; returns whether an alarm begins or ends."""
        self._opposing = self._opposing + 1 if is_anomalous != self.is_on else 0
        needed = self._clear_after if self.is_on else self._alarm_after
        if self._opposing < needed:
            return None
        self.is_on = not self.is_on
        self._opposing = 0
        return "begin" if self.is_on else "end"

    def reset(self) -> None:
        """Forgets all frames; an alarm is over."""
        self.is_on, self._opposing = False, 0
