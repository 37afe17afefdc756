"""A rounded operand: the weights of a product are stored as scaled integers, and what they meet is rounded, too.

Looks at: products of weights that a graph stores so, where the candidate computes in FP32, and what they are given.
Proves: that the error has the size of rounding the operand to 8 bits, block by block as the weights are, which is far
from that of sums in 16 bits where it is not near it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import FP32
from ...graph.nodes import attribute_int
from ...graph.operators import PRODUCTS, RENAMES, operator
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

NEAR = 3.0
"""Times the error of rounding the operand, or its share, up to which an error is of that."""
STEPS = 127
"""Steps of 8 bits on each side of zero."""


@dataclass(frozen=True)
class RoundedTo8Bits:
    """An error of the size of rounding an operand to 8 bits.

    Attributes:
        weights: The weights that are stored as scaled integers.
        block: How many of them have one scale.
        relative: The error.
        expected: What rounding the operand explains.
    """

    weights: str
    block: int
    relative: float
    expected: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"weights '{self.weights}' are stored as scaled integers, and the error, {self.relative:.1e}, is that of "
            f"rounding what they are multiplied with to 8 bits in blocks of {self.block}, {self.expected:.1e}: the "
            "kernel computes in integers"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """A product of quantized weights in FP32 that errs as with an operand of 8 bits."""
    index, verdict = case.graphs[0], case.judgement
    if case.formats.candidate != FP32 or case.formats.coarse or case.formats.quantized or verdict.reason == "finite":
        return None
    for position in (p for p in case.pair.reference.nodes if operator(index.nodes[p]) in PRODUCTS):
        name = index.nodes[position].input[0]
        x = case.known(name)
        stored = _stored(index, index.nodes[position].input[1])
        if x is None or stored is None or not x.ndim or not x.size or not np.isfinite(x).all():
            continue
        weights, block = stored
        block = block if block and x.shape[-1] % block == 0 else x.shape[-1]
        expected = _rounding(x.astype(np.float64).reshape(-1, block))
        if expected / NEAR < verdict.relative < expected * NEAR:
            fact = RoundedTo8Bits(weights, block, verdict.relative, expected)
            return Diagnosis(Cause.QUANTIZATION, (fact,), position)
    return None


def _stored(index: GraphIndex, name: str) -> tuple[str, int] | None:
    """The integers of weights that a DequantizeLinear reads, and how many of them have one scale; None of others."""
    position = index.producer.get(index.moved_from(name, RENAMES))
    if position is None or operator(index.nodes[position]) != "DequantizeLinear":
        return None
    node = index.nodes[position]
    if index.constant(node.input[0]) is None and node.input[0] not in index.initializers:
        return None
    return node.input[0], attribute_int(node, "block_size", 0)


def _rounding(rows: np.ndarray) -> float:
    """The relative error of rounding to 8 bits with one step for each row."""
    step = np.abs(rows).max(axis=1) / STEPS
    size = float(np.square(rows).mean())
    return math.sqrt(float(np.square(step).mean()) / 12 / size) if size else 0.0
