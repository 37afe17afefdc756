"""What a runtime disregards of each node of an operator is one fault, told once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..causes.disregarded import Disregarded
from .moved_together import SameAt

if TYPE_CHECKING:
    from .observation import LayerObservation
    from .verdicts import Verdicts


def joined(given: Verdicts) -> Verdicts:
    """The verdicts with layers of which a runtime disregards the same as one culprit: the first, which tells of all.

    Args:
        given: The verdicts.
    """
    groups: dict[tuple[str, str], list[tuple[LayerObservation, Disregarded]]] = {}
    for s in given.culprits():
        for fact in s.diagnosis.facts if s.diagnosis is not None else ():
            if isinstance(fact, Disregarded):
                groups.setdefault((fact.op, fact.what), []).append((s, fact))
    for (first, _), *others in groups.values():
        if others and first.diagnosis is not None:
            told = first.diagnosis.adding(SameAt(tuple(fact.told for _, fact in others)))
            given = given.knowing([replace(first, diagnosis=told, contribution=None)])
            given = given.inherited(s.number for s, _ in others if s.number != first.number)
    return given
