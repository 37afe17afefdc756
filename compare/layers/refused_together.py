"""What the candidate's runtime refuses in each of several blocks, for one reason, is one fault, told once."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.pairing.changes import AttributeChange
from ...graph.pairing.differences import Difference, DifferenceKind
from ...graph.specs import is_float
from ..causes.differences import stated
from ..causes.refused import RefusedToo, cannot_run

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
    return given


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
