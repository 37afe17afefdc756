"""What a culprit's cause calls for, and what it would give: the short answer, measured at once where that is cheap.

Keeping a layer in FP32 is one remedy among others. What a format loses may be scaled into its range (`rewrites`); what
differs between two files is put right in the file; what a runtime computes wrongly in FP32 too is rewritten.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.errors import LayerdiffError, OutputError
from ...graph.operators import PRODUCTS
from ...graph.pairing.absent_inputs import InputAbsent
from ...graph.pairing.broadcasts import RunsOtherwise
from ...graph.pairing.changes import (
    AttributeChange,
    ComputedOnce,
    GroupsChange,
    InputsExchanged,
    OperatorChange,
    OtherInput,
    OtherInputs,
    OtherOutput,
    ReadTwice,
    WeightsAbsent,
)
from ...graph.pairing.constant_steps import OtherSteps
from ...graph.pairing.regions import PADDING
from ...graph.pairing.settings import AxesFrom
from ...graph.pairing.weight_changes import WeightChange
from ...graph.pairing.weight_patterns import MergedOtherwise
from ...graph.printable import listed
from ..causes.altered_weights import OverflowBeside
from ..causes.differences import GraphsDiffer
from ..causes.nan import NotANumberOnBothSides
from ..causes.quantization import StepsHold
from ..causes.saturation import BeyondCalibration, CalibratedBehind
from ..causes.scale import Fit
from ..causes.underflow import LostBefore
from ..layers.observable import turned_round
from ..notices import not_written
from ..progress import SILENT, Progress
from ..report.model import Cause
from ..report.plan import Applied, Remedy
from ..sides import other_file
from .absent import ops, put_there
from .bench import unplanned
from .of_facts import of_facts
from .said_shortly import beside, following, of_known
from .trying import SEARCH, Trying, keeping
from .typed import in_fp32, kernel_of, narrow_type, typed_narrow, value_beyond
from .users_roles import in_users_roles

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.pairing.differences import Difference
    from ..comparison import Comparison
    from ..outputs.draws import Drawn
    from ..outputs.evidence import OutputEvidence
    from ..report.model import Culprit, Report
    from ..runs.run import RunLog
    from ..sides import Side

logger = logging.getLogger(__name__)

MOST = 5
"""Most culprits of a candidate whose remedies are proposed: as many as the report shows."""

IN_FILE = {
    Cause.ATTRIBUTE: "give the attributes of {node} the values that {first} has in the first file, or export it again",
    Cause.WEIGHTS: "take the first file's {weights}, or export the model again",
    Cause.LAYOUT: "put the axes of what {node} makes in the first file's order",
    Cause.SCALE: "put the scale or the constant of {node} right in the second file",
    Cause.WRONG_OP: "put the first file's {op} {first} into the second file, in place of what it has there",
    Cause.BIAS: "store the bias of {node} in the scale of its operands, or leave {node} in floating point",
    Cause.QUANTIZATION: "quantize {node} with another range, or leave it in floating point",
    Cause.SATURATION: "widen the range at whose end the values of {node} stop",
}
"""What puts a second file right: ``{weights}`` is what the constants are called that differ, ``{first}`` and ``{op}``
the culprit in the first file, ``{node}`` in the second."""

OTHERWISE = "compare {node} of the second file with {op} {first} of the first: it does not compute the same"
"""The same where nothing tells what it is."""

PROGRAM = "export the model again: the file does not hold what the program computes with"
"""Where a side runs a program of its own, of which the file is an export, and the two differ."""

EXPORT = (
    "export the model again; where the reference evaluator (--reference-evaluator) agrees with the program on this "
    "file, it is the runtime: rewrite the operator by others"
)
"""The same where nothing but values shows that they differ."""

OF_PROGRAM = (Cause.LAYOUT, Cause.SCALE, Cause.WRONG_OP, Cause.UNKNOWN, Cause.NAN)
"""Causes of which an export is the first to be suspected, beside attributes and weights."""

ANYWHERE = {
    Cause.EXCHANGED_OUTPUTS: "exchange the outputs' names, --map-output says which",
    Cause.FEEDING: "mend what depends there on the batch, on the number of tokens or on their places",
    Cause.UNDECLARED: "declare `arithmetic` in the runner, so that a tolerance follows from it, or let it give float32",
    Cause.NONDETERMINISM: "make the runtime deterministic, or compare with a tolerance",
}

INSIDE = (Cause.SPREAD, Cause.AMPLIFIED)
"""Causes of which what is rounded inside of a kernel may be as much a part as the node that is named."""

RUNTIME = "rewrite the operator by others that the runtime computes rightly: FP32 does not help"
"""Where a runtime that computes in FP32 is wrong."""


def with_remedies(
    comparison: Comparison,
    log: RunLog,
    outputs: Sequence[OutputEvidence],
    report: Report,
    progress: Progress = SILENT,
    runtime: Mapping[str, str] | None = None,
    drawn: Drawn | None = None,
) -> Report:
    """The report with remedies under each culprit. What goes wrong in here costs the measurement alone, or the file of
    ``--apply-remedy``, and a notice says so.

    Args:
        comparison: What was compared: the sides that ran.
        log: How it ran.
        outputs: What the outputs showed.
        report: What it showed, culprits included.
        progress: Told what is going on.
        runtime: What to set where a runtime is known to compute wrongly, by candidate.
        drawn: What was drawn for the outputs.

    Raises:
        UsageError: The network that the rules ask for cannot be written.
    """
    found: dict[int, tuple[Remedy, ...]] = {}
    applied: Applied | None = None
    for side in comparison.sides.all:  # of a candidate that runs no layer, the culprits are the reference's
        mine = {i: c for i, c in enumerate(report.culprits) if c.candidate == side.name}
        chosen = dict(list(mine.items())[:MOST])
        wrong = (runtime or {}).get(side.name, RUNTIME)
        if not mine:
            continue
        believed = turned_round(comparison.sides) if side is comparison.reference else None
        proposed = {i: remedy_of(c, side, believed or comparison.reference, wrong) for i, c in chosen.items()}
        found.update({i: (remedy,) for i, remedy in proposed.items()})
        whole = not any(runner.in_pieces for runner in log.runners)
        able = side.runner.narrows and side.runner.capabilities.opens_ahead and whole
        if able and any(remedy.keep for remedy in proposed.values()):
            progress.stage(f"{side.name}: trying what the culprits call for")
            before = unplanned(outputs, side)
            trying = Trying(comparison, log, side, before, drawn)
            try:
                found.update(trying.all(chosen, proposed))
            except LayerdiffError:
                logger.debug("remedies of %s were not tried", side.name, exc_info=True)
            try:
                applied = applied or trying.written(comparison.rules.apply_remedy)
            except OutputError as error:
                report = replace(report, notices=(*report.notices, not_written(error)))
    culprits = tuple(replace(c, remedies=found.get(i, ())) for i, c in enumerate(report.culprits))
    if turned_round(comparison.sides) is not None:
        culprits = tuple(in_users_roles(c) if c.candidate == comparison.reference.name else c for c in culprits)
    return replace(report, culprits=culprits, applied=applied)


def remedy_of(culprit: Culprit, side: Side, reference: Side, runtime: str = RUNTIME) -> Remedy:
    """What the cause of one culprit calls for, the network being as it is.

    Args:
        culprit: The culprit.
        side: The candidate.
        reference: Who is believed.
        runtime: What helps where the runtime itself computes wrongly.
    """
    cause = culprit.cause
    differences = [fact.difference for fact in culprit.facts if isinstance(fact, GraphsDiffer) and not fact.node]
    node = culprit.candidate_node or culprit.node
    reading = _reading(culprit)
    stated = _of_changes([d.change for d in differences], node, reading)
    if stated and (other_file(side, reference) or not _exported(culprit, side, reference)):
        return Remedy(stated)
    stored = _of_stored(differences, node, culprit.node)
    if stored:
        return Remedy(stored)
    fmt = narrow_type(side.model.index, node)
    if fmt is not None and any(d.clamped for d in differences):
        return Remedy(_unclamped(culprit))
    beyond = None if fmt is None else next((v for d in differences if (v := value_beyond(d, fmt)) is not None), None)
    if beyond is not None:
        return Remedy(f"{in_fp32(node)}, and {fmt} has no {beyond:g}")
    changes = [d.change for d in differences]
    two = other_file(side, reference)
    known = of_known(cause, changes, node, beside(culprit, side), following(culprit)) if two else ""
    if known:
        return Remedy(f"{known}{_again(culprit)}")
    folded = next((c for c in changes if isinstance(c, OperatorChange) and _in_one_product(c)), None)
    if folded is not None:
        names = [name for _, name in folded.reference]
        return Remedy(f"fold {listed(names)} into {folded.candidate[0][1]} again, or put them back there")
    shown = of_facts(culprit, side)
    if shown:
        return Remedy(shown)
    text = ANYWHERE.get(cause, "")
    if any(isinstance(fact, NotANumberOnBothSides) for fact in culprit.facts):
        text = "look at the inputs: both sides give values that are not numbers"
    if not text and other_file(side, reference) and not (side.runner.narrows and cause not in IN_FILE):
        narrow = cause not in IN_FILE and typed_narrow(side.model.index, node)
        kernel = kernel_of(side.model.index, node) if narrow and cause in INSIDE else [node]
        text = in_fp32(*kernel) if narrow else _in_file(culprit, differences, reference.model.index)
    if runtime == RUNTIME:
        text = text or _exported(culprit, side, reference)
    if not text and not side.runner.narrows:
        text = runtime
    if text or culprit.inside:
        return Remedy(text or "look at the body that the node is in")
    if cause is Cause.SPREAD:
        return Remedy(SEARCH)
    keep = _kept(side.model.index, culprit)
    if typed_narrow(side.model.index, keep[-1]):
        return Remedy(in_fp32(keep[-1]))
    return Remedy(keeping(side, keep), keep)


def _in_file(culprit: Culprit, differences: Sequence[Difference], index: GraphIndex) -> str:
    """What puts a second file right whose values tell the cause. ``index``: the first file's graph."""
    cause, told = culprit.cause, [fact for fact in culprit.facts if isinstance(fact, GraphsDiffer)]
    others = [fact.difference.change for fact in told if fact.node]
    missing = put_there(cause, [d.change for d in differences], others, index)
    fitted = next((fact.remedy for fact in culprit.facts if isinstance(fact, Fit)), "") if cause is Cause.SCALE else ""
    beyond = next((fact for fact in culprit.facts if isinstance(fact, BeyondCalibration)), None)
    if beyond is not None and cause is Cause.SATURATION:
        return beyond.remedy
    first, node = culprit.node, culprit.candidate_node or culprit.node
    put = IN_FILE.get(cause, OTHERWISE)
    put = put.format(weights=_nouns(differences), node=node, first=first, op=culprit.op)
    return f"{missing or fitted or put}{_again(culprit)}"


