"""Other operators: the candidate computes the layer with operators that the reference has not.

Looks at: the sets of operators on both sides, those that only carry values left out. Proves: that the two are not the
same computation; not, that the difference is a fault.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.operators import SILENT
from ...graph.pairing.changes import OperatorChange
from ...graph.pairing.differences import Difference, op_names
from ..report.model import Cause
from . import heads
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer
from .evidence import greatest_difference

if TYPE_CHECKING:
    from ...graph.index import GraphIndex


@dataclass(frozen=True)
class OtherOperators:
    """What the candidate computes a layer without, and with."""

    without: tuple[str, ...]
    using: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        what = []
        if self.without:
            what.append(f"without {', '.join(self.without)}")
        if self.using:
            what.append(f"with {', '.join(self.using)}{' instead' if self.without else ''}")
        return f"the candidate computes it {' and '.join(what) or 'with other operators'}"


@dataclass(frozen=True)
class OperatorsAlone(GraphsDiffer):
    """Operators that one side alone has in a layer, where the graphs, matched, say nothing of them."""


def signatures(case: LayerCase) -> tuple[list[str], list[str]]:
    """The operators that a layer is made of, in both graphs."""
    mine, theirs = case.graphs
    return _signature(mine, case.pair.reference.nodes), _signature(theirs, case.pair.candidate.nodes)


def _signature(index: GraphIndex, nodes: Sequence[int]) -> list[str]:
    return sorted({index.nodes[p].op_type for p in nodes} - (SILENT - {"Flatten", "Transpose"}))


def _alone(case: LayerCase, side: int, others: Collection[str]) -> tuple[int, ...]:
    """Nodes of a layer of one side whose operators the other one does not have in it, without what computes shapes."""
    index, part = case.graphs[side], (case.pair.reference, case.pair.candidate)[side]
    kinds = dataflow(index).kind
    nodes = (p for p in part.nodes if kinds.get(index.nodes[p].output[0]) is not Kind.CONSTANT)
    return tuple(p for p in nodes if index.nodes[p].op_type not in {*others, *SILENT})


def _tells(index: GraphIndex, nodes: Iterable[int]) -> bool:
    """Whether nodes are operators that stand for themselves: not several in one, nor the parts of what is split."""
    return all(not index.nodes[p].domain and len(index.nodes[p].output) == 1 for p in nodes)


def find(case: LayerCase) -> Diagnosis | None:
    """The operators that one side has and the other has not."""
    mine, theirs = signatures(case)
    if mine == theirs:
        return None
    ops = _alone(case, 0, theirs), _alone(case, 1, mine)
    if all(_tells(index, nodes) for index, nodes in zip(case.graphs, ops, strict=True)) and any(ops):
        names = (op_names(index, nodes) for index, nodes in zip(case.graphs, ops, strict=True))
        change = OperatorsAlone(
            Difference(case.pair.main, (case.pair.candidate.nodes or (-1,))[-1], OperatorChange(*names))
        )
        return Diagnosis(Cause.WRONG_OP, (change, greatest_difference(case)))
    other = OtherOperators(tuple(op for op in mine if op not in theirs), tuple(op for op in theirs if op not in mine))
    return Diagnosis(Cause.WRONG_OP, (*(heads.of_layer(case) or [other]), greatest_difference(case)))
