"""The report of a run: one value that holds everything the run found. Every format is a view of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ...graph.errors import UsageError
from .formats import Content, formats
from .history import Change, Provenance
from .inputs import DataInfo, ModelInfo
from .logits import LogitsResult
from .out_of_range import OutOfRange
from .plan import Applied, Plan, Remedy
from .shard import Shard

SCHEMA = "layerdiff.report/1"
"""Name and version of the JSON form."""

COSTLIEST = 10
"""How many layers are ranked by their contribution to the error at the outputs."""

Metrics = Mapping[str, Any]
"""Statistics of one pair of tensors, by the names of the JSON form; values that are not finite are None."""

Verdict = Literal["pass", "fail", "undecided", "error"]
OutputVerdict = Literal["pass", "fail", "missing", "extra", "undecided"]
LayerVerdict = Literal["ok", "culprit", "inherited", "healed", "unmatched", "unknown"]


STOPPED = "interrupted after"
"""What the error of a runner begins with that did not fail: Ctrl-C came before it was through."""


class Cause(str, enum.Enum):
    """Why a layer is named, by the names of the JSON form."""

    OVERFLOW = "overflow"
    """Values above the greatest of the candidate's format."""
    UNDERFLOW = "underflow"
    """Values among the subnormals of the candidate's format or below them."""
    SATURATION = "saturation"
    """Values that pile up at an end of the candidate's range."""
    NAN = "nan"
    """Finite on one side only, and no overflow explains it; or not a number on both."""
    LAYOUT = "layout"
    """The same values in other places."""
    SCALE = "scale"
    """Scaled, shifted, or both."""
    ATTRIBUTE = "attribute"
    """An attribute differs between the two graphs."""
    WEIGHTS = "weights"
    """Weights differ between the two graphs."""
    WRONG_OP = "wrong-op"
    """Another operator, another shape, or more than any rounding does."""
    NARROW_ACCUMULATOR = "narrow-accumulator"
    """Sums in a narrower format than is said."""
    CANCELLATION = "cancellation"
    """Rounding, enlarged because the layer's inputs cancel."""
    QUANTIZATION = "quantization"
    """Scales or zero points differ, the error is more than a step explains, or a step is too large for the values."""
    BIAS = "bias"
    """A bias of integers that is beyond 32 bits, or has another scale than its operands together."""
    AMPLIFIED = "amplified"
    """Rounding, enlarged by what reads it, which makes most of the error at the outputs."""
    EXCHANGED_OUTPUTS = "exchanged-outputs"
    """Outputs that carry each other's names."""
    NONDETERMINISM = "nondeterminism"
    """Other bits each time it is run on the same values."""
    FEEDING = "feeding"
    """Another result when the same network is fed otherwise: token by token, or one entry of a batch alone."""
    UNDECLARED = "undeclared-format"
    """A narrower type than the runner's arithmetic and the graph say."""
    SPREAD = "spread"
    """No layer is beyond rounding, and the outputs disagree."""
    UNKNOWN = "unknown"
    """None of these."""

    def __str__(self) -> str:
        return self.value


class Fact(Protocol):
    """Something that was seen and shows a cause: a count, a place, a format, an operator."""

    @property
    def text(self) -> str:
        """One clause, without a full stop."""


@dataclass(frozen=True)
class Notice:
    """Something that the user should read, whatever the verdict.

    Attributes:
        code: What kind of thing, for programs: ``reference-replaced``.
        subject: The runner, the model or the tensor that it is about; empty where it is about all.
        text: A whole sentence.
    """

    code: str
    subject: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class RunnerResult:
    """One runner: what it turned out to be, how long it took, how it failed.

    Attributes:
        options: The settings in force, defaults included.
        versions: Package or library -> version.
        open_seconds: Time to load or build the model; None if it did not get so far.
        infer_seconds: Time of all inferences together.
        notes: What the runtime wants the user to know.
        error: Why it failed, in one or two lines; None if it did not.
        repeat: What a second run on the first sample's inputs gave (``bit_identical``, and of the output that differs
            most ``tensor``, ``max_abs``, ``rel_l2``); None if there was none.
        latency: Times of single runs in milliseconds (``host``, ``gpu``, ``device``: min, mean, median, p99) and
            ``throughput`` in runs per second; None if not asked for.
        format: The number format that it computes in: ``fp16``; None where that is not known.
        source: The file or function that it ran; None where that is not known.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    open_seconds: float | None = None
    infer_seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    latency: Mapping[str, Any] | None = None
    repeat: Mapping[str, Any] | None = None
    format: str | None = None
    source: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether it did not fail, but the run was interrupted before it was through."""
        return (self.error or "").startswith(STOPPED)

    @property
    def failure(self) -> str:
        """Why it failed, with its name once."""
        error = self.error or ""
        return error if error.startswith(self.name) else f"{self.name}: {error}"