def _again(culprit: Culprit) -> str:
    """What is to be done, too, where ranges were calibrated with the fault."""
    return ", and calibrate again" if any(isinstance(fact, CalibratedBehind) for fact in culprit.facts) else ""


def _of_stored(differences: Sequence[Difference], node: str, first: str) -> str:
    """What puts right weights that are stored in steps or were multiplied together, and are others; empty where there
    are none. ``node``: what has them in the second file; ``first``: in the first one."""
    if any(d.stored_scaled for d in differences):
        return "put the scale of the weights right in the second file, or quantize the first file's weights again"
    beyond = [d for d in differences if isinstance(d.change, WeightChange) and d.change.beyond_steps]
    if beyond:
        what = f"{_nouns(beyond)} of {first}"
        return f"quantize the first file's {what} again: integers, scales or zero points are those of others"
    changes = [d.change for d in differences if isinstance(d.change, WeightChange)]
    merged = next((p for c in changes for p in c.patterns if isinstance(p, MergedOtherwise)), None)
    if merged is not None:
        return merged.remedy(node)
    together = next((d.change.parts for d in differences if isinstance(d.change, WeightChange) and d.change.parts), ())
    if together:
        named = listed([name for name in together if name != node])
        return f"fold {named} into {node} again, or put back there what the first file has"
    if any(isinstance(d.change, WeightChange) and d.change.part for d in differences):
        return f"compute with the rest of the first file's weights of {first}, too, and put the results together"
    return ""


