"""Nondeterminism: a runtime does not give the same bits twice, and that is all there is of the error.

Looks at: the layer run a second time on the same values, on both sides. Proves: that the error comes and goes, so that
nothing else may be blamed for it (a race between threads, sums whose order changes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...graph.specs import Arrays
from ..report.model import Cause
from ..runs.repeatability import repeat
from .diagnosis import Diagnosis

CHANCE = 0.5
"""Share of a layer's error that has to come and go for that to be the cause."""


@dataclass(frozen=True)
class NotRepeated:
    """A side that gave other bits the second time.

    Attributes:
        who: The side.
        difference: Relative L2 distance of its two runs.
        error: The layer's relative L2 error.
    """

    who: str
    difference: float
    error: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"run twice on the same values, {self.who} does not give the same bits: its two results differ by "
            f"{self.difference:.2g} (relative L2), and the layer's error is {self.error:.2g}"
        )


def find(runs: Mapping[str, tuple[Arrays, Arrays]], error: float) -> Diagnosis | None:
    """Holds a layer's error against what two runs of the same differ by.

    Args:
        runs: What each side made the first and the second time, by its name.
        error: The relative L2 error of the layer.
    """
    found = {who: repeat(*both).rel_l2 for who, both in runs.items()}
    facts = tuple(NotRepeated(who, size, error) for who, size in found.items() if size and size >= CHANCE * error)
    return Diagnosis(Cause.NONDETERMINISM, facts) if facts else None
