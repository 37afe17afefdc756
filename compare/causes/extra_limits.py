"""Limits that the candidate alone has: a Clip, or a minimum or maximum with a constant.

Looks at: nodes that the candidate alone has in the layer, and their bounds. Proves: that most of the error is what they
cut off of the values of the reference, on whichever side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...graph.index import GraphIndex
from ...graph.pairing.changes import OperatorChange
from ...graph.pairing.constants import constant_value
from ...graph.pairing.normal_form import normal_form
from ...graph.specs import is_float
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import explained, stated
from .evidence import count_text


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


def find(case: LayerCase) -> Diagnosis | None:
    """A limit that makes the error."""
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
        form = normal_form(index, position, lambda name: constant_value(index, name) is not None)
        low, high = form.settings.get("min", -math.inf), form.settings.get("max", math.inf)
        if not {"min", "max"} & form.weights.keys():
            yield float(low), float(high)
    elif op in ("Min", "Max"):
        known = (constant_value(index, name) for name in index.nodes[position].input)
        for value in (v for v in known if v is not None and v.size == 1):
            end = float(value.reshape(-1)[0])
            yield (-math.inf, end) if op == "Min" else (end, math.inf)
