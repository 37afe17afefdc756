"""Outputs disagree or cannot be decided: which layers cost them most, and which is named though none is at fault."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...graph.operators import AFFINE_STEPS, CASTS, DIVIDES, MOVEMENT, facts_of, operator
from ...graph.pairing.changes import OperatorChange
from ...graph.pairing.weight_changes import WeightChange
from ...graph.quantized.misread import misread as misreads
from ...graph.specs import Arrays, is_float
from ..causes import coarse_scale, misread, nan, narrow_casts, underflow
from ..causes.case import ENLARGES, LoudLayer
from ..causes.differences import beyond_formats, stated
from ..causes.examiner import loudest
from ..causes.quantized_layer import STEPS as IN_STEPS
from ..causes.quantized_layer import QuantizedLayer, look_at
from ..progress import SILENT, Progress
from ..report.model import COSTLIEST, Cause
from ..runs.memory import budget
from ..runs.samples import numbered
from .lost_before import loses
from .observation import relative_error
from .portion import Mixed, Portion, portion_of
from .walk import Walk
from .walked import Forced

if TYPE_CHECKING:
    from ...graph.formats import NumberFormat
    from ...graph.index import GraphIndex
    from ..causes.diagnosis import Diagnosis
    from ..lockstep.plan import LayerPair
    from ..report.model import OutputResult
    from .observation import LayerObservation
    from .prepare import Prepared
    from .verdicts import Verdicts
    from .walked import Walked

log = logging.getLogger(__name__)

STEPS = 8
"""Most steps before a tensor that make the same quantity: a cast, a factor, an offset."""
REPRODUCED = 0.1
"""Share of an output's error that the walk must show for its layers to be asked about it."""
INT8_ROUNDING = 0.01
"""Relative RMS of rounding to 255 steps, for values that reach four times their RMS: 4 / 127 / sqrt(12)."""


def is_off(output: OutputResult) -> bool:
    """Whether an output that was compared does not agree: it fails, or what it differs by cannot be decided."""
    return output.verdict in ("fail", "undecided") and output.metrics is not None and bool(_error(output))


def _no_layers(output: OutputResult) -> bool:
    """Whether no layer is why an output is undecided: rounding alone decides as many of its elements otherwise, or it
    keeps the user's tolerance, and that proves nothing."""
    kept = output.tolerance is not None and output.use is not None and output.use <= 1
    return output.verdict == "undecided" and (bool(output.ties) or kept)


def _error(output: OutputResult) -> float:
    """The relative error of an output as deployed; infinite where it has none that is finite."""
    metrics = output.metrics or {}
    error = metrics.get("rel_l2")
    return math.inf if error is None else float(error)


def name_loudest(
    prepared: Prepared,
    walked: Walked,
    given: Verdicts,
    outputs: Sequence[OutputResult],
    progress: Progress = SILENT,
) -> tuple[Verdicts, list[LayerObservation]]:
    """Measures what layers contribute to outputs that are off, and names the one that explains most of them, where no
    layer is to blame.

    Args:
        prepared: Who is walked.
        walked: What the walk saw.
        given: The verdicts so far.
        outputs: What the candidate's outputs showed.
        progress: Told what is going on.

    Returns:
        The verdicts with the contributions that were measured, and the culprits. One with the cause ``spread`` is an
        entry for the report, and its verdict stays. Where everything is quantized, layers are ranked and none is named
        that does not hold most of the error.
    """
    blamed = given.culprits()
    if blamed and not any(o.verdict == "undecided" for o in outputs):
        return given, blamed
    if not any(is_off(o) and not _no_layers(o) for o in outputs) or not _reproduced(walked, outputs):
        return given, blamed
    if not blamed and no_result(given.layers, outputs) is not None:
        return given, blamed
    already = None if blamed else _not_a_number(given.layers, outputs) or _becomes_infinite(prepared, given, outputs)
    if already is not None:
        return given.knowing([already]).blaming(already.number), [already]
    sample = next((o.worst_sample for o in outputs if is_off(o) and o.worst_sample is not None), 0)
    loud, quantized = _measured(prepared, walked, given, sample, progress)
    given = given.knowing(loud)
    if blamed or not loud or loud[0].contribution is None:
        return given, given.culprits()
    failing = any(o.verdict == "fail" for o in outputs)
    top = _shifted(prepared, given) or _coarse(prepared, given, loud)
    top = top or _diagnosed(prepared, walked, loud, quantized, failing)
    assert top.diagnosis is not None
    if top.diagnosis.cause is Cause.SPREAD:
        return given, [] if quantized else [top]
    other = _blamed(given, top)
    if other is None:
        return given.knowing([top]).blaming(top.number), [top]
    # what it hands on is rounded by the layer that was measured, whose contribution it has
    given = given.knowing([replace(other, diagnosis=top.diagnosis)]).blaming(other.number)
    return given, [replace(other, diagnosis=top.diagnosis, contribution=top.contribution)]


