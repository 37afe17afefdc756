"""What a culprit's cause calls for, and what it would give: the short answer, measured at once where that is cheap.

Keeping a layer in FP32 is one remedy among others. What differs between two files is put right in the file, and what
a runtime computes wrongly in FP32 too is rewritten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.cutting.fusion import fused_groups
from ...graph.errors import LayerdiffError
from ..progress import SILENT, Progress
from ..report.model import Cause
from ..report.plan import Remedy, Trial
from ..sides import other_file
from .bench import Bench

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..comparison import Comparison
    from ..report.model import Culprit, Report
    from ..runs.run import RunLog
    from ..sides import Side

logger = logging.getLogger(__name__)

MOST = 5
"""Most culprits of a candidate whose remedies are proposed: as many as the report shows."""

IN_FILE = {
    Cause.ATTRIBUTE: "give the attribute the first file's value, or export the model again",
    Cause.WEIGHTS: "take the first file's weights, or export the model again",
    Cause.LAYOUT: "put the axes in the first file's order",
    Cause.SCALE: "put the scale or the constant right in the second file",
    Cause.WRONG_OP: "put the first file's operator there",
    Cause.BIAS: "store the bias in the scale of its operands, or leave the layer in float",
    Cause.QUANTIZATION: "quantize the layer with another range, or leave it in float",
    Cause.SATURATION: "widen the range that the values are cut off at",
}
"""What puts a second file right."""

ANYWHERE = {
    Cause.EXCHANGED_OUTPUTS: "exchange the outputs' names, --map-output says which",
    Cause.NONDETERMINISM: "make the runtime deterministic, or compare with a tolerance",
    Cause.NAN: "look at the inputs: both sides give values that are not numbers",
}

RUNTIME = "rewrite the operator by others that the runtime computes rightly: FP32 does not help"
"""Where a runtime that computes in FP32 is wrong."""


def with_remedies(comparison: Comparison, log: RunLog, report: Report, progress: Progress = SILENT) -> Report:
    """The report with a remedy under each culprit. What goes wrong in here costs the measurement alone.

    Args:
        comparison: What was compared: the sides that ran.
        log: How it ran.
        report: What it showed, culprits included.
        progress: Told what is going on.
    """
    found: dict[int, Remedy] = {}
    for side in comparison.candidates:
        mine = [(i, c) for i, c in enumerate(report.culprits) if c.candidate == side.name][:MOST]
        proposals = [(i, remedy_of(c, side, comparison.reference)) for i, c in mine]
        found.update(proposals)
        if any(remedy.keep for _, remedy in proposals) and side.runner.capabilities.opens_ahead:
            found.update(_measured(comparison, log, report, side, proposals, progress))
    culprits = tuple(replace(c, remedy=found.get(i)) for i, c in enumerate(report.culprits))
    return replace(report, culprits=culprits)


def remedy_of(culprit: Culprit, side: Side, reference: Side) -> Remedy:
    """What the cause of one culprit calls for.

    Args:
        culprit: The culprit.
        side: The candidate.
        reference: Who is believed.
    """
    cause = culprit.cause
    text = ANYWHERE.get(cause, "") if cause is not Cause.NAN or not side.runner.narrows else ""
    if not text and other_file(side, reference) and not (side.runner.narrows and cause not in IN_FILE):
        text = IN_FILE.get(cause, "look at what the second file has there")
    if not text and not side.runner.narrows:
        text = RUNTIME
    if text or culprit.inside:
        return Remedy(side.name, culprit.node, text or "look at the body that the node is in")
    if cause is Cause.SPREAD:
        return Remedy(side.name, culprit.node, "--fix plan.json finds the fewest layers that have to stay in FP32")
    keep = _kept(side.model.index, culprit)
    return Remedy(side.name, culprit.node, _keeping(side, keep), keep)


def _kept(index: GraphIndex, culprit: Culprit) -> tuple[str, ...]:
    """The nodes that FP32 would help: the culprit, and before it what cancels in it."""
    node = culprit.candidate_node or culprit.node
    if culprit.cause is not Cause.CANCELLATION or node not in index.names:
        return (node,)
    reads = index.reads[index.names.index(node)]
    makers = dict.fromkeys(index.names[index.producer[name]] for name in reads if name in index.producer)
    return (*makers, node)


def _keeping(side: Side, keep: Sequence[str]) -> str:
    options = ",".join(f"keep={name.replace(',', ',,')}" for name in keep)
    return f"keep {' and '.join(keep)} in FP32 (--{side.runner.flag}=...,{options})"


def _measured(
    comparison: Comparison,
    log: RunLog,
    report: Report,
    side: Side,
    proposals: Sequence[tuple[int, Remedy]],
    progress: Progress,
) -> dict[int, Remedy]:
    """The first remedy, tried; where it does not suffice, all of them together."""
    able = [(i, remedy) for i, remedy in proposals if remedy.keep]
    progress.stage(f"{side.name}: trying what the culprits call for")
    try:
        runner = side.runner.calibrated(side.model, comparison.workload)
        with Bench(comparison, log, replace(side, runner=runner)) as bench:

            def tried(nodes: Sequence[str]) -> Trial:
                start = time.perf_counter()
                outputs = bench.judged(runner.keeping([*runner.kept, *nodes]))
                return Trial((), outputs, time.perf_counter() - start)

            place, first = able[0]
            alone = tried(first.keep)
            if not alone.passed and report.culprits[place].cause is Cause.OVERFLOW:
                wider = (*first.keep, *_readers(side.model.index, first.keep))
                again = tried(wider)
                if again.passed or len(able) == 1:
                    return {place: replace(first, text=_keeping(side, wider), keep=wider, measured=again)}
            found = {place: replace(first, measured=alone)}
            if not alone.passed and len(able) > 1:
                everything = tuple(dict.fromkeys(name for _, remedy in able for name in remedy.keep))
                place, last = able[-1]
                text = f"{last.text}, and so all {len(able)} culprits"
                found[place] = replace(last, text=text, keep=everything, measured=tried(everything))
            return found
    except LayerdiffError:
        logger.debug("remedies of %s were not tried", side.name, exc_info=True)
        return {}


def _readers(index: GraphIndex, nodes: Sequence[str]) -> tuple[str, ...]:
    """The nodes behind the fused groups of some nodes: what is too large for a format is too large for them, too."""
    position = {name: p for p, name in enumerate(index.names)}
    chosen = {position[name] for name in nodes if name in position}
    groups = [set(g.nodes) for g in fused_groups(index) if not chosen.isdisjoint(g.nodes)]
    inside = set().union(*groups) if groups else set()
    readers = {r for p in inside for n in index.nodes[p].output for r in index.consumers.get(n, ())} - inside
    return tuple(index.names[p] for p in sorted(readers))
