"""Tensors inside a layer that is written otherwise, which stand for each other: the layer can be taken apart there.

Looks at: what both sides have inside a layer that they are given the same values for, and what the candidate makes of
the layer once it is given the reference's value of one of them. Proves: where both have the same, that all before is
right; where the layer is right with the reference's value in place of the candidate's, that all behind is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.dataflow import dataflow
from ...graph.pairing.changes import OperatorChange
from ...graph.pairing.differences import Difference, op_names
from ...graph.specs import Arrays, held
from ..report.model import Cause
from .bound import BoundBroken
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer, replaced
from .operators import OtherOperators
from .same_functions import SameFunctions
from .scale import Fit, FitByChannel
from .undoing import with_constants

if TYPE_CHECKING:
    from ..lockstep.plan import LayerPair
    from ..report.model import Fact

ROUNDED = 8
"""Roundings to the candidate's format up to which a tensor inside both sides is the same one."""
FINEST = 2.0**-22
"""Least difference, relative to the whole tensor, up to which it is: sums in another order."""
FEWEST = 8
"""Values from which on a tensor is one that can be told from others."""
MOST = 24
"""Most tensors that the candidate is given to see whether the rest is right."""


def can_be_cut(case: LayerCase, found: Diagnosis) -> bool:
    """Whether both sides compute a layer with other operators, and no more is known of it than that, or how what it
    makes differs."""
    first = found.facts[0] if found.facts else None
    fitted = isinstance(first, (Fit, FitByChannel, BoundBroken)) or found.cause in (Cause.UNKNOWN, Cause.LAYOUT)
    return replaced(case) and (fitted or (first is not None and names_operators(first)))


def names_operators(fact: Fact, *, alone: bool = False) -> bool:
    """Whether a fact says which other operators both sides compute a layer with, and no more; with ``alone``, or which
    ones one of them alone has."""
    if isinstance(fact, GraphsDiffer):
        change = fact.difference.change
        return isinstance(change, OperatorChange) and (alone or not change.alone)
    return isinstance(fact, (OtherOperators, SameFunctions))


def find(case: LayerCase) -> dict[str, str]:
    """Tensors of the reference inside a layer that both sides compute with other operators -> those of the candidate
    that stand for them."""
    mine, theirs = (
        {name: value for name, value in found.items() if _tells(value) and not dataflow(index).recomputed(name)}
        for index, found in zip(case.graphs, (case.inner, case.candidate_inner), strict=True)
    )
    same: dict[str, str] = {}
    for name, value in mine.items():
        twin = next((n for n in reversed(theirs) if n not in same.values() and alike(case, value, theirs[n])), None)
        if twin is not None:
            same[name] = twin
    rest = [(name, value) for name, value in mine.items() if name not in same]
    found = _behind_it_all_is_right(case, rest, {n: v for n, v in theirs.items() if n not in same.values()})
    return {**same, **dict(found)}


def narrowed(case: LayerCase, whole: LayerPair) -> LayerCase:
    """A layer that is part of one which both sides compute with other operators: with those of the part alone.

    Args:
        case: The part.
        whole: What it is part of.
    """
    names = [
        op_names(index, (p for p in part.nodes if not dataflow(index).recomputed(index.nodes[p].output[0])))
        for index, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    ]
    found = [(p, d) for p, d in case.differences if not isinstance(d.change, OperatorChange) or d.change.alone]
    mine, theirs = (sorted(op for op, _ in ops) for ops in names)
    if mine != theirs:
        place = case.pair.main, case.graphs[1].producer[case.twin]
        found.append((case.pair.main, Difference(*place, OperatorChange(*names))))
    return replace(case, differences=tuple(found), whole=whole)


def _behind_it_all_is_right(
    case: LayerCase, mine: Iterable[tuple[str, np.ndarray]], theirs: Arrays
) -> Iterator[tuple[str, str]]:
    """The first tensor that the candidate has to be given for the layer to be right, and what it is there."""
    specs, tried = case.graphs[1].specs, 0
    for name, value in mine:
        for twin in (n for n, other in theirs.items() if other.shape == value.shape):
            if tried == MOST:
                return
            tried += 1
            if case.right_with(partial(with_constants, others={twin: held(value, specs.get(twin))})):
                yield name, twin
                return


def _tells(value: np.ndarray) -> bool:
    """Whether a tensor holds enough to be told from another one."""
    return value.size >= FEWEST and bool(np.isfinite(value).all()) and bool(np.ptp(value) > 0)


def alike(case: LayerCase, value: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tensors are one, up to rounding."""
    if value.shape != other.shape:
        return False
    wide, narrow = value.astype(np.float64), other.astype(np.float64)
    most = ROUNDED * max(case.formats.candidate.u, FINEST)
    return float(np.linalg.norm(narrow - wide)) <= most * float(np.linalg.norm(wide))