def _blamed(given: Verdicts, top: LayerObservation) -> LayerObservation | None:
    """The layer that the diagnosis of another one blames, for a tensor or a node; None where it is that one itself."""
    if top.diagnosis is None:
        return None
    producer, node = top.diagnosis.producer, top.diagnosis.node
    other = (s for s in given.layers if producer in s.pair.reference.outputs or node in s.pair.reference.nodes)
    return next((s for s in other if s.number != top.number), None)


def _lost(walked: Walked, top: LayerObservation, fmt: NumberFormat) -> list[str]:
    """What a layer makes or reads that a format loses values of."""
    makers = {name: s for s in walked.layers for name in s.pair.reference.outputs}
    names = (*top.pair.reference.outputs, *top.pair.reference.inputs)
    return [n for n in names if n in makers and loses(makers[n].portraits.get(n), fmt)]


def _reproduced(walked: Walked, outputs: Sequence[OutputResult]) -> bool:
    """Whether the walk shows some of the error by which outputs fail. It does not show that of random values."""
    for output in outputs:
        seen, deployed = walked.outputs.get(output.tensor), (output.metrics or {}).get("rel_l2")
        if not is_off(output) or seen is None:
            continue
        if deployed is None or relative_error(seen) > REPRODUCED * deployed:
            return True
    return False


def _not_a_number(layers: Sequence[LayerObservation], outputs: Sequence[OutputResult]) -> LayerObservation | None:
    """The layer where NaN begins on both sides, where that is what fails the outputs."""
    failing = [o.metrics for o in outputs if is_off(o) and o.metrics is not None]
    if not failing or not all(metrics["nan"] and all(metrics["nan"]) for metrics in failing):
        return None
    for s in layers:
        for name, statistics in s.local.items():
            mine, theirs = statistics.metrics()["nan"] or (0, 0)
            if mine and theirs:
                return replace(s, diagnosis=nan.on_both_sides(name, mine, theirs))
    return None


def no_result(layers: Sequence[LayerObservation], outputs: Sequence[OutputResult]) -> LayerObservation | None:
    """The layer where NaN begins on both sides, where outputs are undecided by that: inputs were guessed, for which the
    network may have no result, and nobody is to blame."""
    failing = any(o.verdict == "fail" for o in outputs if is_off(o))
    return None if failing else _not_a_number(layers, outputs)


