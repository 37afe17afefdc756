"""A precision plan as data: which layers stay in which format, why, and what was measured with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA = "layerdiff.plan/1"
"""Name and version of the file."""

Status = Literal["not needed", "found", "unfinished", "none"]
"""``none``: there is no plan, since FP32 itself does not pass; ``unfinished``: the budget ended before one passed."""

Cost = Literal["arithmetic", "time"]


@dataclass(frozen=True)
class OutputTrial:
    """One output of one run of the candidate.

    Attributes:
        tensor: The output.
        verdict: By the rules of the comparison.
        error: Largest relative L2 error of a sample; None where it is not finite.
        share: The error as a share of what is allowed: over 1 does not pass. None where it is not finite.
        reason: Why it does not pass; None if it does.
    """

    tensor: str
    verdict: str
    error: float | None
    share: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Trial:
    """One run of the candidate on all samples with some layers in FP32.

    Attributes:
        kept: Numbers of the layers that were kept.
        outputs: What each output came to, as the comparison judges it.
        seconds: How long it took, build included.
        error: Why the candidate failed; None if it did not.
        latency: Median time of one run in milliseconds; None where nobody timed it.
    """

    kept: tuple[int, ...]
    outputs: tuple[OutputTrial, ...]
    seconds: float = 0.0
    error: str | None = None
    latency: float | None = None

    @property
    def passed(self) -> bool:
        """Whether every output passes."""
        return self.error is None and bool(self.outputs) and all(o.verdict == "pass" for o in self.outputs)

    @property
    def worst(self) -> OutputTrial | None:
        """The output that takes the largest share of what is allowed; those that do not pass come first."""
        return max(self.outputs, key=lambda o: (o.verdict != "pass", _size(o.share)), default=None)

    @property
    def verdict(self) -> str:
        """``pass``, or the verdict of the worst output."""
        if self.error is not None:
            return "error"
        return self.worst.verdict if self.worst is not None else "fail"

    @property
    def share(self) -> float | None:
        """The largest share of what is allowed; None where it is not finite."""
        shares = [o.share for o in self.outputs]
        return None if not shares or None in shares else max(s for s in shares if s is not None)

    @property
    def relative(self) -> float | None:
        """The largest relative error of an output; None where it is not finite."""
        errors = [o.error for o in self.outputs]
        return None if not errors or None in errors else max(e for e in errors if e is not None)


def _size(share: float | None) -> float:
    return float("inf") if share is None else share


@dataclass(frozen=True)
class KeptLayer:
    """A layer that the plan keeps.

    Attributes:
        node: The node that does its arithmetic, and its operator.
        nodes: All nodes of the fused group.
        inputs, outputs: The tensors at its borders.
        format: What it is kept in.
        reason: The cause that the layer stage found there, or ``contribution``.
        evidence: What shows the cause; empty without one.
        alone: The error that it makes at the outputs when it alone is narrow, as a share of what is allowed; None where
            that was not measured or is not finite.
        without: What a run without it gave, all other kept layers being kept: the proof that it is needed. None where
            the budget ended before.
    """

    node: str
    op: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    format: str
    reason: str
    evidence: str = ""
    alone: float | None = None
    without: Trial | None = None


@dataclass(frozen=True)
class Predicted:
    """What was expected of the plan before it ran.

    Attributes:
        share: As a share of what is allowed.
        error: As a relative error at the output that takes that share.
    """

    share: float | None
    error: float | None


@dataclass(frozen=True)
class PlanPoint:
    """A point of the curve: how much is kept, and the error that was measured with it.

    Attributes:
        layers: Layers kept.
        arithmetic: Their share of the network's arithmetic.
        trial: What was measured.
    """

    layers: int
    arithmetic: float
    trial: Trial


@dataclass(frozen=True)
class FixedModel:
    """The network with the plan's formats written into it as types.

    Attributes:
        path: The file.
        trial: What it gives on a device that takes its types as law.
    """

    path: str
    trial: Trial


@dataclass(frozen=True)
class Plan:
    """A precision plan of one candidate.

    Attributes:
        candidate: Its name.
        format: The narrow format.
        status: See `Status`.
        layers: How many layers could be kept.
        kept: Those that are.
        keep: Names of all nodes that stay FP32: of the kept layers, and of the data movement between them.
        minimal: Whether every kept layer was dropped once, and the run without it did not pass.
        before, after, fp32: Runs with nothing kept, with the plan, and with everything kept.
        predicted: What was expected of ``after``.
        curve: Every set that was measured, in the order of the runs.
        first_pass: How many runs were judged until a set that leaves something narrow passed; None if none did.
        probes, runs, seconds: Runs that measured what single layers or blocks of them cost; runs that were judged, on
            the runtime itself; and the time of all together. An engine of everything in FP32 that was built to be timed
            is not among them.
        operators_low, arithmetic_low: Shares of operators and of arithmetic that stay in the narrow format.
        cost: What told which layers are cheap to keep: ``time`` that they take on the runtime, narrow and in FP32, or
            ``arithmetic``: multiplications, and bytes moved.
        why: What to know of the status, in one sentence.
        path: The file, as the user named it.
        fixed: The network with the plan in its types, where that was asked for.
    """

    candidate: str
    format: str
    status: Status
    layers: int
    kept: tuple[KeptLayer, ...] = ()
    keep: tuple[str, ...] = ()
    minimal: bool = False
    before: Trial | None = None
    after: Trial | None = None
    fp32: Trial | None = None
    predicted: Predicted | None = None
    curve: tuple[PlanPoint, ...] = ()
    first_pass: int | None = None
    probes: int = 0
    runs: int = 0
    seconds: float = 0.0
    operators_low: float = 1.0
    arithmetic_low: float = 1.0
    cost: Cost = "arithmetic"
    why: str = ""
    path: str = ""
    fixed: FixedModel | None = None


@dataclass(frozen=True)
class Remedy:
    """What a culprit's cause calls for.

    Attributes:
        text: What to do, in a clause.
        keep: Nodes whose FP32 the remedy is; empty where it is another one.
        measured: What the candidate gave with it; None where it was not tried.
    """

    text: str
    keep: tuple[str, ...] = ()
    measured: Trial | None = None

    @property
    def healed(self) -> bool:
        """Whether it was tried, and the candidate passes with it."""
        return self.measured is not None and self.measured.passed


@dataclass(frozen=True)
class Applied:
    """The network with remedies that are no precision written into it.

    Attributes:
        path: The file.
        texts: What was done.
        trial: What the candidate gives with it.
    """

    path: str
    texts: tuple[str, ...]
    trial: Trial
