"""A Split, written as the Slices that it stands for, or the Gathers, where a part is one element thick and squeezed."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import onnx

from ..index import GraphIndex
from ..nodes import attribute_int, attribute_ints
from ..operators import operator
from .epilogues import Step


def parted(index: GraphIndex) -> dict[str, Step]:
    """What the Splits of a graph make, and what Squeezes make of that: the tensor -> the operator that makes it of what
    is split. Parts that these Squeezes alone read are not there."""
    found: dict[str, Step] = {}
    for node in index.nodes:
        axis, sizes = _split(index, node) if operator(node) == "Split" else (0, [])
        for name, size, end in zip(node.output, sizes, accumulate(sizes), strict=False):
            readers = [index.nodes[p] for p in index.consumers.get(name, ())]
            squeezed = [reader for reader in readers if size == 1 and _squeezes(index, reader) == axis]
            number = np.asarray(end - 1, np.int64)
            gathered = {r.output[0]: Step("Gather", (node.input[0], number), {"axis": axis}) for r in squeezed}
            found.update(gathered)
            if len(squeezed) < len(readers) or not readers or name in index.outputs:
                ends = (np.asarray([place], np.int64) for place in (end - size, end, axis))
                found[name] = Step("Slice", (node.input[0], *ends), {})
    return found


def _split(index: GraphIndex, node: onnx.NodeProto) -> tuple[int, list[int]]:
    """Along which axis a node splits, and how long the parts are; no parts where that is not known."""
    rank, spec = index.rank(node.input[0]), index.specs.get(node.input[0])
    sizes = attribute_ints(node, "split")
    if len(node.input) > 1 and node.input[1]:
        given = index.constant(node.input[1])
        sizes = None if given is None else [int(size) for size in given]
    axis = attribute_int(node, "axis", 0)
    axis += (rank or 0) if axis < 0 else 0
    if rank is None or spec is None or spec.shape is None:
        return axis, []
    if sizes is None:
        whole, count = spec.shape[axis], len(node.output)
        sizes = [whole // count] * count if isinstance(whole, int) and whole % count == 0 else []
    return axis, sizes


def _squeezes(index: GraphIndex, node: onnx.NodeProto) -> int | None:
    """The one axis that a node takes away; None where it does something else."""
    if operator(node) != "Squeeze":
        return None
    axes = attribute_ints(node, "axes")
    if len(node.input) > 1:
        given = index.constant(node.input[1])
        axes = None if given is None else [int(axis) for axis in given]
    rank = index.rank(node.input[0])
    return axes[0] % rank if axes is not None and len(axes) == 1 and rank else None
