"""One movement of data that is written as several layers is one fault: a roll along two axes, of Slices and Concats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.cutting.fusion import static_tensors
from ...graph.operators import MOVEMENT, operator
from ...graph.pairing.differences import op_names
from ..causes.differences import GraphsDiffer

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from .observation import LayerObservation
    from .verdicts import Verdicts


def joined(given: Verdicts, index: GraphIndex) -> Verdicts:
    """The verdicts with culprits that only move data, one right behind the other, and in which the same differs, as one
    fault at the first of them, which tells of all.

    Args:
        given: The verdicts.
        index: The reference's graph.
    """
    groups: list[list[LayerObservation]] = []
    for s in (s for s in given.culprits() if _moves(s, index)):
        home = next((group for group in groups if _behind(s, group[-1]) and _changes(s) == _changes(group[-1])), None)
        if home is None:
            groups.append([s])
        else:
            home.append(s)
    for first, *others in groups:
        if others and first.diagnosis is not None:
            facts = [fact for s in others for fact in _facts(s, index)]
            shares = [s.contribution for s in (first, *others) if s.contribution is not None]
            diagnosis = first.diagnosis.adding(*facts)
            first = replace(first, diagnosis=diagnosis, contribution=max(shares, default=None))
            given = given.knowing([first]).inherited(s.number for s in others)
    return given


def _moves(s: LayerObservation, index: GraphIndex) -> bool:
    """Whether a layer only moves data, and all that is told of it is what the graphs say."""
    static = static_tensors(index)
    nodes = [p for p in s.pair.reference.nodes if not static.issuperset(filter(None, index.nodes[p].output))]
    told = s.diagnosis is not None and all(isinstance(fact, GraphsDiffer) for fact in s.diagnosis.facts)
    return told and not s.inside.culprits and all(operator(index.nodes[p]) in MOVEMENT for p in nodes)


def _behind(s: LayerObservation, before: LayerObservation) -> bool:
    """Whether a layer reads what another one makes, and nothing else."""
    return set(s.pair.reference.inputs) <= set(before.pair.reference.outputs)


def _told(s: LayerObservation) -> Sequence[GraphsDiffer]:
    return [fact for fact in (s.diagnosis.facts if s.diagnosis else ()) if isinstance(fact, GraphsDiffer)]


def _changes(s: LayerObservation) -> list[str]:
    """What differs in a layer, wherever that is."""
    return sorted(fact.difference.detail for fact in _told(s))


def _facts(s: LayerObservation, index: GraphIndex) -> Sequence[GraphsDiffer]:
    """What differs in a layer, each with its node."""
    named = (" ".join(op_names(index, (fact.difference.node,))[0]) for fact in _told(s))
    return [replace(fact, node=name) for fact, name in zip(_told(s), named, strict=True)]
