"""In which layout a converted graph holds a program's tensors: convolutions are NCHW in ONNX and NHWC in TensorFlow.

The layout is followed through the ONNX graph from the operators that have only one (Conv and pooling are NCHW), and
checked against static shapes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import permutations

import onnx

from ..index import GraphIndex
from ..nodes import attribute_ints
from ..operators import LAYOUT_LOST, facts_of, operator

# These are converted one to one: a result that kept its name kept its axes.
_AS_NAMED = frozenset({"MatMul", "Gemm", "Gather", "GatherND", "Einsum"})


def layouts(
    index: GraphIndex, named: Collection[str], transposes: Collection[str], transposed: bool | None = True
) -> dict[str, bool]:
    """Whether tensors are channels-first in ONNX while the program has them channels-last; missing where unknown.

    Meaningful for tensors of rank 3 to 5; the others have one layout.

    Args:
        index: The ONNX graph; its inputs have the program's layout.
        named: Names of the program's tensors.
        transposes: Those that a Transpose of the program's own makes.
        transposed: Whether convolutions of the program are channels-last; None: some are.
    """
    known = dict.fromkeys(index.inputs, False)
    for node in index.nodes:
        layout = _layout(index, node, known, named, transposes, transposed)
        if layout is not None:
            known.update(dict.fromkeys((name for name in node.output if name), layout))
    return known


def permutation(
    theirs: Sequence[int | None], ours: Sequence[int | str | None], channels_first: bool | None
) -> tuple[int, ...] | None:
    """The axes by which a program's tensor is transposed in ONNX; empty: it is not. None: that cannot be told.

    Args:
        theirs: Its shape in the program.
        ours: Its shape in ONNX, of the same rank.
        channels_first: What `layouts` says of it.
    """
    rank = len(theirs)
    straight = tuple(range(rank))
    if channels_first is not None:
        axes = (0, rank - 1, *range(1, rank - 1)) if channels_first and rank in (3, 4, 5) else straight
        pairs = zip(_take(theirs, axes), ours, strict=True)
        if not all(a is None or not isinstance(b, int) or a == b for a, b in pairs):
            return None
    elif rank > 5:
        return None
    else:
        # Nothing but the shape tells, so that it must leave one way only: unknown dimensions match unknown ones alone.
        sizes = [d if isinstance(d, int) else None for d in ours]
        fitting = [axes for axes in permutations(straight) if _take(theirs, axes) == sizes]
        if len(fitting) != 1:
            return None
        axes = fitting[0]
    return () if axes == straight else axes


def _take(shape: Sequence[int | None], axes: Sequence[int]) -> list[int | None]:
    return [shape[axis] for axis in axes]


def _layout(
    index: GraphIndex,
    node: onnx.NodeProto,
    known: Mapping[str, bool],
    named: Collection[str],
    transposes: Collection[str],
    transposed: bool | None,
) -> bool | None:
    specs = index.specs
    if node.op_type in _AS_NAMED:
        return False if node.output[0] in named else None
    if facts_of(node).channels_first:
        return transposed
    if node.op_type == "Transpose":
        name = node.output[0]
        before = known.get(node.input[0])
        if name in transposes:  # the program's own
            return False if before is False else None
        axes = attribute_ints(node, "perm") or []
        rank = len(axes)
        if before is False and axes == [0, rank - 1, *range(1, rank - 1)]:
            return True
        if before is True and axes == [0, *range(2, rank), 1]:
            return False
        return None
    if operator(node) in LAYOUT_LOST or not node.output:
        return None
    made = specs.get(node.output[0])
    if made is None or made.shape is None:
        return None
    votes = set()
    for name in index.reads[index.producer[node.output[0]]]:
        read = specs.get(name)
        if name in index.initializers or index.constant(name) is not None:
            continue
        if read is None or read.shape is None or len(read.shape) != len(made.shape) or name not in known:
            return None
        votes.add(known[name])
    return votes.pop() if len(votes) == 1 else None
