"""What became of images or frames at the threshold."""

import dataclasses
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Counts at the threshold.

    Attributes:
        found: Anomalous ones that were flagged.
        missed: Anomalous ones that were not.
        false_alarms: Normal ones that were flagged.
        passed: Normal ones that were not.
        flagged: Ones without a label that were flagged.
        unflagged: Ones without a label that were not.
    """

    found: int
    missed: int
    false_alarms: int
    passed: int
    flagged: int
    unflagged: int

    @classmethod
    def of(cls, scored: Iterable[Any]) -> "Outcome":
        """Counts anything with `label` and `is_anomalous`."""
        outcomes = [(one.label, one.is_anomalous) for one in scored]
        return cls(
            found=outcomes.count((1, True)),
            missed=outcomes.count((1, False)),
            false_alarms=outcomes.count((0, True)),
            passed=outcomes.count((0, False)),
            flagged=outcomes.count((None, True)),
            unflagged=outcomes.count((None, False)),
        )

    @property
    def anomalous(self) -> int:
        """How many have an anomaly."""
        return self.found + self.missed

    @property
    def normal(self) -> int:
        """How many are normal."""
        return self.false_alarms + self.passed

    @property
    def unlabeled(self) -> int:
        """How many have no label."""
        return self.flagged + self.unflagged

    @property
    def total(self) -> int:
        """All of them."""
        return self.anomalous + self.normal + self.unlabeled
