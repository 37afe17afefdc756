"""Scaled integers that one node of the candidate's file writes with one scale or zero point, and another one reads with
another.

Looks at: the scales and zero points of the integers that the layer's nodes write and read. Proves: that a value does
not come out as it went in, whatever the ranges are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import operator
from ...graph.pairing.differences import Difference, DifferenceKind, node_differences
from ...graph.pairing.normal_form import normal_form
from ...graph.quantized.idle import idle_quantizers, numbers_held
from ...graph.quantized.misread import Misread, misread
from ..report.model import Cause, Fact
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import stated

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..lockstep.plan import LayerPair


@dataclass(frozen=True)
class ReadOtherwise:
    """A tensor that is read as other numbers than were written.

    Attributes:
        found: Where.
        writer, reader: Operators and names of the nodes.
    """

    found: Misread
    writer: str
    reader: str

    @classmethod
    def of(cls, index: GraphIndex, found: Misread) -> ReadOtherwise:
        """A tensor of a graph, with what its nodes are called."""
        writer, reader = (f"{index.nodes[p].op_type} {index.names[p]}" for p in (found.writer, found.reader))
        return cls(found, writer, reader)

    @property
    def text(self) -> str:
        """See `Fact`."""
        (scale, zero), (other, its_zero) = self.found.written, self.found.read
        return (
            f"{self.writer} writes '{self.found.tensor}' with scale {scale:.6g} and zero point {zero}, and "
            f"{self.reader} reads it with scale {other:.6g} and zero point {its_zero}"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """A tensor that the layer writes and that is misread; or that it misreads, where who writes it is to blame."""
    return of_layer(case.graphs, case.pair)


def of_layer(graphs: tuple[GraphIndex, GraphIndex], pair: LayerPair) -> Diagnosis | None:
    """The same of a layer, whatever its error.

    Args:
        graphs: The reference's and the candidate's.
        pair: The layer.
    """
    index, nodes, given = graphs[1], set(pair.candidate.nodes), pair.reference.inputs
    for found in misread(index):
        if found.reader in nodes and _reader_at_fault(graphs, pair, found):
            told = stated(graphs[0], _differences(graphs, pair, found))
            return told or Diagnosis(Cause.SCALE, (ReadOtherwise.of(index, found),), candidate_node=found.reader)
    if not any(index.nodes[p].op_type == "QuantizeLinear" or "QLinear" in index.nodes[p].op_type for p in nodes):
        return None
    for found in misread(index):
        if found.writer in nodes or found.reader in nodes:
            elsewhere = found.writer not in nodes and len(given) == 1 and given[0] not in graphs[0].inputs
            together = (found, *(m for m in misread(index) if m.reader == found.reader and m is not found))
            facts = tuple(ReadOtherwise.of(index, one) for one in together)
            return Diagnosis(Cause.SCALE, facts, producer=given[0] if elsewhere else None)
    return None


def _reader_at_fault(graphs: tuple[GraphIndex, GraphIndex], pair: LayerPair, found: Misread) -> bool:
    """Whether who writes integers does so as in the reference, and who reads them makes other floats of them."""
    held, written = numbers_held(graphs[0]), numbers_held(graphs[1]).get(found.tensor)
    near = (held.get(name) for name in (*pair.reference.inputs, *pair.reference.outputs))
    return operator(graphs[1].nodes[found.reader]) == "DequantizeLinear" and written is not None and written in near


def _differences(
    graphs: tuple[GraphIndex, GraphIndex], pair: LayerPair, found: Misread
) -> list[tuple[int, Difference]]:
    """What differs between the reader and the node of the reference that makes the floats there."""
    index, other = graphs
    twin = _twin(index, pair, behind=other.nodes[found.reader].output[0] in pair.candidate.outputs)
    if twin is None:
        return []
    mine, theirs = normal_form(index, twin), normal_form(other, found.reader)
    differences = node_differences(index, twin, mine, other, found.reader, theirs)
    return [(twin, d) for d in differences if d.kind is DifferenceKind.WEIGHTS]


def _twin(index: GraphIndex, pair: LayerPair, *, behind: bool) -> int | None:
    """The node of the reference that makes floats of integers in a layer; of what it makes where that is ``behind``,
    else of what it is given."""
    around = [] if behind else [index.producer.get(name, -1) for name in pair.reference.inputs]
    nodes = [p for p in (*pair.reference.nodes, *around) if p >= 0 and operator(index.nodes[p]) == "DequantizeLinear"]
    makers = [p for p in nodes if index.nodes[p].output[0] in numbers_held(index)]
    if makers:
        return makers[0] if len(makers) == 1 else None
    waiting = list(pair.reference.outputs) if behind else []
    while waiting:
        for position in idle_quantizers(index) & {*index.consumers.get(waiting.pop(), ())}:
            if operator(index.nodes[position]) == "DequantizeLinear":
                return position
            waiting.extend(index.nodes[position].output)
    return None


def remedy(facts: Iterable[Fact]) -> str:
    """What puts right who misreads what others write: each tensor; empty where nobody does."""
    found = [fact for fact in facts if isinstance(fact, ReadOtherwise)]
    told = [
        f"'{f.found.tensor}' with scale {f.found.written[0]:.6g} and zero point {f.found.written[1]}" for f in found
    ]
    return f"let {found[0].reader} read {' and '.join(told)}, as they are written" if found else ""