@dataclass(frozen=True)
class ToleranceUsed:
    """What the user allowed an output: ``|candidate - reference| <= atol + rtol * |reference|``."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class OutputResult:
    """An output of one candidate against the reference's.

    Attributes:
        reason: Why the verdict is not a pass, in one line; None if it is one.
        holds: The other output of the reference whose values it holds, if any; of a missing one, the candidate's output
            that holds its values.
        exchanged: Whether outputs were exchanged: that one is held by another output of the candidate, and so on round
            to this one.
        transposed: The axes that turn the candidate's tensor into the reference's, where only that agrees.
        ties: Elements that are decided differently where rounding decides them differently too.
        metrics: Statistics over all samples; None where nothing could be compared.
        worst_sample: Number of the sample that comes nearest to, or breaks, what is allowed by most.
        use: Largest share of what is allowed: of the user's tolerance, or of the limits of what rounding explains; over
            1 is a failure.
        expected: The error held against the one that rounding is expected to make (`compare.outputs.explained`):
            ``explained``, ``rel_l2`` of the expected error, ``rms_z``, the ``statistic`` that came nearest to its
            ``limit``; None where the user's tolerance decides or nothing differs.
        values: The elements behind the statistics: what stands where, for messages.
        decided_by: The metric on labelled data, where that decided; None: the tolerance, or what rounding explains.
        out_of_range: Where FP16 loses what the candidate's runner carries on, if that leaves it undecided; in no file.
    """

    candidate: str
    tensor: str
    verdict: OutputVerdict
    reason: str | None = None
    holds: str | None = None
    exchanged: bool = False
    transposed: tuple[int, ...] | None = None
    tolerance: ToleranceUsed | None = None
    ties: int = 0
    metrics: Metrics | None = None
    worst_sample: int | None = None
    use: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    decided_by: str | None = None
    expected: Mapping[str, Any] | None = None
    out_of_range: OutOfRange | None = None

    @property
    def compared(self) -> bool:
        """Whether a single element was compared."""
        return bool((self.metrics or {}).get("count"))


@dataclass(frozen=True)
class AccuracyResult:
    """What a runner's outputs are worth on labelled data.

    Attributes:
        runner: The reference or a candidate.
        metric: ``top1``, ``top5``, ``agree``, ``logits`` or ``package.module:function``; higher is better.
        value: The metric over all rows, which of a function is the mean of what it gives for each sample, weighted by
            its rows; None where it is not finite or could not be measured. Of ``logits``, the mean
            log-probability of the tokens, in nats.
        difference: To the reference's value on the same rows; negative is worse.
        samples: Rows that were measured: all batches together.
        disagreements: Rows on which this runner decides otherwise than the reference: for top-k, another set of k
            classes; None with a function.
        logits: What ``logits`` tells besides; None of other metrics, and where it could not be measured.
    """

    runner: str
    metric: str
    value: float | None
    difference: float | None
    samples: int
    disagreements: int | None = None
    logits: LogitsResult | None = None


@dataclass(frozen=True)
class Enclosing:
    """The If, Loop or Scan that a layer is inside of.

    Attributes:
        node: Its name in the graph around it.
        op: Its operator.
        body: ``body``, ``then_branch`` or ``else_branch``.
        iterations: How many the reference makes; None for an If.
        looked_at: How many of them were looked into.
        begins: The first iteration, from 0, that is off on the reference's state; None if none is.
    """

    node: str
    op: str
    body: str
    iterations: int | None = None
    looked_at: int | None = None
    begins: int | None = None

    def __str__(self) -> str:
        if self.iterations is None:
            return f"in {self.op} {self.node}, {self.body}"
        begins = "" if self.begins is None else f", from iteration {self.begins:,} on"
        return f"in {self.op} {self.node}{begins} ({self.looked_at:,} of {self.iterations:,} iterations looked into)"


def _path(inside: Sequence[Enclosing], node: str) -> str:
    return "/".join([*(e.node for e in inside), node])


@dataclass(frozen=True)
class LayerResult:
    """A layer of one candidate.

    Attributes:
        tensor: The layer's output in the reference's graph.
        node: The node that does the layer's arithmetic, by the reference graph's name.
        nodes: All nodes of the fused group, by the reference graph's names.
        index: Position of the layer in the order of the graph.
        piece: Number of the piece it was run in.
        local: What the layer does wrong when it is fed the reference's inputs.
        cumulative: How far its output is from the reference's when the candidate runs freely.
        expected: Local error against the expected noise: ``rms_z``, ``gain_sigma``, ``bound_use``.
        contribution: Share of the candidate's whole error at the outputs when this layer alone runs on the candidate.
        candidate_node: The candidate graph's name of the node, where that differs.
        candidate_tensor: The candidate file's name of the output, where that differs.
        inside: The If, Loop or Scan that it is inside of, the outermost first; empty at the top of the graph.
        quantized: Those of `nodes` that the candidate computes on scaled integers.
        inputs: The tensors that the layer reads, in the reference's graph.
        origin: Module path and line of the program that the layer comes from, as far as the exporter left them
            (``encoder.fc1, net.py:18 in forward``).
        portrait: How its values lie on both sides and, of a layer that is to blame, where its error is
            (`compare.statistics.portrait`); for pictures.
    """

    candidate: str
    tensor: str
    node: str
    nodes: tuple[str, ...]
    op: str
    index: int
    piece: int
    local: Metrics | None = None
    cumulative: Metrics | None = None
    expected: Metrics | None = None
    contribution: float | None = None
    verdict: LayerVerdict = "unknown"
    cause: Cause | None = None
    candidate_node: str | None = None
    inside: tuple[Enclosing, ...] = ()
    quantized: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    origin: str | None = None
    portrait: Mapping[str, Any] | None = None
    candidate_tensor: str | None = None

    @property
    def path(self) -> str:
        """The node's name, behind those of the If, Loop or Scan that it is inside of."""
        return _path(self.inside, self.node)


