"""Bias: integers of a bias that do not stand for the reference's.

Looks at: the INT32 bias that the candidate's file gives a product, its scale and those of the operands. Proves: that
the bias is beyond what 32 bits hold, or that its scale is not the product of the operands', with which integer kernels
add it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.nodes import attribute_int
from ...graph.operators import PRODUCTS, operator
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..report.model import Fact

ENDS = (-(2**31), 2**31 - 1)
"""The least and the greatest integer of 32 bits."""
SCALE = 1e-3
"""Relative difference from which on two scales are not the same."""


@dataclass(frozen=True)
class AtTheEnd:
    """A bias that stops at the ends of 32 bits."""

    name: str
    count: int
    size: int
    scale: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"bias '{self.name}': {self.count:,} of {self.size:,} values stop at an end of INT32, with a scale of "
            f"{self.scale:.3g} at {self.scale * ENDS[1]:.3g}"
        )


@dataclass(frozen=True)
class OtherScale:
    """A bias with a scale that is not the product of the operands'."""

    name: str
    scale: float
    product: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"bias '{self.name}' has the scale {self.scale:.6g}, and its operands {self.product:.6g} together, with "
            "which integer kernels add it"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """A bias that the candidate's file stores wrongly."""
    facts = tuple(broken_biases(case.graphs[1], case.pair.candidate.nodes)) if case.formats.quantized else ()
    return Diagnosis(Cause.BIAS, facts) if facts else None


def broken_biases(index: GraphIndex, nodes: tuple[int, ...]) -> Iterator[Fact]:
    """What is wrong with the INT32 biases of some nodes of a quantized file."""
    for node in (index.nodes[p] for p in nodes):
        if operator(node) not in PRODUCTS or len(node.input) < 3 or not node.input[2]:
            continue
        name = node.input[2]
        stored = _stored(index, name)
        if stored is None:
            continue
        integers, scale = stored
        ends = int(np.count_nonzero((integers == ENDS[0]) | (integers == ENDS[1])))
        if ends:
            yield AtTheEnd(name, ends, integers.size, float(np.max(scale)))
        operands = [_scale(index, read) for read in node.input[:2]]
        if operands[0] is not None and operands[1] is not None:
            product = operands[0].reshape(-1) * operands[1].reshape(-1)
            if product.size in (1, scale.size) or scale.size == 1:
                off = np.abs(scale / product - 1)
                at = int(off.argmax())
                if off[at] > SCALE:
                    yield OtherScale(name, *(float(np.broadcast_to(v, off.shape)[at]) for v in (scale, product)))


def _stored(index: GraphIndex, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The integers of a bias and its scale, where a DequantizeLinear of INT32 makes it."""
    position = index.producer.get(name)
    if position is None or operator(index.nodes[position]) != "DequantizeLinear":
        return None
    node = index.nodes[position]
    integers, scale = index.weight(node.input[0]), index.constant(node.input[1])
    if integers is None or scale is None or integers.dtype != np.int32:
        return None
    return integers, scale.astype(np.float64).reshape(-1)


def _scale(index: GraphIndex, name: str) -> np.ndarray | None:
    """The scale of an operand that a DequantizeLinear makes."""
    position = index.producer.get(name)
    if position is None or operator(index.nodes[position]) != "DequantizeLinear":
        return None
    node = index.nodes[position]
    scale = index.constant(node.input[1])
    blocks = attribute_int(node, "block_size", 0)
    return None if scale is None or blocks else scale.astype(np.float64)
