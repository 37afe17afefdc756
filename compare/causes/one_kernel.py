"""What holds only because a layer runs as one kernel, which computes inside in FP32.

Looks at: layers that normalize, and what the reference has inside of them, against the greatest finite value of the
candidate's format, and against what it leaves of sums whose terms cancel. Proves: that the layer overflows, or loses
its digits, where it runs node by node, or with that format inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.nodes import attribute_int
from ...graph.operators import NORMALIZING_REDUCTIONS, operator
from ...graph.specs import Arrays, is_float
from .cancellation import sums_of_own_terms, terms_cancel
from .ranges import Holder, format_loss, lost_values

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..lockstep.plan import LayerPair
    from ..report.model import Fact

WHOLE = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
"""Normalizations of the last axes that are one operator: their squares are in no tensor of the graph."""


def lost_inside(
    pair: LayerPair, index: GraphIndex, values: Arrays, fmt: NumberFormat, inner: Callable[[], Arrays]
) -> Fact | None:
    """The first value inside a normalization that the format cannot hold, or what it leaves nothing of; None where
    there is none.

    Args:
        pair: The layer, which does not exceed its expected noise.
        index: The reference's graph.
        values: The reference's tensors.
        fmt: The candidate's format.
        inner: Gives the floating tensors inside the layer.
    """
    nodes = pair.reference.nodes
    operators = {operator(index.nodes[p]) for p in nodes}
    in_pieces = len(nodes) > 1 and not operators.isdisjoint(NORMALIZING_REDUCTIONS)
    if not in_pieces and operators.isdisjoint(WHOLE):
        return None
    given = [values[n] for n in pair.reference.inputs if n in values and is_float(values[n].dtype)]
    power, finite = _power(index, nodes), all(np.isfinite(a).all() for a in given)
    large = finite and any(_may_overflow(a, operators, power, fmt) for a in given)
    for position in nodes if large else ():
        node = index.nodes[position]
        if operator(node) in WHOLE and node.input[0] in values:
            squares = _squares(values[node.input[0]], operator(node), attribute_int(node, "axis", -1))
            if format_loss(squares, fmt) == "overflow":
                return lost_values(
                    squares, fmt, "overflow", Holder("inside", f"the squares of {index.names[position]}")
                )
    cancelling = any(True for _ in sums_of_own_terms(index, nodes))
    if not in_pieces or not (large or cancelling):
        return None
    made = inner()
    for name, array in made.items():
        if format_loss(array, fmt) == "overflow":
            return lost_values(array, fmt, "overflow", Holder("inside", index.names[index.producer[name]]))
    return terms_cancel(index, nodes, {**made, **{n: values[n] for n in pair.reference.outputs}}, fmt)


def _may_overflow(given: np.ndarray, operators: Collection[str], power: float, fmt: NumberFormat) -> bool:
    """Whether sums of powers, or of exponentials, of what a layer is given may: most layers are far from the range."""
    wide = given.astype(np.float64)
    if "Exp" in operators and wide.size and float(wide.max()) + math.log(wide.size) > math.log(fmt.max):
        return True
    return float((np.abs(wide) ** power).sum()) > fmt.max


def _power(index: GraphIndex, nodes: Sequence[int]) -> float:
    """The greatest power that some nodes raise what they are given to: two, or what stands in a Pow."""
    raised = (index.constant(index.nodes[p].input[1]) for p in nodes if operator(index.nodes[p]) == "Pow")
    return max([2.0, *(float(np.max(x)) for x in raised if x is not None and x.size)])


def _squares(x: np.ndarray, op: str, axis: int) -> np.ndarray:
    wide = x.astype(np.float64)
    if op == "LayerNormalization":
        wide = wide - wide.mean(axis=tuple(range(axis % x.ndim, x.ndim)), keepdims=True)
    return np.square(wide)