@dataclass(frozen=True)
class Culprit:
    """A layer whose local error is more than its expected noise, or whose contribution breaks the tolerance.

    With the cause ``spread`` it stands for all layers: none is beyond its noise, and this one contributes most.

    Attributes:
        tensors: Its outputs, those that are off where only some of them are.
        cause: Why.
        facts: What shows the cause, the most telling fact first.
        candidate_node: The candidate graph's name of the node, where that differs.
        inside: The If, Loop or Scan that it is inside of, the outermost first; empty at the top of the graph.
        deployed: False if the outputs as deployed show less than a tenth of what the layer does to them in pieces:
            the runtime does not compute it alone, or not in the same format, when it runs the whole model. None:
            nothing says so.
        remedies: What the cause calls for, the best first; empty of culprits beyond those that the report shows.
        origin: Module path and line of the program that the node comes from, as far as the exporter left them.
    """

    candidate: str
    node: str
    op: str
    tensors: tuple[str, ...]
    cause: Cause
    local: Metrics | None
    contribution: float | None
    facts: tuple[Fact, ...] = ()
    candidate_node: str | None = None
    inside: tuple[Enclosing, ...] = ()
    deployed: bool | None = None
    remedies: tuple[Remedy, ...] = ()
    origin: str | None = None

    @property
    def path(self) -> str:
        """The node's name, behind those of the If, Loop or Scan that it is inside of."""
        return _path(self.inside, self.node)

    @property
    def evidence(self) -> str:
        """Values, counts and index that show the cause, in one line."""
        return "; ".join(fact.text for fact in self.facts)


@dataclass(frozen=True)
class Fidelity:
    """How much of what a candidate does as it is deployed the run that observed its layers shows, at one output.

    Attributes:
        deployed_error, observed_error: Relative L2 error of the output against the reference, over all samples.
        share: The second over the first; 1 where both outputs are the same, None where it cannot be told.
        bit_identical: Whether the observed outputs are the deployed ones bit by bit, for all samples; None where the
            run did not get so far.
    """

    candidate: str
    tensor: str
    deployed_error: float | None
    observed_error: float | None
    share: float | None
    bit_identical: bool | None


