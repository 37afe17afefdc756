"""What is known of one output of one candidate after the last sample, and what may be concluded from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ..report.model import OutputVerdict
from ..statistics.statistics import Statistics
from .tolerance import EXACT, Tolerance


@dataclass(frozen=True)
class Coverage:
    """How many samples were compared, of how many that were asked for."""

    done: int
    total: int

    @property
    def complete(self) -> bool:
        """Whether both sides finished all samples."""
        return self.done == self.total


@dataclass(frozen=True)
class EmulatedSums:
    """The greatest share of its tolerance that an output uses when the reference's network is emulated, on the samples
    on which the candidate exceeds the tolerance by most.

    Attributes:
        fp16: With sums in FP16; ``inf`` where they ruin the output.
        fp32: With sums in FP32.
    """

    fp16: float
    fp32: float


@dataclass(frozen=True)
class Measured:
    """A metric on labelled data, for the reference and one candidate on the same rows.

    Attributes:
        metric: Its name; higher is better.
        rows: Rows that both answered.
        value: The candidate's mean over all rows; None where it is not finite or could not be measured.
        reference: The reference's.
        lost: The reference's sum over the rows minus the candidate's.
        allowed: How far the mean may fall.
        guessing: The value of always giving the same answer; None where that is unknown.
    """

    metric: str
    rows: int
    value: float | None
    reference: float
    lost: float
    allowed: float
    guessing: float | None


@dataclass(frozen=True)
class OutputEvidence:
    """One output of one candidate beside the reference's. Nothing here is a verdict: `decide.decide` gives it.

    Attributes:
        candidate, tensor, reference: Names of the candidate, the output and the reference.
        coverage: Samples that were compared.
        absent: ``missing`` if the candidate has no output of this name, ``extra`` if the reference has none.
        clash: Why the two tensors are of different kinds (a string where a float is expected); None if they are not.
        statistics: Of the two tensors as they stand.
        axes: The permutation that turns the candidate's tensor of the first sample into the reference's, if any.
        turned: Statistics of the permuted candidate; None without such a permutation.
        tolerance: The allowed error.
        smallest_atol: The smallest error that an automatic tolerance allowed any element; None without one.
        choices: Whether the values are integers or booleans, which may tie.
        ties: Elements that differ where the values that decided them lie within tolerance of each other.
        ties_by_fp16_sums: Elements more that would be ties if the candidate's sums in FP16 explained their inputs.
        worst_samples: Numbers of the samples that exceed the tolerance by most, where sums in FP16 may be the reason.
        emulated: The same network emulated, where that was tried.
        measured: A metric on labelled data, where it measures this output.
    """

    candidate: str
    tensor: str
    reference: str
    coverage: Coverage
    absent: OutputVerdict | None = None
    clash: str | None = None
    statistics: Statistics = field(default_factory=Statistics)
    axes: tuple[int, ...] | None = None
    turned: Statistics | None = None
    tolerance: Tolerance = EXACT
    smallest_atol: float | None = None
    choices: bool = False
    ties: int = 0
    ties_by_fp16_sums: int = 0
    worst_samples: tuple[int, ...] = ()
    emulated: EmulatedSums | None = None
    measured: Measured | None = None

    @property
    def transposed(self) -> bool:
        """Whether the candidate agrees with the reference when its axes are permuted, and only then."""
        return self.turned is not None and self.turned.agree

    @property
    def shown(self) -> Statistics:
        """The statistics that the report shows."""
        return self.turned if self.transposed and self.turned is not None else self.statistics

    @property
    def mismatched(self) -> int:
        """Elements that differ by more than allowed and are no ties."""
        return self.statistics.mismatched - self.ties

    @property
    def maybe_fp16_sums(self) -> bool:
        """Whether sums in FP16 may explain by how much the tensor exceeds what is allowed."""
        found = self.statistics
        amiss = self.absent or self.clash or self.transposed or found.shape_mismatch or found.broken or self.choices
        return not amiss and found.use is not None and 1 < found.use <= self.tolerance.sums


@dataclass(frozen=True)
class Decision:
    """What a decider concludes.

    Attributes:
        verdict: The verdict.
        reason: Why it is not a pass, in one line; None if it is one.
        decided_by: What decided, for the report, if not the tolerance.
    """

    verdict: OutputVerdict
    reason: str | None = None
    decided_by: str | None = None


Decider: TypeAlias = Callable[[OutputEvidence], "Decision | None"]
"""Concludes something from the evidence, or declines with None and leaves the output to the next decider."""
