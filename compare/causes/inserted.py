"""Nodes that one side alone has behind what both make: the candidate does something more, or leaves something out.

Looks at: what both sides have inside a layer that an operator with a state makes, or that they compute with other
operators. Proves: where the candidate has inside what it should give, that the nodes behind are wrong; where it gives
what the reference has inside, that what the reference has behind is missing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.dataflow import dataflow
from ...graph.cutting.slices import backward
from ...graph.operators import RECURRENT, operator
from ...graph.printable import being
from .case import LayerCase
from .counterparts import alike
from .differences import moves_alone, replaced
from .inverted_condition import LEFT
from .other_operand import named_in_order

if TYPE_CHECKING:
    from ...graph.cutting.slices import Slice
    from ...graph.index import GraphIndex


@dataclass(frozen=True)
class InsertedBehind:
    """Nodes that one side alone has.

    Attributes:
        nodes: Operator and name of each.
        behind: The operator and the name of the candidate's node before them.
        missing: Whether it is the candidate that does not have them.
    """

    nodes: tuple[tuple[str, str], ...]
    behind: tuple[str, str]
    missing: bool = False

    @property
    def text(self) -> str:
        """See `Fact`."""
        if self.missing:
            return f"{self._names} missing in the candidate behind {' '.join(self.behind)}"
        return f"{self._names} in the candidate alone; {' '.join(self.behind)} before that gives what it should"

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.missing:
            put = f"put the first file's {named_in_order(self.nodes)}"
            return f"{put} behind {' '.join(self.behind)} in the second file"
        return f"leave {named_in_order(self.nodes)} out of the second file"

    @property
    def _names(self) -> str:
        return being([f"{op} {name}" for op, name in self.nodes])


@dataclass(frozen=True)
class Behind:
    """Nodes of one side behind what both make.

    Attributes:
        nodes: Their positions in its graph.
        fact: What is told of them.
    """

    nodes: tuple[int, ...]
    fact: InsertedBehind


def find(case: LayerCase) -> Behind | None:
    """What one side alone has behind what both make; None where that is not all that is wrong."""
    index, other = case.graphs
    keeps = operator(index.nodes[index.producer.get(case.tensor, -1)]) in RECURRENT
    if index is other or not (keeps or replaced(case) or moves_alone(case)):
        return None
    mine, theirs = (
        Counter(operator(graph.nodes[p]) for p in part.nodes)
        for graph, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    )
    if theirs - mine:
        same = next(
            (name for name, value in reversed([*case.candidate_inner.items()]) if _is(case, case.y, value)), None
        )
        moved = () if same is None else _behind(other, case.pair.candidate, same, case.twin)
        if same is not None and moved:
            return Behind(moved, InsertedBehind(_named(other, moved), _named(other, [other.producer[same]])[0]))
    if mine - theirs and not keeps:
        given = {name: case.values[name] for name in case.pair.reference.inputs if name in case.values}
        known = {**(given if moves_alone(case) else {}), **case.inner}
        same = next((name for name, value in known.items() if _is(case, case.c, value)), None)
        moved = () if same is None else _behind(index, case.pair.reference, same, case.tensor)
        if moved:
            made = _named(other, [other.producer[case.twin]])[0]
            return Behind(moved, InsertedBehind(_named(index, moved), made, missing=True))
    return None


def _is(case: LayerCase, made: np.ndarray, value: np.ndarray) -> bool:
    """Whether a tensor inside is what one side makes, up to rounding, and the error of the layer is far more."""
    if not alike(case, made, value) or case.y.shape != case.c.shape:
        return alike(case, made, value)
    left, error = (float(np.linalg.norm((a - b).ravel())) for a, b in (_wide(value, made), _wide(case.c, case.y)))
    return not left > LEFT * error


def _wide(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return one.astype(np.float64), other.astype(np.float64)


def _behind(index: GraphIndex, part: Slice, same: str, output: str) -> tuple[int, ...]:
    """The nodes of a layer between a tensor inside and what it gives."""
    before = backward(index, [same], set(part.inputs)).nodes
    moved = (p for p in backward(index, [output], {same, *part.inputs}).nodes if p not in before)
    return tuple(p for p in moved if not dataflow(index).recomputed(index.nodes[p].output[0]))


def _named(index: GraphIndex, nodes: tuple[int, ...] | list[int]) -> tuple[tuple[str, str], ...]:
    return tuple((index.nodes[p].op_type, index.names[p]) for p in nodes)
