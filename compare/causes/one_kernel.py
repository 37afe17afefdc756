"""What holds only because a layer runs as one kernel, which computes inside in FP32.

Looks at: layers that normalize, and what the reference has inside of them, against the greatest finite value of the
candidate's format. Proves: that the layer overflows where it runs node by node, or with that format inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.nodes import attribute_int
from ...graph.operators import NORMALIZING_REDUCTIONS, operator
from ...graph.specs import Arrays, is_float
from .ranges import Holder, format_loss, lost_values

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..lockstep.plan import LayerPair
    from ..report.model import Fact

WHOLE = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
"""Normalizations of the last axes that are one operator: their squares are in no tensor of the graph."""


def overflow_inside(
    pair: LayerPair, index: GraphIndex, values: Arrays, fmt: NumberFormat, inner: Callable[[], Arrays]
) -> Fact | None:
    """The first value inside a normalization that the format cannot hold; None where there is none.

    Args:
        pair: The layer, which does not exceed its expected noise.
        index: The reference's graph.
        values: The reference's tensors.
        fmt: The candidate's format.
        inner: Gives the floating tensors inside the layer.
    """
    operators = {operator(index.nodes[p]) for p in pair.reference.nodes}
    in_pieces = len(pair.reference.nodes) > 1 and not operators.isdisjoint(NORMALIZING_REDUCTIONS)
    if not in_pieces and operators.isdisjoint(WHOLE):
        return None
    given = [values[n] for n in pair.reference.inputs if n in values and is_float(values[n].dtype)]
    # the greatest sum of squares that may be: most layers are far from the range
    if not any(np.isfinite(a).all() and float(np.square(a, dtype=np.float64).sum()) > fmt.max for a in given):
        return None
    for position in pair.reference.nodes:
        node = index.nodes[position]
        if operator(node) in WHOLE and node.input[0] in values:
            squares = _squares(values[node.input[0]], operator(node), attribute_int(node, "axis", -1))
            if format_loss(squares, fmt) == "overflow":
                return lost_values(
                    squares, fmt, "overflow", Holder("inside", f"the squares of {index.names[position]}")
                )
    if in_pieces:
        for name, array in inner().items():
            if format_loss(array, fmt) == "overflow":
                return lost_values(array, fmt, "overflow", Holder("inside", index.names[index.producer[name]]))
    return None


def _squares(x: np.ndarray, op: str, axis: int) -> np.ndarray:
    wide = x.astype(np.float64)
    if op == "LayerNormalization":
        wide = wide - wide.mean(axis=tuple(range(axis % x.ndim, x.ndim)), keepdims=True)
    return np.square(wide)