def _nouns(differences: Sequence[Difference]) -> str:
    """What the constants are called that differ: weights, biases, or both."""
    changes = (d.change for d in differences if isinstance(d.change, (WeightChange, WeightsAbsent)))
    nouns = dict.fromkeys(change.noun for change in changes)
    return listed([*nouns]) if nouns else "weights"


def _exported(culprit: Culprit, side: Side, reference: Side) -> str:
    """What puts right an export that does not do what its program does; empty where there is no program, or the cause
    is another one."""
    cause, able = culprit.cause, [s.runner.capabilities for s in (side, reference)]
    if all(can.any_model for can in able):
        return ""
    stated = any(isinstance(fact, GraphsDiffer) for fact in culprit.facts)
    if cause in (Cause.WEIGHTS, Cause.ATTRIBUTE) or (stated and cause in OF_PROGRAM):
        return PROGRAM
    programs = any(can.computes and not can.any_model for can in able)
    return EXPORT if programs and cause in OF_PROGRAM and not side.runner.narrows else ""


def _in_one_product(change: OperatorChange) -> bool:
    """Whether the second file computes in one product what several nodes of the first one do, all of which have
    names."""
    one = [op in PRODUCTS for op, _ in change.candidate] == [True]
    return one and len(change.reference) > 1 and all(name for _, name in (*change.reference, *change.candidate))


