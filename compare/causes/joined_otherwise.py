"""Joined in another order: a Concat whose inputs are exchanged, where the graphs do not say which tensors these are.

Looks at: what the reference's Concat reads, and what the candidate's gives. Proves: that this is the same, one behind
the other in another order.
"""

from __future__ import annotations

import itertools

import numpy as np

from ...graph.nodes import attribute_int
from ...graph.operators import operator
from ...graph.pairing.changes import InputsExchanged
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import Difference
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer
from .permutation import SAME_ELSEWHERE

MOST = 5
"""Most inputs whose orders are tried."""


def find(case: LayerCase) -> Diagnosis | None:
    """The order in which the candidate's Concat gives what the reference's reads."""
    index, other = case.graphs
    twin = case.twin
    n, m = index.producer.get(case.tensor), other.producer.get(twin)
    if index is other or n is None or m is None or case.y.shape != case.c.shape:
        return None
    node, its = index.nodes[n], other.nodes[m]
    names, count = list(node.input), len(its.input)
    if not operator(node) == operator(its) == "Concat" or not 1 < len(names) <= MOST or len(names) != count:
        return None
    values = [known if (known := case.known(name)) is not None else constant_value(index, name) for name in names]
    axis, made = attribute_int(node, "axis", 0), case.c.astype(np.float64)
    error = float(np.sum(np.square(made - case.y)))
    for order in itertools.permutations(range(count)):
        parts = [value for i in order if (value := values[i]) is not None]
        if list(order) == sorted(order) or len(parts) < count:
            continue
        if float(np.sum(np.square(np.concatenate(parts, axis) - made))) <= SAME_ELSEWHERE * error:
            moved = tuple((f"inputs{i}", f"inputs{place}") for place, i in enumerate(order) if i != place)
            change = Difference(n, m, InputsExchanged(node.op_type, tuple(sorted(moved))))
            return Diagnosis(Cause.LAYOUT, (GraphsDiffer(change),), n)
    return None
