"""Exchanged outputs: some carry each other's names.

Looks at: the values of all outputs of both sides (`outputs.lookalike`). Proves: that what is computed is right, and
called by another output's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..report.model import Cause
from .diagnosis import Diagnosis


@dataclass(frozen=True)
class Exchanged:
    """Outputs that hold the values of others.

    Attributes:
        held: Outputs of the candidate -> outputs of the reference.
    """

    held: Mapping[str, str]

    @property
    def text(self) -> str:
        """See `Fact`."""
        pairs = ", ".join(f"{name} here equals {other} there" for name, other in self.held.items())
        return f"{pairs}: the outputs are exchanged"


def find(held: Mapping[str, str]) -> Diagnosis | None:
    """Outputs that were found to be exchanged, if any.

    Args:
        held: Outputs of the candidate -> outputs of the reference.
    """
    return Diagnosis(Cause.EXCHANGED_OUTPUTS, (Exchanged(held),)) if held else None
