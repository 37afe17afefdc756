"""A comparison as data: who is compared, on what, by which rules."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..graph.errors import UsageError
from ..graph.options import Axes, Choice, Named, Names, Number, Pair, Renamed, Size, Whole, check, option, options
from ..runners.contract.workload import ShapeRange
from .budget import Budget, Limit
from .shape_sets import ShapeSets, as_sets
from .share import Share

if TYPE_CHECKING:
    from ..dataloaders.base import Samples
    from ..runners.contract.runner import Builders
    from ..runners.contract.workload import Workload
    from .journal.sessions import RunJournal
    from .report.model import Notice
    from .sides import Side, Sides


@dataclass(frozen=True)
class Rules:
    """What the user may decide about a comparison. Each field is a keyword argument of `Comparator` and a flag.

    Attributes:
        reference: Name of the runner to believe, instead of the most trusted.
        isolate: Whose sessions are opened in processes of their own, so that a crash, an exit or a hang costs no
            report: nobody's (``off``), those that run other people's code (``auto``, as the command does), or
            everybody's (``on``).
        timeout: Seconds that opening a session, or one run, may take; all runners are isolated then. None: any time.
        inputs, outputs: Tensors that are inputs and outputs of a TensorFlow frozen graph.
        allow_external: A folder outside the model's own in which its external weights may be.
        map_inputs, map_outputs: Inputs and outputs that a second file has under another name: name in the first file ->
            name in the second.
        transpose_inputs: Inputs that a second file has in another layout: name in the first file -> axes that turn the
            second file's input into the first's.
        shapes: Shapes of inputs by name, ``(8, 3, 224, 224)``, or for runtimes that build for a range
            ``ShapeRange(min, opt, max)``; or several such mappings for several optimization profiles.
        rtol, atol: ``|candidate - reference| <= atol + rtol * |reference|`` for all outputs; both or neither; automatic
            if not given.
        tolerances: ``(rtol, atol)`` of single outputs, by name.
        nan_equal: Whether NaN equals NaN.
        labels: The right answers, one for each row of all batches together: an array, or a ``.npy`` or ``.npz``.
        metric: What to measure on them: ``top1``, ``top5``, ``package.module:function`` or a function
            ``(outputs, labels) -> float``, higher is better; or ``agree``, without labels: how often the highest score
            is that of the same class as the reference's; or ``logits``: distributions over a vocabulary, token by token
            (`compare.outputs.logits`). It decides outputs that would be undecided.
        metric_output: The output to measure; not needed where only one is float.
        metric_drop: How far a candidate's metric may lie under the reference's; 0.01 if not given, and 0.1 nats
            of ``logits``.
        layers: Whether to localize after the outputs were compared: not at all, inside ``guilty`` pieces, or ``all``
            tensors.
        memory: Bytes that localizing may use for one piece; models with more external weights run in pieces. None:
            from the machine.
        save_inputs, save_outputs: Where to save what was run, and what every runner gave.
        shard: Run only the i-th of n shares of the samples: ``(i, n)``, from 1. The report then holds the outputs, and
            says nothing of what rounding explains: `compare.merging` puts the reports together.
        ray: Address of a cluster of Ray on which shares of the samples are run, or the walks through the layers of
            several candidates and the runs of a search for a plan; ``local``: one that is started here for as long as
            it takes. None: everything is run in this process.
        resume: A folder in which finished work is kept, from which the same comparison goes on if it was killed.
        latency: Runs to time on each runner after the comparison, with the last sample; None: nothing is timed.
        fix: File for a precision plan: which layers must stay FP32 for the candidate to pass, searched and measured.
        fix_budget: Most runs that the search may judge, or minutes that it may take.
        fixed_model: File for the network with the plan written into it as types, or Q/DQ nodes.
        apply_remedy: File for the network with the remedies in it that are no precision: layers rescaled by powers of
            two, constants that the format holds.
        plan: File with such a plan, which is applied to the candidate before it is compared.

    Raises:
        UsageError: rtol without atol, or the reverse; a value that its option does not take.
    """

    reference: str | None = option(
        None, "--reference", "use this runner as the reference", group="runners", metavar="NAME"
    )
    isolate: Literal["auto", "on", "off"] = option(
        "off",
        "--isolate",
        "run sessions in processes of their own, whose crash costs no report: on, off, or auto: TensorRT beside "
        "a reference on the CPU, runners of your own and custom operators (auto)",
        Choice("auto", "on", "off"),
        "runners",
        metavar="WHICH",
    )
    timeout: float | None = option(
        None,
        "--timeout",
        "longest time for opening a session, and for one run; all runners are isolated",
        Number(0.1),
        "runners",
        metavar="SECONDS",
    )
    inputs: Sequence[str] = option(
        (), "--inputs", "inputs of a TensorFlow frozen graph", Names(), "data", metavar="A,B"
    )
    outputs: Sequence[str] = option(
        (), "--outputs", "outputs of a TensorFlow frozen graph", Names(), "data", metavar="A,B"
    )
    allow_external: str | None = option(
        None,
        "--allow-external",
        "a folder beside the model's own in which its external weights may be",
        group="data",
        metavar="DIR",
    )
    map_inputs: Mapping[str, str] = option(
        dict,
        "--map-input",
        "an input of the first file, and its name in the second",
        Renamed("NAME=NAME2"),
        "data",
        metavar="NAME=NAME2",
    )
    map_outputs: Mapping[str, str] = option(
        dict,
        "--map-output",
        "an output of the first file, and its name in the second",
        Renamed("NAME=NAME2"),
        "data",
        metavar="NAME=NAME2",
    )
    transpose_inputs: Mapping[str, tuple[int, ...]] = option(
        dict,
        "--transpose-input",
        "axes that turn the second file's input into the first's: 0,2,3,1 from NCHW to NHWC",
        Named(Axes(), "NAME:0,2,3,1"),
        "data",
        metavar="NAME:AXES",
    )
    shapes: Sequence[Mapping[str, ShapeRange]] = option(
        (),
        "--shape",
        "shape of one input: 1x3x224x224, or min..opt..max for runtimes that build for a range; "
        "again for the same input: one more optimization profile",
        ShapeSets(),
        "data",
        metavar="NAME:DIMS",
    )
    shard: tuple[int, int] | None = option(
        None,
        "--shard",
        "run the I-th of N shares of the samples; layerdiff merge puts their reports together",
        Share(),
        "data",
        metavar="I/N",
    )
    ray: str | None = option(
        None,
        "--ray",
        "run shares of the samples on a cluster of Ray, or several candidates' layers and the runs of --fix; "
        "without an address, one of this machine's processes",
        group="runners",
        metavar="ADDRESS",
        const="local",
    )
    rtol: float | None = option(
        None,
        "--rtol",
        "relative tolerance, with --atol: |difference| <= atol + rtol * |reference|",
        Number(),
        "tolerances",
        metavar="R",
    )
    atol: float | None = option(None, "--atol", "absolute tolerance, with --rtol", Number(), "tolerances", metavar="A")
    tolerances: Mapping[str, tuple[float, float]] = option(
        dict,
        "--tolerance",
        "rtol and atol of one output",
        Named(Pair("RTOL,ATOL", least=0), "NAME:RTOL,ATOL"),
        "tolerances",
        metavar="NAME:R,A",
    )
    nan_equal: bool = option(False, "--nan-equal", "NaN equals NaN", group="tolerances")
    labels: Any = option(
        None,
        "--labels",
        "labels of the data: .npy, .npz with one array, or .npz:NAME",
        group="accuracy",
        metavar="FILE",
    )
    metric: str | Callable[..., float] | None = option(
        None,
        "--metric",
        "top1, top5, agree (top-1 as the reference's; needs no labels), logits (KL divergence, log-probabilities and "
        "perplexity of a language model), or package.module:function(outputs, labels), of which higher is better",
        group="accuracy",
        metavar="M",
    )
    metric_output: str | None = option(
        None, "--metric-output", "output to measure, where several are float", group="accuracy", metavar="NAME"
    )
    metric_drop: float | None = option(
        None,
        "--metric-drop",
        "largest accepted drop of the metric: 0.01 is one point (0.01; logits: 0.1 nats)",
        Number(),
        "accuracy",
        metavar="X",
    )
    layers: Literal["guilty", "all"] | None = option(
        None,
        "--layers",
        "name the guilty layers; =all: every tensor",
        Choice("guilty", "all"),
        "layers",
        const="guilty",
    )
    memory: int | None = option(
        None,
        "--memory",
        "memory for one piece, e.g. 512MB; models with more external weights run in pieces",
        Size(),
        "layers",
        metavar="SIZE",
    )
    fix: str | None = option(
        None,
        "--fix",
        "find the fewest layers that must stay FP32 for a pass, measure it, and write the plan as JSON",
        group="plan",
        metavar="PLAN",
    )
    fix_budget: Limit | int | None = option(
        None,
        "--fix-budget",
        "most runs (builds) that the search may judge, or minutes: 10, 5m (100)",
        Budget(),
        "plan",
        metavar="N",
    )
    fixed_model: str | None = option(
        None, "--fixed-model", "with --fix: write the network with the plan in its types", group="plan", metavar="ONNX"
    )
    apply_remedy: str | None = option(
        None,
        "--apply-remedy",
        "write the network with those remedies that are no precision: layers rescaled, constants replaced",
        group="plan",
        metavar="ONNX",
    )
    plan: str | None = option(
        None, "--plan", "apply a plan to the candidate, and compare", group="plan", metavar="PLAN"
    )
    save_inputs: str | None = option(
        None,
        "--save-inputs",
        "save the inputs: .json as Polygraphy's, one sample as .npz, or a folder of .npz",
        group="report",
        metavar="PATH",
    )
    save_outputs: str | None = option(
        None,
        "--save-outputs",
        "save the outputs of all runners, for --load-outputs: .json as Polygraphy's, or a folder of .npz",
        group="report",
        metavar="PATH",
    )
    resume: str | None = option(
        None,
        "--resume",
        "keep finished work in DIR; after a crash or a kill the same command goes on from there",
        group="report",
        metavar="DIR",
    )
    latency: int | None = option(
        None, "--latency", "time N runs of each runner, after warm-up", Whole(1), "report", metavar="N"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", as_sets(self.shapes))
        check(self)
        if (self.rtol is None) != (self.atol is None):
            missing = "--rtol" if self.rtol is None else "--atol"
            told = "allowed is atol + rtol * |reference|"
            raise UsageError(f"--rtol and --atol go together: {told}. {missing} is missing.")
        if self.fix_budget is not None and self.fix is None:
            raise UsageError("--fix-budget is for --fix, which was not asked for.")
        if self.fixed_model is not None and self.fix is None:
            raise UsageError("--fixed-model is written with --fix, which was not asked for.")
        if self.fix is not None and self.plan is not None:
            raise UsageError("--fix makes a plan and --plan applies one: ask for one of the two.")

    @property
    def decide(self) -> bool:
        """Whether they say when an output is good enough: by a tolerance or a metric."""
        return self.rtol is not None or bool(self.tolerances) or self.metric is not None

    @property
    def shape_sets(self) -> tuple[Mapping[str, ShapeRange], ...]:
        """The sets of shape ranges, one at least."""
        return tuple(self.shapes) or ({},)


RUN = frozenset(
    {"reference", "isolate", "timeout", "inputs", "outputs", "allow_external", "map_inputs", "map_outputs"}
    | {"transpose_inputs", "shapes", "plan"}
)
"""Names of the rules that say what is run."""

JUDGED = frozenset(f.name for f in options(Rules) if f.metadata["group"] in ("tolerances", "accuracy"))
"""Names of the rules that say how outputs are judged."""


def changed(rules: Rules) -> dict[str, Any]:
    """The rules that are not at their defaults, by name."""
    usual = Rules()
    given = {f.name: getattr(rules, f.name) for f in options(Rules)}
    return {n: value for n, value in given.items() if hasattr(value, "dtype") or value != getattr(usual, n)}


def check_form(path: str, samples: int | None = None) -> None:
    """Makes sure that a path of ``--save-inputs`` says a form that holds the samples.

    Args:
        path: The path.
        samples: How many there are; None where that is not known yet.

    Raises:
        UsageError: It says none, or one of a single sample.
    """
    suffix = os.path.splitext(path)[1]
    if suffix not in (".json", ".npz", ""):
        forms = "a .json, an .npz (one sample), or a folder of .npz, which is a name without a suffix"
        raise UsageError(f"--save-inputs {path}: inputs are saved as {forms}.")
    if suffix == ".npz" and (samples or 1) > 1:
        raise UsageError(f"--save-inputs {path}: {samples} samples, and an .npz holds one: name a folder or a .json.")


def with_options(rules: Rules, given: Mapping[str, Any]) -> Rules:
    """The rules with some of them replaced, as keyword arguments do it.

    Raises:
        UsageError: There is no such rule, or it does not take the value.
    """
    if not isinstance(rules, Rules):
        raise UsageError(f"rules: expected Rules(...), not a {type(rules).__name__}; options are keywords, too.")
    known = [f.name for f in options(Rules)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"no option is called {name!r}"
                + (f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}.")
            )
    return replace(rules, **given)


@dataclass(frozen=True)
class Comparison:
    """What is to be compared. It holds no sessions and can be pickled: `stages.compare` runs it in any process.

    Attributes:
        sides: The reference and the candidates.
        samples: The samples; every pass gives the same bytes.
        workload: What sessions on the whole model are opened for: samples, shape ranges, calibration.
        rules: What the user decided.
        calibration: What INT8 and FP8 are calibrated on, if not on the samples.
        notices: What was noticed before anything ran.
        journal: Where results are kept while it runs; None: nowhere.
        builders: Processes that build engines of layers while it runs; None: there are none.
    """

    sides: Sides
    samples: Samples
    workload: Workload
    rules: Rules
    calibration: Samples | None = None
    notices: tuple[Notice, ...] = ()
    journal: RunJournal | None = None
    builders: Builders | None = None

    @property
    def reference(self) -> Side:
        """The side that is believed. All sides of one file share a `Model`, so its index is made once."""
        return self.sides.reference

    @property
    def candidates(self) -> tuple[Side, ...]:
        """The sides that are judged."""
        return self.sides.candidates
