"""Weights that one of two products alone transposes: another way to write the same, undone before they are compared."""

from __future__ import annotations

import numpy as np

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import PRODUCTS, operator
from .constants import constant_value

TRANSPOSES = "transB"
"""The attribute by which a product transposes its second operand."""


def turned(reference: GraphIndex, n: int, candidate: GraphIndex, m: int) -> str:
    """The second operand of a node of the candidate, where that is a constant which one of two nodes alone transposes,
    and the stored constants are nearer to each other for it; empty where it is not.

    Args:
        reference, n: The reference's graph, and the position of a node in it.
        candidate, m: The same of the candidate.
    """
    nodes = reference.nodes[n], candidate.nodes[m]
    turns = {bool(attribute_int(node, TRANSPOSES, 0)) for node in nodes if operator(node) in PRODUCTS}
    if len(turns) < 2:
        return ""
    name, twin = (node.input[1] for node in nodes)
    x, y = constant_value(reference, name), constant_value(candidate, twin)
    if x is None or y is None or x.ndim != 2 or x.shape != y.shape[::-1]:
        return ""
    if x.shape != y.shape:
        return twin
    wide, other = (np.asarray(a, np.float64) for a in (x, y))
    with np.errstate(invalid="ignore"):
        return twin if np.abs(wide - other.T).sum() < np.abs(wide - other).sum() else ""
