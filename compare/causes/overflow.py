"""Overflow: values that the candidate's format cannot hold, which end infinite, not a number, or in a finite number.

Looks at: the output, the weights, and the tensors inside the layer as the reference computes them, against the greatest
finite value of the narrow format in play. Proves: that the candidate has no way to hold what the reference has there.
An output that is finite may come of an overflow inside: one over infinity is zero, so that a normalization whose sum
of squares overflows gives zero, or its bias. What the reference makes with an infinite value in that place shows it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import explained
from .ranges import Holder, format_loss, lossy_weights, lost_values

LOST = 0.5
"""Share of the error's power that values which became zero must have, for an overflow inside to have ended so."""


def find(case: LayerCase) -> Diagnosis | None:
    """The first of output, weights, and what is inside that is above the format's greatest."""
    fmt = case.formats.narrow
    if fmt is None:
        return None
    if case.judgement.reason != "finite":
        return _ended_finite(case, fmt)
    for name in case.pair.reference.outputs:
        if format_loss(case.values[name], fmt) == "overflow":
            fact = lost_values(case.values[name], fmt, "overflow", Holder("output", name), case.entry)
            return Diagnosis(Cause.OVERFLOW, (fact,), _first_node(case, fmt))
    weights = lossy_weights(case.graphs[0], case.pair.reference.nodes, fmt, "overflow")
    if weights is not None:
        return Diagnosis(Cause.OVERFLOW, (weights[1],), weights[0])
    return _inside(case, fmt)


def _inside(case: LayerCase, fmt: NumberFormat, makes: Callable[[str], bool] = lambda _: True) -> Diagnosis | None:
    """The first tensor inside that is above the format's greatest, of those that ``makes`` lets through."""
    index = case.graphs[0]
    for name, array in case.inner.items():
        if format_loss(array, fmt) == "overflow" and makes(name):
            position = index.producer[name]
            fact = lost_values(array, fmt, "overflow", Holder("inside", index.names[position]), case.entry)
            return Diagnosis(Cause.OVERFLOW, (fact,), position if position in case.pair.reference.nodes else None)
    return None


def _ended_finite(case: LayerCase, fmt: NumberFormat) -> Diagnosis | None:
    """An overflow inside behind which values are lost: zero, or what is left without them, where the reference goes
    on."""
    if not is_float(case.y.dtype) or case.y.shape != case.c.shape or not case.y.size:
        return None
    with np.errstate(invalid="ignore"):
        error = np.square(case.c.astype(np.float64) - case.y.astype(np.float64))
    lost = (case.c == 0) & (case.y != 0)
    if float(error[lost].sum()) >= LOST * float(error.sum()):
        return _inside(case, fmt)
    return _inside(case, fmt, lambda name: _makes_the_error(case, fmt, name))


def _makes_the_error(case: LayerCase, fmt: NumberFormat, name: str) -> bool:
    """Whether the reference makes most of the error where a tensor inside stops at the ends of the format: at infinity,
    or at its greatest value."""
    wide = case.inner[name]
    if case.graphs[0].constant(name) is not None:  # a mask, which a target clamps
        return False
    for end in (np.inf, fmt.max):
        stopped = np.where(np.abs(wide) > fmt.max, np.copysign(end, wide), wide).astype(wide.dtype)
        made = case.reweighted({name: stopped})
        if made is not None and explained(case, made):
            return True
    return False


def _first_node(case: LayerCase, fmt: NumberFormat) -> int | None:
    """The node of a layer that was the first to overflow, where what its main one gives fits the format."""
    index, pair, inner = case.graphs[0], case.pair, case.inner
    main = [n for n in index.nodes[pair.main].output if n in inner]
    if not main or any(format_loss(inner[n], fmt) == "overflow" for n in main):
        return None
    whole = {**inner, **{n: case.values[n] for n in pair.reference.outputs}}
    found = [index.producer[n] for n, array in whole.items() if format_loss(array, fmt) == "overflow"]
    return min((p for p in found if p in pair.reference.nodes), default=None)