def _becomes_infinite(prepared: Prepared, given: Verdicts, outputs: Sequence[OutputResult]) -> LayerObservation | None:
    """The layer where values that are not finite begin in the candidate's own run, where outputs fail by such: it
    computes them of what rounding has made zero before."""
    if not any(not_finite(o.metrics) for o in outputs if is_off(o)):
        return None
    index = prepared.comparison.reference.model.index
    for s in given.layers:
        for name, statistics in s.cumulative.items():
            local = s.local.get(name)
            if local is None or not_finite(local.metrics()) or not not_finite(statistics.metrics()):
                continue
            op = next((o for p in s.pair.reference.nodes if (o := index.nodes[p].op_type) in DIVIDES), None)
            metrics = statistics.metrics()
            fact = nan.InfiniteInItsOwnRun(
                name, not_finite(metrics), metrics["count"], op or index.nodes[s.pair.main].op_type
            )
            return replace(s, diagnosis=nan.in_its_own_run(fact))
    return None


def not_finite(metrics: Mapping[str, Any] | None) -> int:
    """How many values are not finite in the candidate and are in the reference."""
    counts = [(metrics or {}).get(kind) or (0, 0) for kind in ("nan", "inf")]
    return int(max(0, sum(theirs - mine for mine, theirs in counts)))


def _measured(
    prepared: Prepared, walked: Walked, given: Verdicts, sample: int, progress: Progress
) -> tuple[list[LayerObservation], dict[int, QuantizedLayer]]:
    """The layers whose errors may cost the outputs most, that which contributes most first, and what of them is
    quantized; walks once more."""
    # what heals is another tensor of the same name, or does not matter
    loud = [s for s in given.layers if 0 < s.local_error < math.inf and given.by_layer[s.number] != "healed"]
    growth = _growth(loud)
    loud = sorted(loud, key=lambda s: s.local_error * growth[s.number], reverse=True)[:COSTLIEST]
    if not loud or not prepared.candidate.runner.capabilities.runs_parts:
        return [], {}
    noise = prepared.judge.noise
    quantized: dict[int, QuantizedLayer] = {}

    def look(pair: LayerPair, values: Arrays) -> None:
        found = look_at(noise, pair, values)
        if found is not None:
            quantized[pair.number] = found

    # random values are drawn anew: the candidate has another error beside them
    errors = None if any(pair.random for pair in prepared.plan.layers) else walked.errors
    forced = Forced([s.number for s in loud], sample, errors, _portion(prepared, walked, sample), look)
    try:
        again = _walk(prepared, forced, progress)
    except Mixed:
        log.debug("contributions are carried on the whole batch", exc_info=True)
        again = _walk(prepared, replace(forced, portion=None), progress)
    shares = {s.number: s.contribution for s in again.layers}
    loud = [replace(s, contribution=shares[s.number]) for s in loud]
    # of two layers that make the same error at the outputs, the later one has what the earlier one rounds cancel
    loud.sort(key=lambda s: (-1.0 if s.contribution is None else round(s.contribution, 2), s.local_error), reverse=True)
    return loud, quantized


def _walk(prepared: Prepared, forced: Forced, progress: Progress) -> Walked:
    comparison, memory = prepared.comparison, budget(prepared.comparison.rules.memory)
    return Walk(comparison, prepared.candidate, prepared.plan, forced=forced, budget=memory, progress=progress).run()


def _portion(prepared: Prepared, walked: Walked, sample: int) -> Portion | None:
    """The entries of a sample that contributions are measured on; None where the whole sample has to be run: of a
    reference that runs whole models or builds for shapes, and of random values."""
    reference, able = prepared.comparison.reference, prepared.comparison.reference.runner.capabilities
    random = any(pair.random for pair in prepared.plan.layers)
    if not able.pieces or able.builds_for_shapes or random:
        return None
    ((_, feed),) = numbered(prepared.comparison.samples, {sample})
    errors = [found for (number, _), found in walked.errors.items() if number == sample]
    samples = len(prepared.comparison.samples)
    counts = (statistics.count / samples for s in walked.layers for statistics in s.local.values())
    return portion_of(reference.model, feed, errors, min(counts, default=0))