@dataclass(frozen=True, repr=False)
class Report:
    """Everything a run found. True in a boolean context if, and only if, every candidate agrees with the reference.

    Attributes:
        reference: Name of the runner that was believed.
        model: The reference's model.
        candidate_model: The candidates' model, where that is another file.
        data: The samples that the verdict rests on.
        runners: Every runner that was asked for, the reference first.
        outputs: One result for each output of each candidate.
        layers, culprits: What localizing found; empty if it was not asked for. Culprits come most guilty first.
        fidelity: How much of the deployed outputs the run shows that layers and culprits come from; empty without one.
        notices: What the user should read, whatever the verdict.
        accuracy: What each runner's outputs are worth on labelled data, the reference first; empty without a metric.
        saved: Files that hold worst samples.
        plan: Which layers of a candidate have to stay in FP32 for it to pass, measured; None if it was not asked for.
        applied: The network with remedies that are no precision, where it was asked for and there are some.
        provenance: Version, date, command and settings of the run.
        changes: What became worse, better or stayed bad since an earlier report, if there is one.
        baseline: That report's file; None if it was not held against one.
        shard: What the report on a share of the samples holds besides, for ``layerdiff merge``; None of all others.
    """

    reference: str
    model: ModelInfo
    data: DataInfo
    runners: tuple[RunnerResult, ...]
    outputs: tuple[OutputResult, ...]
    candidate_model: ModelInfo | None = None
    layers: tuple[LayerResult, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()
    notices: tuple[Notice, ...] = ()
    saved: tuple[str, ...] = ()
    accuracy: tuple[AccuracyResult, ...] = ()
    plan: Plan | None = None
    applied: Applied | None = None
    provenance: Provenance = field(default_factory=Provenance, compare=False)
    changes: tuple[Change, ...] = ()
    baseline: str | None = None
    shard: Shard | None = None

    @property
    def compared(self) -> bool:
        """Whether a single element was compared."""
        return any(o.compared for o in self.outputs)

    @property
    def verdict(self) -> Verdict:
        """``error`` if a runner failed, ``pass`` if something was compared and all of it agrees, ``undecided`` if
        nothing was compared, or an output cannot be judged, and none disagrees, else ``fail``."""
        if any(runner.error for runner in self.runners):
            return "error"
        found = {o.verdict for o in self.outputs}
        if not found <= {"pass", "undecided"}:
            return "fail"
        return "pass" if self.compared and found == {"pass"} else "undecided"

    def __bool__(self) -> bool:
        return self.verdict == "pass"

    def costliest(self, candidate: str) -> tuple[LayerResult, ...]:
        """The layers of a candidate that contribute most to the error at its outputs, as far as that was measured: at
        most `COSTLIEST`, the greatest contribution first. Without those that heal: a name for another value."""
        known: dict[int, LayerResult] = {}
        for layer in self.layers:
            counts = layer.contribution is not None and not layer.inside and layer.verdict != "healed"
            if layer.candidate == candidate and counts:
                known.setdefault(layer.index, layer)
        return tuple(sorted(known.values(), key=lambda layer: -(layer.contribution or 0.0))[:COSTLIEST])

    @property
    def exit_status(self) -> int:
        """What the ``compare`` command exits with: 0 agree, 1 disagree or undecided, 3 a runner failed."""
        return {"pass": 0, "fail": 1, "undecided": 1, "error": 3}[self.verdict]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the notices."""
        return tuple(notice.text for notice in self.notices)

    @property
    def candidates(self) -> tuple[RunnerResult, ...]:
        """The runners that were judged."""
        return tuple(runner for runner in self.runners if runner.name != self.reference)

    def of(self, candidate: str) -> tuple[OutputResult, ...]:
        """The outputs of one candidate."""
        return tuple(output for output in self.outputs if output.candidate == candidate)

    def render(self, name: str) -> Content:
        """The report in one of its formats: ``json``, ``text``, or what else is in this folder; one that is a folder as
        files by their names.

        Raises:
            UsageError: There is no such format.
        """
        known = {flag.removeprefix("--"): one for flag, one in formats().items()}
        if name not in known:
            raise UsageError(f"no format is called {name!r}; there are: {', '.join(sorted(known))}.")
        return known[name].render(self)

    def __str__(self) -> str:
        return str(self.render("text"))

    def __repr__(self) -> str:
        counts = f"{len(self.outputs)} outputs, {len(self.layers)} layers, {len(self.culprits)} culprits"
        return f"<Report: {self.verdict}, {counts}; print() shows it>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"
