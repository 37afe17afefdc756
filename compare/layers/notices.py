"""What the user should know of a walk beside its layers and culprits."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from ...graph.cutting.dataflow import random_nodes
from ...graph.cutting.pieces import readable
from ...graph.operators import operator
from ...graph.quantized.misread import misread
from ..causes.feeding import schedule
from ..causes.misread import ReadOtherwise
from ..causes.one_kernel import shown_by
from ..causes.out_of_range import CarriedPast
from ..report.model import Cause
from ..runs.memory import free_memory
from . import texts
from .fidelity import made_by_pieces
from .healing import HEALED
from .loudest import is_off, no_result
from .observation import relative_error
from .prepare import STREAMS
from .silent_differences import silent_differences

if TYPE_CHECKING:
    from ..lockstep.plan import LayerPair
    from ..report.model import Culprit, Notice, OutputResult
    from .observation import LayerObservation
    from .prepare import Prepared
    from .verdicts import Verdicts
    from .walked import Walked

NAMED = 3
"""How many layers a notice names."""


def walk_notices(
    prepared: Prepared,
    walked: Walked,
    given: Verdicts,
    culprits: Sequence[Culprit],
    outputs: Sequence[OutputResult],
) -> Iterator[Notice]:
    """What the user should know of one candidate.

    Args:
        prepared: Who was walked.
        walked: What the walk saw.
        given: The verdicts on the layers.
        culprits: Who is to blame.
        outputs: What the candidate's outputs showed.
    """
    who = prepared.candidate.name
    names = prepared.comparison.reference.model.index.names
    yield from _too_large(prepared)
    yield from walked.notices
    for c in walked.collisions:
        op = prepared.comparison.reference.model.index.nodes[c.position].op_type
        yield texts.updates_collide(who, f"{names[c.position]} ({op})", c.updates, c.places, c.adds)
    loud = [c for c in culprits if c.cause is not Cause.SPREAD and c.deployed is not False]
    if loud and outputs and all(output.verdict == "pass" for output in outputs):
        yield texts.outputs_agree(who, [c.node for c in loud[:NAMED]], len(loud))
    if prepared.plan.unmatched:
        yield _no_counterpart(prepared)
    index = prepared.comparison.reference.model.index
    yield from _healed(prepared, walked, given, culprits, outputs)
    yield from _one_kernel(prepared, given)
    yield from _read_otherwise(prepared, culprits)
    silent = list(silent_differences(prepared, given, culprits))
    for position, difference in silent[:1]:
        node = f"{index.nodes[position].op_type} {names[position]}"
        yield texts.other_number(who, node, difference.detail, len(silent) - 1)
    closed = [(names[s.pair.main], s.not_built.text) for s in given.layers if s.not_built is not None]
    for layer, what in closed[:1]:
        yield texts.layer_not_built(who, layer, len(closed) - 1, what)
    empty = None if culprits else no_result(given.layers, outputs)
    if empty is not None and empty.diagnosis is not None:
        yield texts.no_result(who, names[empty.pair.main], empty.diagnosis.facts[0].text)
    random = set(random_nodes(index))
    drawn = [_drawing(s.pair, random) for s in given.layers if s.pair.random]
    if drawn:
        yield texts.random_values(who, names[drawn[0]], len(drawn) - 1, operator(index.nodes[drawn[0]]) == "Dropout")
    unknown = [s.pair for s in given.layers if s.judgement is not None and not s.judgement.known]
    if unknown:
        why = prepared.judge.noise.why_unknown(unknown[0])
        yield texts.noise_unknown(who, names[unknown[0].main], len(unknown), why)
    yield from _fed_otherwise(prepared, given)
    yield from _branches(prepared, given)


def _healed(
    prepared: Prepared,
    walked: Walked,
    given: Verdicts,
    culprits: Sequence[Culprit],
    outputs: Sequence[OutputResult],
) -> Iterator[Notice]:
    """Tensors that are off and change nothing: see `walk_notices`."""
    who, index = prepared.candidate.name, prepared.comparison.reference.model.index
    names = index.names
    off = [s for s in given.layers if given.by_layer[s.number] == "healed"]
    healed = [s for s in off if not made_by_pieces(s, walked, outputs, index)]  # of those `fidelities` tells
    clamped = [s for s in healed if s.diagnosis is not None and s.diagnosis.clamped]
    torn = _contradicting(prepared, healed)
    if torn:
        reference = prepared.comparison.reference.name
        given_there = dict.fromkeys(n for s in torn for n in s.pair.reference.inputs if n in _made(healed))
        made = dict.fromkeys(n for s in torn for n in s.pair.reference.outputs)
        yield texts.contradicts_itself(reference, [*given_there], [*made], who)
    elif len(healed) > len(clamped):
        yield texts.healed(who, len(healed) - len(clamped))
    told = {node for c in culprits for f in c.facts if isinstance(f, CarriedPast) for node in f.found.heals}
    clamped = [s for s in clamped if names[s.pair.main] not in told]
    for s in clamped[:1]:
        facts = () if s.diagnosis is None else s.diagnosis.facts
        what, agree = facts[0].text if facts else "values are clamped", not any(map(is_off, outputs))
        yield texts.clamped(who, names[s.pair.main], what, len(clamped) - 1, agree)


def _contradicting(prepared: Prepared, healed: Sequence[LayerObservation]) -> list[LayerObservation]:
    """Layers of a network that was not run but recorded, whose results as recorded do not follow from what they read as
    recorded, where the other side, run by itself, makes the same results: what they read is not what made these."""
    if prepared.comparison.reference.runner.capabilities.computes:
        return []
    right = (s for s in healed if s.cumulative_error <= HEALED * s.local_error)
    return [s for s in right if not _made(healed).isdisjoint(s.pair.reference.inputs)]


def _made(layers: Sequence[LayerObservation]) -> set[str]:
    return {name for s in layers for name in s.pair.reference.outputs}


def _one_kernel(prepared: Prepared, given: Verdicts) -> Iterator[Notice]:
    """Layers that are right only as long as each is one kernel."""
    index = prepared.comparison.reference.model.index
    fused = [s for s in given.layers if s.fused is not None and given.by_layer[s.number] != "culprit"]
    if fused and fused[0].fused is not None:
        by = shown_by(index, fused[0].pair.reference.nodes, prepared.candidate.runner.arithmetic.name)
        layers = [index.names[s.pair.main] for s in fused]
        yield texts.hold_as_one_kernel(prepared.candidate.name, layers, fused[0].fused.text, by)


def _drawing(pair: LayerPair, random: Collection[int]) -> int:
    """The node of a layer that draws random values."""
    return next((p for p in pair.reference.nodes if p in random), pair.main)


def _fed_otherwise(prepared: Prepared, given: Verdicts) -> Iterator[Notice]:
    """Where two ways of feeding one network part first, rounding included."""
    reference, index = prepared.comparison.reference, prepared.comparison.reference.model.index
    fed = schedule(reference, prepared.candidate)
    who = reference.name if reference.runner.schedule else prepared.candidate.name
    for s in given.layers if fed else ():
        most = max((float(seen.metrics()["max_abs"] or 0.0) for seen in s.local.values()), default=0.0)
        if most:
            layer = f"{index.names[s.pair.main]} ({index.nodes[s.pair.main].op_type})"
            yield texts.depends_on_feeding(who, fed, layer, most)
            return


def _read_otherwise(prepared: Prepared, culprits: Sequence[Culprit]) -> Iterator[Notice]:
    """Integers that are written with one scale and read with another, which no culprit tells of, nor is."""
    told = {fact.found.tensor for c in culprits for fact in c.facts if isinstance(fact, ReadOtherwise)}
    index, blamed = prepared.candidate.model.index, {c.candidate_node or c.node for c in culprits}
    left = [m for m in misread(index) if m.tensor not in told]
    left = [m for m in left if blamed.isdisjoint({index.names[m.writer], index.names[m.reader]})]
    found = [ReadOtherwise.of(index, one) for one in left]
    if found:
        yield texts.read_otherwise(prepared.candidate.name, found[0].text, len(found) - 1)


def _no_counterpart(prepared: Prepared) -> Notice:
    """What was not compared: of one file, the tensors that a side with a network of its own has no values of."""
    who, unmatched = prepared.candidate.name, prepared.plan.unmatched
    sides = (prepared.comparison.reference, prepared.candidate)
    lacks = next((s.name for s in sides if not s.runner.capabilities.pieces), "") if prepared.same else ""
    return texts.no_counterpart(who, unmatched, "the file", lacks) if lacks else texts.no_counterpart(who, unmatched)


def _too_large(prepared: Prepared) -> Iterator[Notice]:
    """What memory would do, where pieces that cannot be cut are larger than it allows, or than there is."""
    layout = prepared.plan
    if not layout.too_large:
        return
    worst = max(layout.too_large, key=lambda piece: piece.activations + piece.weights)
    needed = STREAMS * (worst.activations + worst.weights)
    asked = prepared.comparison.rules.memory
    if asked is None and needed <= int(min(free_memory(), sys.maxsize)):
        return
    names = prepared.comparison.reference.model.index.names
    layer = " to ".join(dict.fromkeys([names[worst.nodes[0]], names[worst.nodes[-1]]]))
    allowed = f"The free memory, {readable(int(free_memory()))}," if asked is None else f"--memory, {readable(asked)},"
    others = len(layout.too_large) - 1
    rest = f" {others} more of {layout.pieces} pieces are too large." if others else ""
    yield texts.layer_too_large(prepared.candidate.name, allowed, readable(needed), STREAMS, layer, rest)


def _branches(prepared: Prepared, given: Verdicts) -> Iterator[Notice]:
    """Conditions that come out otherwise when the candidate runs on its own values."""
    index = prepared.comparison.reference.model.index
    for s in given.layers:
        for name in (n for n, seen in s.cumulative.items() if relative_error(seen)):
            readers = [p for p in index.consumers.get(name, ()) if index.nodes[p].op_type == "If"]
            chosen = [index.names[p] for p in readers if index.nodes[p].input[0] == name]
            if chosen:
                yield texts.other_branch(prepared.candidate.name, chosen[0], name)
