"""What the candidate's runtime refuses in each of several blocks, for one reason, is one fault, told once."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.differences import Difference, DifferenceKind
from ...graph.specs import is_float
from ..causes.differences import stated
from ..causes.refused import Refused, RefusedToo, cannot_run
from ..causes.shape import Shapes

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..causes.diagnosis import Diagnosis
    from .observation import LayerObservation
    from .prepare import Prepared
    from .verdicts import Verdicts


def joined(prepared: Prepared, given: Verdicts) -> Verdicts:
    """The verdicts with layers that the candidate refuses with the same words, names of nodes aside, as one culprit:
    the first, which tells of the others, and of what the graphs say of it.

    Args:
        prepared: Who was walked.
        given: The verdicts.
    """
    index = prepared.comparison.reference.model.index
    groups: dict[str, list[LayerObservation]] = {}
    for s in given.culprits():
        if s.refused is not None:
            groups.setdefault(_words(s, prepared), []).append(s)
    for first, *others in groups.values():
        diagnosis = _why(prepared, first, index)
        if others:
            diagnosis = diagnosis.adding(RefusedToo(tuple(index.names[s.pair.main] for s in others)))
        given = given.knowing([replace(first, diagnosis=diagnosis)]).inherited(s.number for s in others)
    behind = _behind_other_shapes(given)
    return given.inherited(s.number for s in given.culprits() if s.number in behind and _says_nothing_else(s))


def _behind_other_shapes(given: Verdicts) -> set[int]:
    """The layers that read what has another shape in the candidate's own run, as far as a culprit is why: that they
    take no tensor of the reference's shape is no fault of theirs."""
    culprits = {s.number for s in given.culprits() if s.diagnosis is not None and _gives_another_shape(s)}
    spoilt, behind = set[str](), set[int]()
    for s in given.layers:
        if not spoilt.isdisjoint(s.pair.reference.inputs):
            behind.add(s.number)
        if s.number in culprits or (s.number in behind and s.other_shape):
            spoilt.update(s.pair.reference.outputs)
    return behind


def _gives_another_shape(s: LayerObservation) -> bool:
    return s.diagnosis is not None and any(isinstance(fact, Shapes) for fact in s.diagnosis.facts)


def _says_nothing_else(s: LayerObservation) -> bool:
    """Whether nothing is told of a layer but that it is refused."""
    facts = () if s.diagnosis is None else s.diagnosis.facts
    return s.refused is not None and all(isinstance(fact, (Refused, RefusedToo)) for fact in facts)


def _words(s: LayerObservation, prepared: Prepared) -> str:
    """What was said of a layer, without the names of its nodes."""
    assert s.refused is not None
    names = set[str]()
    for index, part in (
        (prepared.comparison.reference.model.index, s.pair.reference),
        (prepared.candidate.model.index, s.pair.candidate),
    ):
        names |= {index.names[p] for p in part.nodes}
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)({known})(?!\w)", "", s.refused.message)


def _why(prepared: Prepared, s: LayerObservation, index: GraphIndex) -> Diagnosis:
    """That a layer is refused, and what the graphs say of it beside its weights, which no runtime refuses."""
    assert s.refused is not None
    refused = cannot_run((index, prepared.candidate.model.index), s.pair, s.refused)
    if len(refused.facts) > 1:  # a size that is baked in
        return refused
    told = stated(index, [(p, d) for p, d in prepared.judge.examiner.stated(s.pair) if _tells(d, index)])
    return refused if told is None else told.adding(*refused.facts)


def _tells(difference: Difference, index: GraphIndex) -> bool:
    """Whether a difference may be why a layer is refused: not one of weights that are floating-point numbers, nor of a
    setting that one of the graphs leaves open."""
    change = difference.change
    if isinstance(change, AttributeChange):
        return None not in (change.reference, change.candidate)
    if difference.kind is not DifferenceKind.WEIGHTS:
        return True
    read = (index.specs.get(name) for name in index.nodes[difference.node].input)
    return not all(spec is None or is_float(spec.dtype) for spec in read)
