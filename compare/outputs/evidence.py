"""What is known of one output of one candidate after the last sample, and what may be concluded from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ..report.model import OutputVerdict
from ..report.out_of_range import OutOfRange
from ..statistics.statistics import Statistics
from .tolerance import Tolerance


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
class MetricLoss:
    """A metric on labelled data, for the reference and one candidate on the same rows.

    Attributes:
        metric: Its name; higher is better.
        rows: Rows that both answered.
        value: The candidate's mean over all rows; None where it is not finite or could not be measured.
        reference: The reference's.
        lost: The reference's sum over the rows minus the candidate's.
        allowed: How far the mean may fall.
        guessing: The value of always giving the same answer, of a function that of zeros; None where that is unknown.
        reason: What was lost, in words, where it is not the fall of the mean.
        doubt: Why it passes nothing though no more than is allowed is lost: one position is far off. Empty: nothing.
        binding: Whether an output fails that loses more than is allowed, even if rounding explains it.
        cache: Whether the output is not what was measured, but a cache that this was computed from.
        own: Whether it is a function of the user's.
    """

    metric: str
    rows: int
    value: float | None
    reference: float
    lost: float
    allowed: float
    guessing: float | None
    reason: str = ""
    doubt: str = ""
    binding: bool = False
    cache: bool = False
    own: bool = False

    @property
    def exceeded(self) -> bool:
        """Whether more is lost than is allowed.

        In sums, not means: 99 of 100 against 100 of 100 is a drop of 0.01, whatever binary fractions make of it.
        """
        return self.lost > self.allowed * self.rows * (1 + 1e-9)

    @property
    def lets_constants_pass(self) -> bool:
        """Whether always giving the same answer, or zeros, would lose no more than is allowed."""
        return self.guessing is not None and self.reference - self.guessing <= self.allowed * (1 + 1e-9)


@dataclass(frozen=True)
class Measured:
    """One output of one candidate held against the expected error, over all samples that were in doubt.

    Attributes:
        use: The largest share of a limit that a statistic took; over 1, rounding does not explain the error.
        statistic: Which one (see `explained`), ``decisions`` or ``shape``.
        value, limit: The statistic and its limit.
        expected: Relative L2 error that rounding makes in the worst sample.
        relative: The largest relative L2 error of a sample.
        sample, index: The place that is worst; no index where it is no single element.
        draws: How many draws it was held against.
        different, expected_different: Places that jumped or were decided differently, and how many do in a typical
            draw.
        share: What part of a sample they are in the worst one; a single one in each is not counted.
        whole: Relative L2 error with all that has jumped, of outputs that are numbers and no decisions; otherwise
            infinite.
        unexplained: Those of them that no draw explains.
        unseen: Those of them whose value no draw gave.
        beyond: Elements that lie beyond the limit of single ones.
        u: Unit roundoff of the coarsest format that rounds on the way.
        statistics: All statistics of the worst sample, by name.
        subnormals: Whether rounding explains the error only with that of subnormal numbers.
    """

    use: float
    statistic: str
    value: float
    limit: float
    expected: float | None
    relative: float | None
    sample: int
    index: tuple[int, ...] | None
    draws: int
    different: int = 0
    expected_different: float = 0.0
    share: float = 0.0
    whole: float = math.inf
    unexplained: int = 0
    unseen: int = 0
    beyond: int = 0
    u: float = 0.0
    statistics: Mapping[str, float] = field(default_factory=dict)
    subnormals: bool = False

    @property
    def explained(self) -> bool:
        """Whether rounding explains the error."""
        return self.use <= 1 and not self.unexplained

    @property
    def decides(self) -> bool:
        """Whether places are decided differently, and no difference of what they hold would be a small one."""
        return self.different > 0 and math.isinf(self.whole)

    @property
    def rms_z(self) -> float | None:
        """Relative error over the expected one, of the worst sample."""
        return self.statistics.get("rms")

    def merge(self, other: Measured) -> Measured:
        """Both together: the worse of the two, and the sums of counts."""
        worse = max(self, other, key=lambda m: (m.unexplained > 0, m.use))
        return replace(
            worse,
            relative=_larger(self.relative, other.relative),
            share=max(self.share, other.share),
            whole=max(self.whole, other.whole),
            draws=max(self.draws, other.draws),
            different=self.different + other.different,
            expected_different=self.expected_different + other.expected_different,
            unexplained=self.unexplained + other.unexplained,
            unseen=self.unseen + other.unseen,
            beyond=self.beyond + other.beyond,
            subnormals=self.subnormals or other.subnormals,
        )

    def json(self) -> dict[str, Any]:
        """The numbers, for the report."""
        return {
            "explained": self.explained,
            "rel_l2": self.expected,
            "rms_z": self.rms_z,
            "statistic": self.statistic,
            "value": self.value,
            "limit": self.limit,
            "sample": self.sample,
            "index": self.index,
            "draws": self.draws,
            "different": self.different,
            "expected_different": self.expected_different,
            "unexplained": self.unexplained,
            "subnormals": self.subnormals,
            "statistics": dict(self.statistics),
        }


def _larger(a: float | None, b: float | None) -> float | None:
    return max((x for x in (a, b) if x is not None), default=None)


@dataclass(frozen=True)
class ByFormula:
    """An output held against the formula.

    Attributes:
        mismatched: Elements that exceed it.
        use: Largest share of it.
        why: Why nothing better could be had, as the end of a sentence.
    """

    mismatched: int
    use: float
    why: str


@dataclass(frozen=True)
class OutputEvidence:
    """One output of one candidate beside the reference's. Nothing here is a verdict: `decide.decide` gives it.

    Attributes:
        candidate, tensor, reference: Names of the candidate, the output and the reference.
        coverage: Samples that were compared.
        absent: ``missing`` if the candidate has no output of this name, ``extra`` if the reference has none.
        holds: The other output of the reference whose values it holds, if any; of a missing one, the candidate's output
            that holds its values.
        apart: How far they are from those at most, relative to these: 0 where they are the very values.
        exchanged: Whether that one, in turn, is held by another output of the candidate, and so on round to this one.
        clash: Why the two tensors are of different kinds (a string where a float is expected); None if they are not.
        statistics: Of the two tensors as they stand. Mismatches are those of the user's tolerance, where there is one;
            else elements that differ by more than the output's own rounding explains.
        relative: Largest relative L2 error of a sample.
        axes: The permutation that turns the candidate's tensor of the first sample into the reference's, if any.
        turned: Statistics of the permuted candidate; None without such a permutation.
        tolerance: What the user allows; None: what rounding explains.
        doubts: Numbers of the samples in which elements mismatch, where the user gave no tolerance.
        undecidable: Why rounding explains nothing here (INT8 depends on calibration); empty where it does.
        calibrated: Whether it is a float that a side computes in INT8 or FP8, which passes by what the user says alone:
            a Sign of it may be equal to the last bit, and proves nothing of what it is the sign of.
        expected: The error held against the one that rounding is expected to make; None where that was not needed, or
            could not be measured.
        by_formula: Elements that exceed the formula, and why that had to be asked, where nothing could be measured.
        metric: A metric on labelled data, where it measures this output.
        not_run: Why the candidate could not be run, though its runtime took the network; empty where it was.
        idle: Why the candidate did nothing that was asked for; empty where it did: see `SessionInfo`.
        random: The clause that says which node draws the random values that it is made of; empty where none does.
        generated: Whether the inputs were drawn, and not given.
        blank: Whether all that was given as inputs are zeros or NaN.
        static: Whether it does not depend on the values of the inputs.
        nan_given: Inputs that hold NaN.
        guessed, unranged: Inputs that were drawn with sizes, or from a range, that neither the model nor the user gave.
        out_of_range: What the candidate's runner computed otherwise than the types of its graph say, if anything.
    """

    candidate: str
    tensor: str
    reference: str
    coverage: Coverage
    absent: OutputVerdict | None = None
    holds: str | None = None
    apart: float = 0.0
    exchanged: bool = False
    clash: str | None = None
    statistics: Statistics = field(default_factory=Statistics)
    relative: float = 0.0
    axes: tuple[int, ...] | None = None
    turned: Statistics | None = None
    tolerance: Tolerance | None = None
    doubts: tuple[int, ...] = ()
    undecidable: str = ""
    calibrated: bool = False
    expected: Measured | None = None
    by_formula: ByFormula | None = None
    metric: MetricLoss | None = None
    not_run: str = ""
    idle: str = ""
    random: str = ""
    generated: bool = False
    blank: bool = False
    static: bool = False
    nan_given: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    unranged: tuple[str, ...] = ()
    out_of_range: OutOfRange | None = None

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
        """Elements that differ by more than is allowed, or than rounding explains."""
        if self.tolerance is None and self.expected is not None:
            return self.expected.beyond
        if self.tolerance is None and self.by_formula is not None:
            return self.by_formula.mismatched
        if self.tolerance is None and self.statistics.not_finite:
            return self.statistics.broken  # what rounding explains of the others is not asked: these decide
        return self.statistics.mismatched

    @property
    def to_be_measured(self) -> bool:
        """Whether the expected error is what decides."""
        amiss = self.absent or self.clash or self.transposed or self.statistics.not_finite
        return bool(self.doubts) and not amiss and not self.undecidable


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
