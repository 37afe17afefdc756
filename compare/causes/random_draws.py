"""Other draws: a layer that draws random values, and is told to draw others.

Looks at: what the graphs say of a layer that draws random values. Its values differ from one run to the next and cannot
be compared, so that nothing else tells of it. Proves: that the candidate draws from another distribution, or nothing at
all, or where it also computes, that it was told to compute something else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ...graph.cutting.dataflow import random_nodes
from ...graph.operators import RANDOM
from ...graph.pairing.changes import OperatorChange
from .differences import beyond_formats, stated

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.pairing.differences import Difference
    from .diagnosis import Diagnosis


def find(index: GraphIndex, found: Sequence[tuple[int, Difference]]) -> Diagnosis | None:
    """What the graphs say of a layer that draws random values. None where they say the same, or have operators that
    may come to the same: a normal distribution that is scaled by a Mul, a Dropout that is written out.

    Args:
        index: The reference's graph.
        found: Positions in it, and what differs there.
    """
    beyond = beyond_formats(found)
    drawing = {index.names[p] for p in random_nodes(index)}
    changes = [d.change for _, d in beyond if isinstance(d.change, OperatorChange)]
    told = (_draws_otherwise(change) or _draws_nothing(change, drawing) for change in changes)
    return stated(index, beyond) if all(told) else None


def _draws_nothing(change: OperatorChange, drawing: Collection[str]) -> bool:
    """Whether the candidate has nothing in the place of nodes of which one draws: a Dropout in training mode."""
    return not change.candidate and any(name in drawing for _, name in change.reference)


def _draws_otherwise(change: OperatorChange) -> bool:
    """Whether one random operator stands in the place of another one."""
    return not change.alone and all(op in RANDOM for op, _ in (*change.reference, *change.candidate))
