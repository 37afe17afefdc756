"""What is wrong with an If, Loop or Scan itself, and not with a node inside: a branch, or how often it runs.

Looks at: the branch and the number of iterations of both sides on the same values. Proves: that the candidate takes
another way; of iterations, no more than that rounding decides when to stop.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..report.model import Cause
from .diagnosis import Diagnosis


@dataclass(frozen=True)
class Iterations:
    """How many iterations two loops make from the same inputs.

    Attributes:
        reference, candidate: The counts.
    """

    reference: int
    candidate: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"from the same inputs {self.counts}: rounding decides when to stop, no node inside is beyond it"

    @property
    def counts(self) -> str:
        """The counts as a clause."""
        return f"the candidate makes {self.candidate:,} iterations, the reference {self.reference:,}"


@dataclass(frozen=True)
class OtherBranch:
    """The branches of an If that are taken on the same values."""

    reference: str
    candidate: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"given the same values the candidate takes its {self.candidate}, the reference its {self.reference}"


@dataclass(frozen=True)
class BranchesExchanged:
    """The branch of the candidate that computes what another one of the reference does."""

    reference: str
    candidate: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"the candidate's {self.candidate} gives what the reference's {self.reference} does: "
            "its branches are exchanged"
        )


def stops_elsewhere(iterations: Iterations) -> Diagnosis:
    """A loop that makes another number of iterations, and no node inside exceeds its noise."""
    return Diagnosis(Cause.UNKNOWN, (iterations,))


def other_branch(reference: str, candidate: str) -> Diagnosis:
    """An If whose condition is the same on both sides, and which takes another branch."""
    return Diagnosis(Cause.WRONG_OP, (OtherBranch(reference, candidate),))


def exchanged(reference: str, candidate: str) -> Diagnosis:
    """An If whose branches stand in each other's place."""
    return Diagnosis(Cause.WRONG_OP, (BranchesExchanged(reference, candidate),))
