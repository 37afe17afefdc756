"""How many runs, or minutes, a search may take."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from ..graph.options import Kind


class Spent(Exception):
    """The budget is spent; the best plan so far is what there is."""


@dataclass(frozen=True)
class Limit:
    """A budget as it is given.

    Attributes:
        runs: Most runs that are judged (builds, where the runtime builds); None: any number.
        minutes: Most minutes; None: any number.
    """

    runs: int | None = None
    minutes: float | None = None

    def __str__(self) -> str:
        return f"{self.minutes:g}m" if self.minutes is not None else str(self.runs)


class Budget(Kind):
    """``10`` runs or ``5m`` minutes."""

    expected = "a number of runs such as 10, or of minutes such as 5m"

    def read(self, text: str) -> Limit:
        """See `Kind.read`."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(m|min)?\s*", text)
        if match is None or not float(match[1]) or (match[2] is None and "." in match[1]):
            raise self.refusal()
        return Limit(minutes=float(match[1])) if match[2] else Limit(runs=int(match[1]))

    def check(self, value: object) -> None:
        """See `Kind.check`."""
        if not isinstance(value, (int, Limit)) or isinstance(value, bool) or value == 0:
            raise self.refusal()


def as_limit(value: int | Limit | None, usual: Limit) -> Limit:
    """A budget as an option gives it; a number is one of runs."""
    if value is None:
        return usual
    return Limit(runs=value) if isinstance(value, int) else value


@dataclass
class Meter:
    """What was spent of a budget.

    Attributes:
        limit: The budget.
        runs: Runs that were judged.
    """

    limit: Limit
    runs: int = 0
    _start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int | None:
        """Runs that are left; None: any number."""
        return None if self.limit.runs is None else max(0, self.limit.runs - self.runs)

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self._start

    def take(self) -> None:
        """One more run.

        Raises:
            Spent: There is none left.
        """
        over = self.limit.runs is not None and self.runs >= self.limit.runs
        if over or self.out_of_time:
            raise Spent
        self.runs += 1

    @property
    def out_of_time(self) -> bool:
        """Whether the minutes are over."""
        return self.limit.minutes is not None and self.seconds > 60 * self.limit.minutes
