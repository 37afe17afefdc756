"""Overflow: infinite or not a number in the candidate, where the reference shows what its format cannot hold.

Looks at: the output, the weights, and the tensors inside the layer as the reference computes them, against the greatest
finite value of the narrow format in play. Proves: that the candidate has no way to hold what the reference has there.
"""

from __future__ import annotations

from ...graph.formats import NumberFormat
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .ranges import Holder, format_loss, lossy_weights, lost_values


def find(case: LayerCase) -> Diagnosis | None:
    """The first of output, weights, and what is inside that is above the format's greatest."""
    fmt = case.formats.narrow
    if case.judgement.reason != "finite" or fmt is None:
        return None
    for name in case.pair.reference.outputs:
        if format_loss(case.values[name], fmt) == "overflow":
            fact = lost_values(case.values[name], fmt, "overflow", Holder("output", name), case.entry)
            return Diagnosis(Cause.OVERFLOW, (fact,), _first_node(case, fmt))
    weights = lossy_weights(case, fmt, "overflow")
    if weights is not None:
        return Diagnosis(Cause.OVERFLOW, (weights[1],), weights[0])
    index = case.graphs[0]
    for name, array in case.inner.items():
        if format_loss(array, fmt) == "overflow":
            holder = Holder("inside", index.names[index.producer[name]])
            return Diagnosis(Cause.OVERFLOW, (lost_values(array, fmt, "overflow", holder, case.entry),))
    return None


def _first_node(case: LayerCase, fmt: NumberFormat) -> int | None:
    """The node of a layer that was the first to overflow, where what its main one gives fits the format."""
    index, pair, inner = case.graphs[0], case.pair, case.inner
    main = [n for n in index.nodes[pair.main].output if n in inner]
    if not main or any(format_loss(inner[n], fmt) == "overflow" for n in main):
        return None
    whole = {**inner, **{n: case.values[n] for n in pair.reference.outputs}}
    found = [index.producer[n] for n, array in whole.items() if format_loss(array, fmt) == "overflow"]
    return min((p for p in found if p in pair.reference.nodes), default=None)
