"""Spread: the outputs disagree, and no layer is beyond rounding.

Looks at: the contributions of the layers with the largest errors. Proves: that the tolerance is one which the format
cannot meet, rather than that a layer is at fault.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.printable import share_of
from ..report.model import Cause
from .case import LoudLayer
from .diagnosis import Diagnosis

NAMED = 3
"""How many layers are named."""


@dataclass(frozen=True)
class GreatestContributions:
    """The layers that contribute most: name of the node, share of the final error."""

    shares: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        shares = ", ".join(f"{name} {share_of(share)}" for name, share in self.shares)
        return f"no layer is beyond rounding; the greatest contributions are {shares}"


def find(layer: LoudLayer) -> Diagnosis:
    """What is left where no single layer explains the final error."""
    return Diagnosis(Cause.SPREAD, (GreatestContributions(layer.shares[:NAMED]),))