def _reading(culprit: Culprit) -> str:
    """What puts right nodes that read another tensor than in the first file: each of them."""
    nodes: dict[str, dict[str, None]] = {}
    changes = [fact.difference.change for fact in culprit.facts if isinstance(fact, GraphsDiffer)]
    others = [change for change in changes if isinstance(change, OtherInput)]
    for change in others:
        nodes.setdefault(change.meant, {}).update(dict.fromkeys((change.reader, *change.alike)))
    for change in others:
        nodes.setdefault(change.candidate, {}).update(dict.fromkeys(change.exchanged))
    nodes = {tensor: readers for tensor, readers in nodes.items() if readers}
    told = [f"{listed([*names])} read '{tensor}'" for tensor, names in nodes.items()]
    beside = dict.fromkeys(other.remedy for change in others for other in change.beside)
    return ", and ".join([*([f"let {listed(told)} in the second file"] if told else []), *beside])


def _of_changes(changes: Sequence[object], node: str, reading: str) -> str:
    """What puts right what a node reads, and numbers that are others beside that; empty where it reads the same."""
    found = dict.fromkeys(text for change in changes if (text := _of_change(change, node, reading)))
    numbers = {c.meant: None for c in changes if found and isinstance(c, WeightChange) and c.meant}
    return ", and ".join([*found, *(f"set the constant of {node} to {value}" for value in numbers)])


