"""Bias: integers of a bias that do not stand for the reference's.

Looks at: the INT32 bias that the candidate's file gives a product, its scale and those of the operands. Proves: that
the bias is beyond what 32 bits hold, or that its scale is not the product of the operands', with which integer kernels
add it, and that this makes the layer's error.
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
from .differences import EXPLAINS
from .undoing import stays

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from ..report.model import Fact

ENDS = (-(2**31), 2**31 - 1)
"""The least and the greatest integer of 32 bits."""
SCALE = 1e-3
"""Relative difference from which on two scales are not the same."""


@dataclass(frozen=True)
class AtTheEnd:
    """A bias that stops at the ends of 32 bits; ``scale``: the greatest of the values that do."""

    name: str
    count: int
    size: int
    scale: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"bias '{self.name}': {self.count:,} of {self.size:,} values stop at an end of INT32, whose scale there, "
            f"at most {self.scale:.3g}, reaches {self.scale * ENDS[1]:.3g}"
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
    """A bias that the candidate's file stores wrongly, where that explains the error.

    A bias with another scale than its operands together is off by its integers times the difference of the scales.
    """
    facts: list[Fact] = []
    for node in _biased(case) if case.formats.quantized else ():
        index, name = case.graphs[1], node.input[2]
        stored = _stored(index, name)
        if stored is None:
            continue
        integers, scale = stored
        stopped = (integers == ENDS[0]) | (integers == ENDS[1])
        if stopped.any() and not _stays_with_reference(case, name, integers.size):
            largest = float(np.broadcast_to(scale, integers.shape)[stopped].max())
            facts.append(AtTheEnd(name, int(np.count_nonzero(stopped)), integers.size, largest))
        product = _product(index, node)
        if product is None or not (product.size in (1, scale.size) or scale.size == 1):
            continue
        off = np.abs(scale / product - 1)
        at = int(off.argmax())
        if off[at] > SCALE and _explains(case, name, integers, scale, product):
            facts.append(OtherScale(name, *(float(np.broadcast_to(v, off.shape)[at]) for v in (scale, product))))
    return Diagnosis(Cause.BIAS, tuple(facts)) if facts else None


def _biased(case: LayerCase) -> Iterator[onnx.NodeProto]:
    """The products of the candidate's layer that have a bias."""
    for node in (case.graphs[1].nodes[p] for p in case.pair.candidate.nodes):
        if operator(node) in PRODUCTS and len(node.input) > 2 and node.input[2]:
            yield node


def _product(index: GraphIndex, node: onnx.NodeProto) -> np.ndarray | None:
    """The scales of the operands of a product together; None where they have none."""
    data, weights = (_scale(index, read) for read in node.input[:2])
    return None if data is None or weights is None else data.reshape(-1) * weights.reshape(-1)


def _explains(case: LayerCase, name: str, integers: np.ndarray, scale: np.ndarray, product: np.ndarray) -> bool:
    """Whether a bias with another scale than its operands together makes the error of a layer: most of it goes away
    where all add it with one of the two; where that cannot be computed, the bias is off by enough."""
    left = [stays(case, {name: (integers * one).astype(np.float32)}) for one in (scale, product)]
    return _large(case, integers * (scale - product)) if None in left else not all(left)


def _stays_with_reference(case: LayerCase, name: str, size: int) -> bool:
    """Whether most of a layer's error is known to be left with the bias of the reference's product."""
    index, reads = case.graphs[0], case.graphs[0].nodes[case.pair.main].input
    bias = index.weight(reads[2]) if len(reads) > 2 else None
    return bias is not None and bias.size == size and stays(case, {name: bias.astype(np.float32)}) is True


def _large(case: LayerCase, off: np.ndarray) -> bool:
    """Whether a bias that is off by so much may make the error of a layer: by its size, or in proportion to what it is
    added to, for an activation shrinks what it is given and a factor stretches it."""
    if case.judgement.reason == "slice":  # one channel of many
        return True
    error = case.c.astype(np.float64) - case.y.astype(np.float64)
    names = [n for n in case.graphs[0].nodes[case.pair.main].output if n in case.values or n in case.inner]
    sums = case.known(names[0]) if names else case.y
    moved = max(_rms(off) / (_rms(error) or 1.0), _rms(off) / (_rms(sums) or 1.0) / (case.judgement.relative or 1.0))
    return moved > EXPLAINS


def _rms(values: np.ndarray | None) -> float:
    return 0.0 if values is None or not values.size else float(np.sqrt(np.mean(np.square(values.astype(np.float64)))))


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
