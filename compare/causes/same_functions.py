"""Other operators that may compute the same: with other constants inside, it is these that are wrong.

Looks at: the operators of a layer on both sides, those of bodies among them. Proves nothing: what only moves data, adds
or multiplies can be written with other operators of that kind, whose constants have to be the right ones then; what is
left of both sides without these, activations above all, is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.index import GraphIndex
from ...graph.nodes import subgraphs
from ...graph.operators import (
    AFFINE_STEPS,
    CONTROL_FLOW,
    MOVEMENT,
    NORMALIZING_REDUCTIONS,
    OPERATORS,
    PRODUCTS,
    facts_of,
    operator,
)
from ...graph.operators import Kind as OperatorKind
from ...graph.pairing.changes import OperatorChange
from ...graph.pairing.constants import constant_value
from ...graph.printable import counted
from ...graph.specs import is_float
from .case import LayerCase

REWRITTEN = MOVEMENT | AFFINE_STEPS | PRODUCTS | CONTROL_FLOW | {"Cast", "Constant"}
"""What other operators take the place of, with constants of their own: what moves data, adds and multiplies."""


@dataclass(frozen=True)
class SameFunctions:
    """Operators that may compute what the reference's do, and read constants.

    Attributes:
        reader: The first that does: its operator and name.
        others: How many more do.
    """

    reader: tuple[str, str]
    others: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        reader = " ".join(filter(None, self.reader))
        others = f" or of {counted(self.others, 'other')}" if self.others else ""
        return f"these may compute the same: then a constant inside is wrong, that of {reader}{others}"

    @property
    def remedy(self) -> str:
        """What to do."""
        return (
            "compare the constants of the second file's operators with those of the first file's, or put the first "
            "file's operators there"
        )


def find(case: LayerCase) -> SameFunctions | None:
    """Whether the candidate computes a layer with operators that may do the same, and read constants."""
    changes = [d.change for _, d in case.differences if isinstance(d.change, OperatorChange)]
    if not changes or any(change.alone or change.in_another_order for change in changes):
        return None
    mine, theirs = (
        [index.nodes[p] for p in part.nodes if not _constant(index, p)]
        for index, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    )
    pieces = any(map(_in_pieces, (*mine, *theirs)))
    if _functions(mine, pieces) != _functions(theirs, pieces):
        return None
    least = 1 if pieces else 2  # the epsilon of a normalization is one value
    named = {name for change in changes for _, name in change.candidate}
    index, part = case.graphs[1], case.pair.candidate
    changed = [index.nodes[p] for p in part.nodes if index.names[p] in named]
    read = [node for node in changed if operator(node) in PRODUCTS | AFFINE_STEPS]
    readers = [node for node in read if _weighted(case.graphs[1], node, least)]
    readers.sort(key=lambda node: operator(node) not in PRODUCTS)
    return SameFunctions((readers[0].op_type, readers[0].name), len(readers) - 1) if readers else None


def replaced_by_others(case: LayerCase) -> bool:
    """Whether the graphs say that one side computes an error function where the other one computes functions that no
    error function can be written with: what these multiply and add is no scale."""
    changes = [d.change for _, d in case.differences if isinstance(d.change, OperatorChange)]
    sides = [[{op for op, _ in ops} - REWRITTEN for ops in (c.reference, c.candidate)] for c in changes]
    return any(_is_other(mine, theirs) or _is_other(theirs, mine) for mine, theirs in sides)


def _is_other(mine: set[str], theirs: set[str]) -> bool:
    known = [OPERATORS[op] for op in theirs if op in OPERATORS]
    functions = any(
        facts.kind in (OperatorKind.ACTIVATION, OperatorKind.FUNCTION, OperatorKind.EXACT) for facts in known
    )
    written = theirs & {"Erf", "Gelu"} or any(facts.family == "Gelu" for facts in known)
    return "Erf" in mine and functions and not written


def _constant(index: GraphIndex, position: int) -> bool:
    kind = dataflow(index).kind
    return all(kind.get(name) is Kind.CONSTANT for name in index.nodes[position].output if name)


def _in_pieces(node: onnx.NodeProto) -> set[str]:
    """What the pieces of a Softmax or a normalization hold but reductions, sums and products; else nothing."""
    kind = facts_of(node).kind
    if kind is OperatorKind.SOFTMAX:
        return {"Exp"}
    return {"Sqrt"} if kind is OperatorKind.NORMALIZATION and operator(node) not in AFFINE_STEPS else set()


def _functions(nodes: Iterable[onnx.NodeProto], pieces: bool) -> set[str]:
    """The operators of nodes, and of those in their bodies, that no others take the place of.

    Args:
        nodes: The nodes.
        pieces: Whether one side has a Softmax or a normalization, which the other may have in pieces.
    """
    found = {op for node in _all(nodes) for op in _in_pieces(node) or {operator(node)}} - REWRITTEN
    return found - NORMALIZING_REDUCTIONS - {"Pow", "Reciprocal"} if pieces else found


def _all(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _all(body.node)


def _weighted(index: GraphIndex, node: onnx.NodeProto, least: int) -> bool:
    """Whether a node reads constants of no fewer values than ``least``."""
    values = (constant_value(index, name) for name in node.input if name)
    return any(value is not None and value.size >= least and is_float(value.dtype) for value in values)