def _of_change(change: object, node: str, reading: str) -> str:
    """What puts right a node that reads something else in the second file; empty where it is not that. ``reading``: the
    same of all nodes that read another tensor."""
    if isinstance(change, OtherInput):
        return reading
    if isinstance(change, (ReadTwice, OtherInputs)):
        return change.remedy
    if isinstance(change, GroupsChange):
        return change.remedy(node)
    if isinstance(change, ComputedOnce):
        nodes = ops(change.ops) if len(change.ops) < 3 else f"{ops(change.ops[:1])} to {ops(change.ops[-1:])}"
        return f"compute {nodes} of '{change.meant}' in the second file, and let what is behind them read that"
    if isinstance(change, OtherOutput):
        return f"let the output '{change.name}' be {change.meant} in the second file"
    if isinstance(change, InputsExchanged):
        return f"give {node} its inputs in the first file's order"
    if isinstance(change, RunsOtherwise):
        return f"give {change.of} of {node} the shape {list(change.shape)} in the second file"
    if isinstance(change, InputAbsent) and change.in_candidate:
        return f"give {node} {change.slot} in the second file, which the first file's reads as '{change.name}'"
    if isinstance(change, InputAbsent):
        return f"leave {change.slot} of {node} out in the second file"
    if isinstance(change, AttributeChange) and (AxesFrom in map(type, (change.reference, change.candidate))):
        return _one_axis(change, node)
    if isinstance(change, AttributeChange) and change.name == PADDING:
        mine, theirs = change.given
        if not mine:
            return f"let {node} pad with zeros itself in the second file, in place of {theirs}"
        return (
            f"put the first file's {mine} before {node} in the second file, in place of {theirs or 'its own padding'}"
        )
    if isinstance(change, AttributeChange) and change.of:
        return f"set the {change.name} of {change.of} to {change.shown}"
    if isinstance(change, OperatorChange) and not change.reference and all(name for _, name in change.candidate):
        return f"leave {ops(change.candidate)} out of the second file"
    if not isinstance(change, OtherSteps):
        return ""
    names = ops(change.nodes)
    if not change.in_candidate:
        return f"put {names} into the second file, or store there what the first file computes"
    wide = ", or compute them in a type that holds the values" if change.rounds_to else ""
    return f"leave {names} out of the second file{wide}"


def _one_axis(change: AttributeChange, node: str) -> str:
    """What puts right an operator that runs over all axes from one on before opset 13, and from there on along one."""
    if isinstance(change.reference, AxesFrom):
        flat = f"flatten axis {change.shown} into one before {node} in the second file, and undo that behind it"
        return f"{flat}: from opset 13 on the operator runs along one axis alone"
    return f"write the second file in opset 13 or newer: before, {node} runs over all axes from its axis on"


def _unclamped(culprit: Culprit) -> str:
    """What puts right weights that were clamped when they were converted to a narrow format."""
    differences = [fact.difference for fact in culprit.facts if isinstance(fact, GraphsDiffer) and not fact.node]
    node = culprit.candidate_node or culprit.node
    text = f"write {node} in FP32 in the file, with the first file's {_nouns(differences)}"
    if any(isinstance(fact, OverflowBeside) for fact in culprit.facts):
        return f"{text} and Casts around it"
    return f"{text}, or change the limits that the converter sets (max_finite_val, min_positive_val)"


def _kept(index: GraphIndex, culprit: Culprit) -> tuple[str, ...]:
    """The nodes that FP32 would help: the culprit, and before it what cancels in it or is lost before it; the layer
    whose rounding to scaled integers it is, where who made its operand is named."""
    held = next((f.layer for f in culprit.facts if isinstance(f, StepsHold)), "")
    if held in index.names:
        return (held,)
    node = culprit.candidate_node or culprit.node
    lost = next((f.nodes for f in culprit.facts if isinstance(f, LostBefore)), ())
    if lost:
        return (*dict.fromkeys((*lost, node)),)
    if culprit.cause is not Cause.CANCELLATION or node not in index.names:
        return (node,)
    reads = index.reads[index.names.index(node)]
    makers = dict.fromkeys(index.names[index.producer[name]] for name in reads if name in index.producer)
    return (*makers, node)
