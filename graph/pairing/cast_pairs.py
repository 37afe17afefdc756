"""Tensors that one file casts to FP16 or BF16 and back, and the other file has as they are.

An export under autocast leaves such pairs of Casts behind. They round a tensor that both files have, as the types of a
graph do; a Cast of what only one of them computes, such as a part of a sum, is another way to compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..formats import BF16, BY_DTYPE, FP16, NumberFormat
from ..specs import dtype_name
from .matcher import match_nodes

if TYPE_CHECKING:
    from ..index import GraphIndex


@dataclass(frozen=True)
class CastPair:
    """A tensor that is cast to a narrow format and back.

    Attributes:
        source: The tensor.
        narrow: What the first Cast makes of it.
        format: The format.
        cast: Name of the first Cast.
        maker: Name of the node that makes the tensor; of one that is an input, its own.
    """

    source: str
    narrow: str
    format: NumberFormat
    cast: str
    maker: str


def cast_pairs(reference: GraphIndex, candidate: GraphIndex) -> tuple[CastPair, ...]:
    """The tensors of a graph that are cast to FP16 or BF16 and back; none where one of them is not a tensor of the
    other graph, too, or the other graph has such Casts itself.

    Args:
        reference: The graph that has the tensors as they are.
        candidate: The graph that casts them.
    """
    found = _pairs(candidate)
    if not found or _pairs(reference):
        return ()
    pairing = match_nodes(reference, candidate)
    if pairing.c.index is not candidate:  # the float form of scaled integers
        return ()
    matched = {name for m in pairing.nodes.values() for name in candidate.nodes[m].output} | {*candidate.inputs}
    return found if all(pairing.c.alias.get(pair.source, pair.source) in matched for pair in found) else ()


def narrowing_casts(index: GraphIndex) -> frozenset[str]:
    """What Casts to FP16 or BF16 make of tensors that a graph computes in a wider format, where not all that read it
    make it wider again: the ends of FP32 islands in a narrow file."""
    found = set()
    for node in index.nodes:
        if node.op_type != "Cast" or node.input[0] not in index.producer:
            continue
        before, after = _format(index, node.input[0]), _format(index, node.output[0])
        if before is not None and after in (FP16, BF16) and after.u > before.u:
            found.add(node.output[0])
    return frozenset(found - {pair.narrow for pair in _pairs(index)})


def _pairs(index: GraphIndex) -> tuple[CastPair, ...]:
    return tuple(pair for position in range(len(index.nodes)) if (pair := _pair(index, position)) is not None)


def _pair(index: GraphIndex, position: int) -> CastPair | None:
    """The tensor that a Cast makes narrower, where all that read that make it wider again."""
    node = index.nodes[position]
    if node.op_type != "Cast" or node.output[0] in index.outputs:
        return None
    before, after = _format(index, node.input[0]), _format(index, node.output[0])
    if before is None or after is None or after not in (FP16, BF16) or after.u <= before.u:
        return None
    readers = [index.nodes[p] for p in index.consumers.get(node.output[0], ())]
    if not readers or any(r.op_type != "Cast" or _format(index, r.output[0]) != before for r in readers):
        return None
    maker = index.producer.get(node.input[0])
    name = node.input[0] if maker is None else index.names[maker]
    return CastPair(node.input[0], node.output[0], after, index.names[position], name)


def _format(index: GraphIndex, name: str) -> NumberFormat | None:
    spec = index.specs.get(name)
    return None if spec is None else BY_DTYPE.get(dtype_name(spec.dtype))
