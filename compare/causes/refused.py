"""The candidate cannot run the layer on the reference's values."""

from __future__ import annotations

from dataclasses import dataclass

from ..report.model import Cause
from .diagnosis import Diagnosis


@dataclass(frozen=True)
class Refused:
    """What the candidate's runtime said."""

    message: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the candidate cannot run it on the reference's values: {self.message}"


def cannot_run(message: str) -> Diagnosis:
    """A layer that the candidate runs in the whole model, and not on what the reference gives it."""
    return Diagnosis(Cause.WRONG_OP, (Refused(message),))