def _growth(layers: Sequence[LayerObservation]) -> dict[int, float]:
    """By how much what reads each layer enlarges relative errors: coordinates of a GridSample, terms that cancel."""
    readers: dict[str, list[LayerObservation]] = {}
    for s in layers:
        for name in s.pair.reference.inputs:
            readers.setdefault(name, []).append(s)
    found: dict[int, float] = {}
    for s in layers:
        before = s.cumulative_error
        behind = [r.cumulative_error for n in s.pair.reference.outputs for r in readers.get(n, ())]
        grown = [after / before for after in behind if 0 < before < math.inf and after < math.inf]
        found[s.number] = max(1.0, *grown) if grown else 1.0
    return found


def _diagnosed(
    prepared: Prepared,
    walked: Walked,
    loud: Sequence[LayerObservation],
    quantized: Mapping[int, QuantizedLayer],
    failing: bool,
) -> LayerObservation:
    """The first of the layers that contribute most, with its diagnosis. ``failing``: whether an output fails."""
    index, top = prepared.comparison.reference.model.index, loud[0]
    shares = tuple((index.names[s.pair.main], s.contribution) for s in loud if s.contribution is not None)
    assert top.judgement is not None
    final = max((e for n in walked.outputs if (e := relative_error(walked.outputs[n])) < math.inf), default=0.0)
    outputs = set(top.pair.reference.outputs)
    readers = [p for n in outputs for p in index.consumers.get(n, ())]
    joins = None if top.number not in quantized else quantized[top.number].joins
    differ = prepared.judge.examiner.stated(top.pair) if failing and top.number not in quantized else ()
    case = LoudLayer(
        top.judgement,
        shares[0][1],
        IN_STEPS if prepared.judge.examiner.in_other_steps(top.pair) else _plain_rounding(prepared),
        shares,
        index.names[top.pair.main],
        index.nodes[top.pair.main].op_type,
        tuple(f"{index.names[p]} ({index.nodes[p].op_type})" for p in readers),
        any(index.nodes[p].input[i] in outputs for p in readers for i in facts_of(index.nodes[p]).coordinates),
        quantized.get(top.number),
        shares[0][1] * final / top.local_error,
        stated(index, beyond_formats(differ)) or (_cast(prepared, top) if failing else None),
        "" if joins is None else index.names[joins],
    )
    case = _with_siblings(prepared, case, loud)
    computing = prepared.candidate.runner.arithmetic
    narrow = None if computing.is_integer else underflow.of_weights(index, top.pair.reference.nodes, computing)
    if narrow is None and case.holds_most:
        narrow = underflow.of_epsilon(index, _lost(walked, top, computing), computing)
    other = _other_constants(prepared, top) if top.number in quantized else None
    return replace(top, diagnosis=narrow or other or _misread(prepared, top) or loudest(case))


def _with_siblings(prepared: Prepared, case: LoudLayer, loud: Sequence[LayerObservation]) -> LoudLayer:
    """The loudest layer with the one tensor that it computes from, and with the layers beside it that show the same
    weakness: of a tensor whose rounding is enlarged, who makes it and who reads it."""
    index, top = prepared.comparison.reference.model.index, loud[0]
    source = at = _source(index, top.pair)
    makers: list[int] = []
    while len(makers) < STEPS and at in index.producer:
        node = index.nodes[index.producer[at]]
        given = [n for n in node.input if n in index.producer]
        if operator(node) not in AFFINE_STEPS | MOVEMENT | CASTS or len(given) > 1:
            break
        makers.append(index.producer[at])
        at = given[0] if given else ""
    own = set(top.pair.reference.outputs)
    enlarging = [s for s in loud[1:] if s.local_error > ENLARGES * case.plain_rounding]
    beside = [s for s in enlarging if source and _source(index, s.pair) == source]
    behind = [s for s in enlarging if not own.isdisjoint(s.pair.reference.inputs)]
    before = [s for s in loud[1:] if s.pair.main in makers]
    return replace(
        case,
        source=source if source in index.producer else "",
        beside=tuple((index.names[s.pair.main], index.nodes[s.pair.main].op_type) for s in beside),
        same=frozenset(index.names[s.pair.main] for s in (*beside, *behind, *before)),
    )


