"""What holds only because a layer runs as one kernel, which computes inside in FP32.

Looks at: layers of several nodes, or that normalize, and what the reference has inside of them, against the range of
the candidate's format, and against what it leaves of sums whose terms cancel. Proves: that the layer overflows,
underflows or loses its digits, where it runs node by node, or with that format inside: it was computed so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.operators import NORMALIZING_REDUCTIONS, PRODUCTS, STRETCHING, operator
from ...graph.rounding.decomposed import DECOMPOSED
from ...graph.rounding.squares import squares, squares_inside
from ...graph.specs import Arrays, is_float
from .cancellation import sums_of_own_terms, terms_cancel
from .ranges import Holder, format_loss, lost_values

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..lockstep.plan import LayerPair
    from ..report.model import Fact

HARMFUL = 16
"""Roundings, of one for each node of a layer, above which its error node by node is no longer that of rounding."""
LEAP = 256.0
"""Factor of a constant from which on it may take values out of the range of a format."""
NEAR = 64
"""Times the smallest normal number up to which powers of what a layer is given may become smaller than that inside."""


def lost_inside(
    pair: LayerPair,
    index: GraphIndex,
    values: Arrays,
    fmt: NumberFormat,
    inner: Callable[[], Arrays],
    by_node: Callable[[], Arrays],
    every_node: bool = False,
) -> Fact | None:
    """The first value inside a layer that the format cannot hold, or what it leaves nothing of; None where there is
    none, and where the layer is right all the same.

    Args:
        pair: The layer, which does not exceed its expected noise.
        index: The reference's graph.
        values: The reference's tensors.
        fmt: The candidate's format.
        inner: Gives the numbers inside the layer.
        by_node: Gives what the layer makes where each of its nodes rounds to the format; without what cannot be
            computed so.
        every_node: Whether each node rounds its result by itself, so that what is lost between them is seen.
    """
    nodes = pair.reference.nodes
    operators = {operator(index.nodes[p]) for p in nodes}
    several = len(nodes) > 1 and not every_node
    cancelling = several and normalizes(index, nodes) and any(True for _ in sums_of_own_terms(index, nodes))
    scaled = several and any(_leaps(index, p) for p in nodes)
    stretched = several and any(_stretches(index, p) for p in nodes)
    if not (
        scaled or stretched or cancelling or any(squares(index.nodes[p]) for p in nodes)
    ):  # most: no value is looked at
        return None
    given = [values[n] for n in pair.reference.inputs if n in values and is_float(values[n].dtype)]
    if not all(np.isfinite(a).all() for a in given):
        return None
    lost = _squares_lost(index, nodes, values, fmt, inner)
    if lost is not None:
        return lost
    if stretched and operators.isdisjoint(PRODUCTS):  # of a product's result, what it is given tells nothing
        stretched = any(_near_an_end(a, operators, _power(index, nodes), fmt) for a in given)
    if not scaled and not stretched and not cancelling:
        return None
    made = {name: value for name, value in inner().items() if is_float(value.dtype)}
    ends = ((name, array, loss) for name, array in made.items() if (loss := format_loss(array, fmt)) is not None)
    first = next(ends, None) if scaled or stretched else None
    if first is not None and _harmed(values, by_node(), len(nodes), fmt):
        name, array, loss = first
        return lost_values(array, fmt, loss, Holder("inside", index.names[index.producer[name]]))
    if not cancelling:
        return None
    return terms_cancel(index, nodes, {**made, **{n: values[n] for n in pair.reference.outputs}}, fmt)


def normalizes(index: GraphIndex, nodes: Sequence[int]) -> bool:
    """Whether a layer is a normalization or a Softmax, in one operator or in pieces."""
    return any(squares(node) or operator(node) in NORMALIZING_REDUCTIONS for node in (index.nodes[p] for p in nodes))


def shown_by(index: GraphIndex, nodes: Sequence[int], fmt: str) -> str:
    """What ``--emulate`` takes to show what a layer loses where it is no one kernel; empty where nothing does, since
    one of its operators squares inside and is computed as a whole."""
    if any(squares(node) and operator(node) not in DECOMPOSED for node in (index.nodes[p] for p in nodes)):
        return ""
    return f"{fmt},{'decomposed' if normalizes(index, nodes) else 'every_node'}"


def _stretches(index: GraphIndex, position: int) -> bool:
    """Whether what a node gives may be of another order of magnitude than what it is given."""
    node = index.nodes[position]
    op = operator(node)
    squares = op == "Mul" and node.input[0] == node.input[1]
    divides = op == "Div" and index.constant(node.input[1]) is None
    return op in STRETCHING or squares or divides


def _leaps(index: GraphIndex, position: int) -> bool:
    """Whether a node multiplies with, or divides by, a constant that is far from 1."""
    node = index.nodes[position]
    if operator(node) not in ("Mul", "Div"):
        return False
    factors = [np.abs(c[c != 0].astype(np.float64)) for n in node.input if (c := index.constant(n)) is not None]
    return any(f.size and (float(f.max()) >= LEAP or float(f.min()) <= 1 / LEAP) for f in factors)


def _harmed(values: Arrays, made: Arrays, nodes: int, fmt: NumberFormat) -> bool:
    """Whether what a layer makes node by node is off by more than rounding.

    Args:
        values: The reference's tensors.
        made: The layer's outputs, where each of its nodes rounds to the format.
        nodes: How many nodes it has.
        fmt: The format.
    """
    for name, array in made.items():
        y, c = (a.astype(np.float64) for a in (values[name], array))
        finite = np.isfinite(y)
        if y.shape != c.shape or not np.isfinite(c[finite]).all():
            return True
        error, size = float(np.linalg.norm(c[finite] - y[finite])), float(np.linalg.norm(y[finite]))
        if error > HARMFUL * fmt.u * math.sqrt(nodes) * size:
            return True
    return False


def _near_an_end(given: np.ndarray, operators: Collection[str], power: float, fmt: NumberFormat) -> bool:
    """Whether sums of powers, or of exponentials, of what a layer is given may overflow, or powers of how far it
    scatters underflow: most layers are far from the range."""
    wide = given.astype(np.float64)
    if not wide.size:
        return False
    if "Exp" in operators and float(wide.max()) + math.log(wide.size) > math.log(fmt.max):
        return True
    if float((np.abs(wide) ** power).sum()) > fmt.max:
        return True
    scatter = wide.std(axis=-1) if wide.ndim and wide.shape[-1] > 1 else np.abs(wide)
    seen = scatter[scatter > 0]
    return bool(seen.size and float(seen.min()) ** power < NEAR * fmt.smallest_normal)


def _power(index: GraphIndex, nodes: Sequence[int]) -> float:
    """The greatest power that some nodes raise what they are given to: two, or what stands in a Pow."""
    raised = (index.constant(index.nodes[p].input[1]) for p in nodes if operator(index.nodes[p]) == "Pow")
    return max([2.0, *(float(np.max(x)) for x in raised if x is not None and x.size)])


def _squares_lost(
    index: GraphIndex, nodes: Sequence[int], values: Arrays, fmt: NumberFormat, inner: Callable[[], Arrays]
) -> Fact | None:
    """What a format cannot hold of the squares inside an operator, which are in no tensor of the graph."""
    for position in (p for p in nodes if squares(index.nodes[p])):
        node = index.nodes[position]
        given = values if node.input[0] in values else {**inner(), **values}
        arrays = [given[n] for n in node.input if n in given]
        inside = squares_inside(index, node, [a for a in arrays if a.shape == arrays[0].shape])
        if inside is not None and format_loss(inside, fmt) == "overflow":
            return lost_values(inside, fmt, "overflow", Holder("inside", f"the squares of {index.names[position]}"))
    return None
