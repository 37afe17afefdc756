"""What is wrong with an If, Loop or Scan itself, and not with a node inside: a branch, or how often it runs.

Looks at: the branch and the number of iterations of both sides on the same values. Proves: that the candidate takes
another way; of iterations, no more than that rounding decides when to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..report.model import Cause
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ..lockstep.programs import Program


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


@dataclass(frozen=True)
class OtherResult:
    """An output of a body that is another tensor in the candidate: one that the body is given, or gives already.

    Attributes:
        output: What the candidate calls the output.
        reference, candidate: What it is on each side.
        meant: What the candidate calls what the output is in the reference; empty where it has no such tensor at its
            borders.
    """

    output: str
    reference: str
    candidate: str
    meant: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"the output '{self.output}' of its body is {self.candidate} in the candidate, and {self.reference} in the "
            "reference"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        what = f"'{self.meant}'" if self.meant else "what it is in the first file"
        return f"let the output '{self.output}' of the body be {what} in the second file"


def stops_elsewhere(iterations: Iterations) -> Diagnosis:
    """A loop that makes another number of iterations, and no node inside exceeds its noise."""
    return Diagnosis(Cause.UNKNOWN, (iterations,))


def other_branch(reference: str, candidate: str) -> Diagnosis:
    """An If whose condition is the same on both sides, and which takes another branch."""
    return Diagnosis(Cause.WRONG_OP, (OtherBranch(reference, candidate),))


def other_result(left: Program, right: Program, errors: Sequence[float], allowed: float) -> Diagnosis | None:
    """An output of a body that is, on one side, what the body is given or gives as another output, and another tensor
    on the other side: no node of the body shows that.

    Args:
        left, right: The bodies of both sides, whose inputs and outputs have the same names.
        errors: How far each output of the candidate's is off, by position.
        allowed: What rounding may make of that.
    """
    for place, (name, other, error) in enumerate(zip(left.results, right.results, errors, strict=False)):
        handed = _handed(left, name, place) or _handed(right, other, place)
        if name == other or not handed or error <= allowed:
            continue
        known = zip((*right.formal, *right.results), (*right.given, *right.gives), strict=True)
        meant = next((called for own, called in known if own == name), "")
        told = OtherResult(right.gives[place], _called(left, name, place), _called(right, other, place), meant)
        return Diagnosis(Cause.WRONG_OP, (told,))
    return None


def gives_another(found: Diagnosis | None) -> bool:
    """Whether a diagnosis says that a body gives out another tensor, whatever that holds: ONNX Runtime (1.32) leaves
    undefined what a Scan hands through."""
    return found is not None and any(isinstance(fact, OtherResult) for fact in found.facts)


def _handed(side: Program, name: str, place: int) -> bool:
    """Whether an output of a body is one of its inputs, or an earlier output."""
    return name in side.formal or side.results.index(name) < place


def _called(side: Program, name: str, place: int) -> str:
    """A tensor of a body at its borders, as its file calls it."""
    if name in side.formal:
        return f"its input '{side.given[side.formal.index(name)]}'"
    return f"its output '{side.gives[side.results.index(name)]}'" if _handed(side, name, place) else "computed"


def exchanged(reference: str, candidate: str) -> Diagnosis:
    """An If whose branches stand in each other's place."""
    return Diagnosis(Cause.WRONG_OP, (BranchesExchanged(reference, candidate),))
