"""Batch statistics: a BatchNormalization in training mode on one side, which normalizes by what it is given.

Looks at: BatchNormalization in either graph, and what the layer is given. Proves: that one side's output is what mean
and variance of the input make, where the stored ones make the other side's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph.index import GraphIndex
from ...graph.nodes import attribute_float
from ...graph.operators import operator
from ...graph.pairing.constants import constant_value
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis

LEFT = 0.02
"""Share of the error that may be left where batch statistics are to explain it."""
NOTHING = 1e-3
"""The same from which on it is told."""
FEWEST = 8
"""Values of a channel from which on its statistics say something."""


@dataclass(frozen=True)
class OfTheBatch:
    """Which side normalizes by the statistics of what it is given.

    Attributes:
        side: ``candidate`` or ``reference``.
        left: Share of the error that is left where the layer is computed so.
    """

    side: str
    left: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        left = "nothing of the difference" if self.left < NOTHING else f"{self.left:.1%} of the difference"
        return (
            f"the {self.side} normalizes by mean and variance of the batch that it is given, as in training, and not "
            f"by the stored ones: computed so, {left} is left"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """The side that a BatchNormalization in training mode explains."""
    error = float(np.linalg.norm(case.c.astype(np.float64) - case.y.astype(np.float64))) if _comparable(case) else 0.0
    if not error or not np.isfinite(error):
        return None
    index, nodes = case.graphs[0], case.pair.reference.nodes
    for position in (p for p in nodes if operator(index.nodes[p]) == "BatchNormalization"):
        made = _made(case, index, position)
        if made is None:
            continue
        for side, array in (("candidate", case.c), ("reference", case.y)):
            left = float(np.linalg.norm(array.astype(np.float64) - made)) / error
            if left <= LEFT:
                return Diagnosis(Cause.ATTRIBUTE, (OfTheBatch(side, left),), position)
    return None


def _comparable(case: LayerCase) -> bool:
    return case.y.shape == case.c.shape and case.y.ndim > 1


def _made(case: LayerCase, index: GraphIndex, position: int) -> np.ndarray | None:
    """What the layer makes with the statistics of what its BatchNormalization is given; None where that is not known,
    or where more than a Relu is behind it."""
    node = index.nodes[position]
    x = case.known(node.input[0])
    scale, shift = (constant_value(index, name) for name in node.input[1:3])
    if x is None or scale is None or shift is None or x.shape != case.y.shape:
        return None
    axes = (0, *range(2, x.ndim))
    if x.size // x.shape[1] < FEWEST:
        return None
    wide = x.astype(np.float64)
    over = [1, -1, *[1] * (x.ndim - 2)]
    mean, variance = wide.mean(axis=axes, keepdims=True), wide.var(axis=axes, keepdims=True)
    root = np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    made = (wide - mean) / root * scale.reshape(over) + shift.reshape(over)
    if case.tensor == node.output[0]:
        return np.asarray(made)
    behind = index.nodes[index.producer[case.tensor]]
    alone = operator(behind) == "Relu" and behind.input[0] == node.output[0]
    return np.asarray(np.maximum(made, 0)) if alone else None
