"""Limits that are not the reference's: a Clip, a Relu, or a minimum or maximum with a constant.

Looks at: the bounds of nodes that the candidate alone has in the layer, and those that each side's nodes come to.
Proves: that most of the error is what these cut off on one side alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from ...graph.index import GraphIndex
from ...graph.operators import FLAT, operator
from ...graph.pairing.changes import OperatorChange
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import Difference, DifferenceKind
from ...graph.pairing.normal_form import normal_form
from ...graph.quantized.quantizers import kept_within
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import EXPLAINS, explained, stated
from .evidence import count_text

ROUNDED = 1e-3
"""Relative difference up to which two bounds may be one, rounded to a narrow format."""


@dataclass(frozen=True)
class LimitedTo:
    """Values that a node limits.

    Attributes:
        node: Its operator and name.
        low, high: The bounds; infinite where it has none.
        below, above, size: How many of the reference's values lie beyond them, and how many there are.
    """

    node: str
    low: float
    high: float
    below: int
    above: int
    size: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        ends = ((self.low, self.below, "least", "below"), (self.high, self.above, "greatest", "above"))
        told = [
            f"{end:.6g} is the {word}, {count_text(count, self.size)} are {side} that in the reference"
            for end, count, word, side in ends
            if math.isfinite(end)
        ]
        return f"{self.node} limits the values: {', and '.join(told)}"


@dataclass(frozen=True)
class OtherLimits:
    """The bounds that two sides limit values to; infinite where they have none.

    Attributes:
        low, high: Those of the reference.
        candidate_low, candidate_high: Those of the candidate.
    """

    low: float
    high: float
    candidate_low: float
    candidate_high: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        ends = ("least", self.low, self.candidate_low), ("greatest", self.high, self.candidate_high)
        told = (
            f"the {word} value is {' against '.join(f'{v:.7g}' if math.isfinite(v) else 'not limited' for v in values)}"
            for word, *values in ends
            if not _same(*values)
        )
        return ", and ".join(told)


def _same(one: float, other: float) -> bool:
    return one == other or math.isclose(one, other, rel_tol=ROUNDED)


def find(case: LayerCase) -> Diagnosis | None:
    """Other limits that make the error."""
    return _of_extra_node(case) or _of_other_bounds(case)


def _of_other_bounds(case: LayerCase) -> Diagnosis | None:
    """Bounds that the two sides' nodes come to, where all that is within both is alike."""
    if not is_float(case.y.dtype) or case.y.shape != case.c.shape:
        return None
    other = case.twin
    parts = zip(case.graphs, (case.pair.reference, case.pair.candidate), (case.tensor, other), strict=True)
    (low, high), (lower, higher) = (_limited(index, part.nodes, name) for index, part, name in parts)
    ends = max(low, lower), min(high, higher)
    if (_same(low, lower) and _same(high, higher)) or ends[0] > ends[1]:
        return None
    if lower <= low and high <= higher and kept_within(case.graphs[1], other, low, high):
        return None  # a Relu that its quantizer makes up for
    wide, narrow = (a.astype(np.float64) for a in (case.y, case.c))
    if not np.isfinite(wide).all() or not np.isfinite(narrow).all():
        return None
    within = np.clip(narrow, *ends) - np.clip(wide, *ends)
    if np.linalg.norm(within) > EXPLAINS * np.linalg.norm(narrow - wide):
        return None
    operators = [(p, d) for p, d in case.differences if d.kind is DifferenceKind.OPERATOR]
    if operators and not any(map(functools.partial(_has_limits, case), operators)):
        return None  # of an operator that limits nothing: a sign, a factor
    found = stated(case.graphs[0], operators) or Diagnosis(Cause.ATTRIBUTE, ())
    return found.adding(OtherLimits(low, high, lower, higher))


def _has_limits(case: LayerCase, found: tuple[int, Difference]) -> bool:
    """Whether operators that differ, where they are known by name, limit values on each side that has any."""
    change = found[1].change
    sides = (change.reference, change.candidate) if isinstance(change, OperatorChange) else ()
    parts = zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    limit = {
        (index.nodes[p].op_type, index.names[p])
        for index, part in parts
        for p in part.nodes
        if operator(index.nodes[p]) == "Relu" or any(True for _ in _bounds(index, p))
    }
    return all(not limit.isdisjoint(ops) or not all(name for _, name in ops) for ops in sides if ops)


def _limited(index: GraphIndex, nodes: Collection[int], name: str) -> tuple[float, float]:
    """The bounds that the last nodes of a layer limit a tensor to, one behind the other."""
    low, high = -math.inf, math.inf
    while (position := index.producer.get(name)) in nodes and position is not None:
        node = index.nodes[position]
        rectifies = operator(node) == "Relu"
        bounds = [(0.0, math.inf)] if rectifies else list(_bounds(index, position))
        if operator(node) not in FLAT and len(bounds) != 1:
            break
        for least, greatest in bounds:  # these are limited by what comes behind them
            low, high = (float(np.clip(end, low, high)) for end in (least, greatest))
        name = next((n for n in node.input if n and constant_value(index, n) is None), "")
    return low, high


def _of_extra_node(case: LayerCase) -> Diagnosis | None:
    """Limits of a node that the candidate alone has."""
    if not is_float(case.y.dtype) or case.y.shape != case.c.shape:
        return None
    index, within = case.graphs[1], case.pair.candidate.nodes
    for position, difference in case.differences:
        change = difference.change
        if not isinstance(change, OperatorChange) or not change.alone or change.reference:
            continue
        for p in (p for p in within if (index.nodes[p].op_type, index.names[p]) in change.candidate):
            for low, high in _bounds(index, p):
                if not explained(case, np.clip(case.y.astype(np.float64), low, high)):
                    continue
                below, above = (int(np.count_nonzero(beyond)) for beyond in (case.y < low, case.y > high))
                node = f"{index.nodes[p].op_type} {index.names[p]}"
                fact = LimitedTo(node, low, high, below, above, case.y.size)
                found = stated(case.graphs[0], [(position, difference)])
                return None if found is None else found.adding(fact)
    return None


def _bounds(index: GraphIndex, position: int) -> Iterator[tuple[float, float]]:
    """The least and the greatest value that a node lets through, where they are constants; none of other nodes."""
    op = index.nodes[position].op_type
    if op == "Clip":
        form = normal_form(index, position)
        low, high = form.settings.get("min", -math.inf), form.settings.get("max", math.inf)
        if not {"min", "max"} & form.weights.keys():
            yield float(low), float(high)
    elif op in ("Min", "Max"):
        known = (constant_value(index, name) for name in index.nodes[position].input)
        for value in (v for v in known if v is not None and v.size == 1):
            end = float(value.reshape(-1)[0])
            yield (-math.inf, end) if op == "Min" else (end, math.inf)
