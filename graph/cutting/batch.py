"""Do some nodes compute each entry of a batch, along axis 0, from that entry alone?

Then one entry of all that they read gives that entry of what they make.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..nodes import attribute_int, attribute_ints, trains
from ..operators import BATCHWISE, BROADCASTING, Kind, facts_of, operator

if TYPE_CHECKING:
    import onnx

    from ..index import GraphIndex


def by_entry(index: GraphIndex, nodes: Iterable[int], batched: Collection[str]) -> bool:
    """Whether some nodes compute each entry of a batch by itself.

    Args:
        index: The graph.
        nodes: Places of its nodes, in its order.
        batched: What they read that is not constant: tensors of which axis 0 is the batch.

    Returns:
        False also where that is not known: of an operator that is not looked at here, or a rank that is not known; and
        where the last of them computes a constant.
    """
    known, apart = set(batched), False
    for position in nodes:
        node = index.nodes[position]
        apart = not known.isdisjoint(index.reads[position])
        if not apart:  # computes a constant
            continue
        if trains(node):  # statistics of the whole batch
            return False
        ranks = [index.rank(name) for name in node.input if name]
        if known.isdisjoint(node.input) or None in ranks or not _keeps_apart(index, node, known):
            return False
        known.update(node.output)
    return apart


def _keeps_apart(index: GraphIndex, node: onnx.NodeProto, batched: Collection[str]) -> bool:
    """Whether a node computes each entry by itself, where each of its inputs is of the batch, or a constant."""
    op, first = operator(node), node.input[0] in batched
    rank = index.rank(node.input[0]) or 0
    if op in BATCHWISE:
        return (first and rank > 0 and op not in BROADCASTING) or _aligned(index, node, batched, 0)
    if op == "MatMul":  # of two matrices, rows are entries, and columns are not
        matrices = rank == 2 == index.rank(node.input[1])
        return (first and matrices and node.input[1] not in batched) or _aligned(index, node, batched, 2)
    if op == "Gemm":
        plain = first and node.input[1] not in batched and not attribute_int(node, "transA", 0)
        return plain and _aligned(index, node, batched, 0, inputs=node.input[2:])
    if (facts_of(node).kind is Kind.SOFTMAX and len(node.input) == 1) or op in (
        "LayerNormalization",
        "RMSNormalization",
    ):
        axis = attribute_int(node, "axis", -1)
        return first and rank > 1 and (axis if axis >= 0 else axis + rank) > 0 and _aligned(index, node, batched, 0)
    if op == "Transpose":
        axes = attribute_ints(node, "perm", list(range(rank))[::-1])
        return first and bool(axes) and axes[0] == 0
    return False


def _aligned(
    index: GraphIndex, node: onnx.NodeProto, batched: Collection[str], least: int, inputs: Iterable[str] | None = None
) -> bool:
    """Whether axis 0 of the batched inputs of a node meets nothing else where they are broadcast: they are of one rank,
    more than ``least``, and constants have fewer axes, or one entry."""
    names = [name for name in (node.input if inputs is None else inputs) if name]
    ranks = {index.rank(name) for name in node.input if name in batched}
    if len(ranks) != 1 or None in ranks:
        return False
    (rank,) = (r for r in ranks if r is not None)
    shapes = [index.shape(n) for n in names if n not in batched]
    return rank > least and all(s is not None and (len(s) < rank or s[0] == 1) for s in shapes)