def _source(index: GraphIndex, pair: LayerPair) -> str:
    """The one tensor of floating-point numbers that a layer computes from, as it is made before data movement; empty
    where there are several."""
    floats = [n for n in pair.reference.inputs if n in index.specs and is_float(index.specs[n].dtype)]
    return index.moved_from(floats[0], MOVEMENT) if len(floats) == 1 else ""


def _other_constants(prepared: Prepared, layer: LayerObservation) -> Diagnosis | None:
    """Constants of a quantized layer that are not stored in steps, and are the first file's with a plain change: zero,
    of another sign or order. No rounding makes that; what corrects the rounding of weights changes biases otherwise."""
    differ = prepared.judge.examiner.stated(layer.pair)
    changed = [(p, d, d.change) for p, d in differ if isinstance(d.change, WeightChange)]
    index = prepared.comparison.reference.model.index
    return stated(index, [(p, d) for p, d, change in changed if change.patterns and not change.in_steps])


def _misread(prepared: Prepared, layer: LayerObservation) -> Diagnosis | None:
    """What a layer reads with another scale than it was written with, unless the first file has a scaling there that
    the second has not: another scale is how that is done then."""
    changes = (d.change for _, d in prepared.judge.examiner.stated(layer.pair))
    if any(isinstance(change, OperatorChange) and change.alone for change in changes):
        return None
    graphs = prepared.comparison.reference.model.index, prepared.candidate.model.index
    return misread.of_layer(graphs, layer.pair)


def _shifted(prepared: Prepared, given: Verdicts) -> LayerObservation | None:
    """The first layer in which integers are read with another zero point than they are written with, if with the same
    scale, and the first file does not: all that is read is off by the same, however little rounding leaves of that."""
    if any(misreads(prepared.comparison.reference.model.index)):
        return None
    for s in given.layers:
        found = _misread(prepared, s)
        facts = [fact for fact in found.facts if isinstance(fact, misread.ReadOtherwise)] if found is not None else []
        if any(fact.found.written[0] == fact.found.read[0] for fact in facts):
            return replace(s, diagnosis=found)
    return None


def _coarse(prepared: Prepared, given: Verdicts, loud: Sequence[LayerObservation]) -> LayerObservation | None:
    """The first of the layers that contribute most in which a scale is far larger than its tensor needs, where those
    beside it fit theirs."""
    index, grids = prepared.comparison.reference.model.index, prepared.judge.noise.roundings.grids
    stored = [(s, name, one) for s in given.layers for name, one in grids.in_file(s.pair).stored.items()]
    taken = [coarse_scale.TakenOf(n, one, *s.ranges[n]) for s, n, one in stored if n in s.ranges]
    found = coarse_scale.coarse(index, taken)
    for s in (s for s in loud if found and (s.contribution or 0.0) >= coarse_scale.SHARE):
        read = (index.moved_from(n, MOVEMENT) for n in grids.in_file(s.pair).stored)
        name = next((n for n in (*grids.in_file(s.pair).stored, *read) if n in found), None)
        if name is not None:
            return replace(s, diagnosis=coarse_scale.diagnosis(index, found[name]))
    return None


def _cast(prepared: Prepared, layer: LayerObservation) -> Diagnosis | None:
    """What the candidate's file casts to a narrow format and back in a layer."""
    pairs = prepared.judge.noise.roundings.cast(layer.pair)
    return narrow_casts.of_layer(prepared.candidate.model.index, pairs)


def _plain_rounding(prepared: Prepared) -> float:
    """The relative error of a result that is rounded and nothing else."""
    usual = prepared.judge.noise.roundings.usual
    return max(usual.result, INT8_ROUNDING if usual.steps else 0.0)
