"""Are parts of two graphs one program? The same operators in the same order, with the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import onnx

from ..cutting.alike import kind_of
from ..nodes import subgraphs
from .weight_changes import same_bytes

if TYPE_CHECKING:
    from ..index import GraphIndex


def one_program(
    reference: GraphIndex,
    mine: Iterable[int],
    candidate: GraphIndex,
    theirs: Iterable[int],
    names: Mapping[str, str],
) -> bool:
    """Whether nodes of two graphs compute the same of the same values, told by what is written there.

    Args:
        reference, candidate: The graphs.
        mine, theirs: Positions of the nodes.
        names: Tensors of the reference's graph at the border of its nodes -> the candidate's names of the same.

    Returns:
        False where it cannot be told so: of other names inside of an If or Loop, or weights that are not in memory.
    """
    mine, theirs = list(mine), list(theirs)
    if reference.opset != candidate.opset or kind_of(reference, mine) != kind_of(candidate, theirs):
        return False
    pairs = [(reference.nodes[p], candidate.nodes[q]) for p, q in zip(mine, theirs, strict=True)]
    if reference.proto.functions or candidate.proto.functions or any(list(subgraphs(node)) for node, _ in pairs):
        return False
    called = {x: y for one, other in pairs for x, y in zip(_tensors(one), _tensors(other), strict=True)}
    weights = ((x, y) for x, y in called.items() if x in reference.initializers)
    constants = ((one, other) for one, other in pairs if one.op_type == "Constant")
    return (
        all(names.get(x, y) == y for x, y in called.items())
        and all(list(one.attribute) == list(other.attribute) for one, other in constants)
        and all(same_bytes(reference, x, candidate, y) for x, y in weights)
    )


def _tensors(node: onnx.NodeProto) -> tuple[str, ...]:
    return (*node.input, *node.output)
