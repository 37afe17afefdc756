"""What the two sides of a comparison round, as standard deviations: what a probe (`noise_probe`) draws from.

A rounding error in units of u has mean square kappa = (3/8) / (3 ln 2), for values whose logarithm is spread evenly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ..formats import FP32, NumberFormat
from ..operators import CASTS, EXACT_OPERATORS, facts_of, is_data, operator
from .fp16_accumulation import STEP

if TYPE_CHECKING:
    from ..index import GraphIndex

KAPPA = (3 / 8) / (3 * math.log(2))
"""Mean of (rounding error / u)^2 over values with evenly spread logarithms: 0.180."""

AMPLITUDE = 2.0**-10
"""Relative size of the largest perturbation. Large against FP32's rounding, small enough for the layer to be linear."""


TRANSCENDENTAL = 4.0
"""Units roundoff that a library function (exp, erf, tanh) may be off by, against one half for arithmetic."""

SPECTRAL = 8 * TRANSCENDENTAL
"""Units roundoff, of a spectrum's mean magnitude, by which sums with sines and cosines are off: of angles that FP32
holds."""

NEGLIGIBLE = 1 / 16
"""Share of a rounding below which another one of the same values is left out: it adds 0.2 % to what both come to."""

EXACT = EXACT_OPERATORS | CASTS | {"QuantizeLinear"}
"""Operators that round nothing by themselves. A Cast or quantizer of the graph rounds on both sides."""


Step = float | np.ndarray
"""Standard deviations of roundings to scaled integers: one, or one for each channel, block or element."""


def is_rounded(node: onnx.NodeProto, slot: int) -> bool:
    """Whether a target rounds what a node reads in this place, rather than taking it as it is: sizes, bounds, axes."""
    facts = facts_of(node)
    return operator(node) not in CASTS and (is_data(node, slot) or slot in facts.coordinates)


def together(*sizes: float) -> float:
    """Standard deviation of independent roundings of a value, without those `NEGLIGIBLE` beside the largest."""
    most = max(sizes)
    return math.hypot(*(size for size in sizes if size > NEGLIGIBLE * most))


def computes_in_fp64(index: GraphIndex, nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether some of a graph's nodes compute in FP64: with an input that is cast from it at once, nothing does."""
    names = (n for node in nodes for n in (*node.output, *(node.input if node.op_type != "Cast" else ())))
    return any((spec := index.specs.get(name)) is not None and spec.dtype == np.float64 for name in names)


@dataclass(frozen=True)
class Roundings:
    """What the two sides of a comparison round, as standard deviations.

    Attributes:
        operand: Of operands (inputs and weights), relative.
        accumulator: Of one addition, relative.
        inner: Between the nodes of a layer, relative.
        result: Of what a layer returns, relative.
        floor: Of what a layer returns, absolute: half a step among the subnormals.
        steps: Absolute, where the format is a scaled integer: step / sqrt(12), a number or shaped to broadcast against
            the tensor. By name of the tensor: an operand, weights, or what a node inside makes; of a single layer by
            `exploded_name`.
        products: How many products of a matrix are added before the accumulator rounds.
        small: Operands with values among the subnormals, which round by ``floor``.
    """

    operand: float
    accumulator: float
    inner: float
    result: float
    floor: float
    steps: Mapping[str, Step] = field(default_factory=dict)
    products: int = 1
    small: frozenset[str] = frozenset()

    @property
    def coarse(self) -> bool:
        """Whether one side rounds coarser than FP32."""
        return self.operand > 0 or bool(self.steps)

    @property
    def largest(self) -> float:
        """The largest relative one."""
        return max(self.operand, self.accumulator, self.inner, self.result)

    def adding(self, terms: float, together: bool) -> tuple[float, float]:
        """Of a sum of ``terms`` products in all: relative to one of random signs, and relative to the sum itself.

        Args:
            terms: K.
            together: Whether `products` are added before the accumulator rounds, where it is narrow; else it rounds
                for each.
        """
        if self.products == 1:
            return self.accumulator * math.sqrt(terms / 2), 0.0
        rounded, exactly = terms, 0.0
        if together:
            rounded = math.ceil(terms / self.products) - 1  # the last time is the rounding of the result
            exactly = FP32.u * math.sqrt(KAPPA * terms)
        return math.hypot(self.accumulator * math.sqrt(rounded / 6), exactly), self.accumulator * math.sqrt(rounded / 3)

    @property
    def gain(self) -> float:
        """By how much a probe enlarges them. Integer steps are taken as they are."""
        return 1.0 if self.steps else max(1.0, AMPLITUDE / self.largest)


def roundings(
    reference: NumberFormat,
    candidate: NumberFormat,
    steps: Mapping[str, Step] | None = None,
    accumulator: NumberFormat = FP32,
    *,
    typed: bool = False,
) -> Roundings:
    """The roundings of two sides that compute layers in these formats, the reference adding in FP32.

    Args:
        reference, candidate: Formats of operands and results.
        steps: See `Roundings`.
        accumulator: The format in which the candidate adds.
        typed: Whether tensors between the nodes of a layer have these formats too, because the graph says so.
    """
    root = math.sqrt(KAPPA)
    floats = [f for f in (reference, candidate) if not f.is_integer]
    coarse = [f.u for f in floats if f.u > FP32.u]
    plain = root * math.sqrt(2) * FP32.u
    operand = root * math.hypot(*coarse) if coarse else 0.0
    floor = max((f.smallest_subnormal for f in floats), default=0.0) / math.sqrt(12)
    adding = root * math.hypot(FP32.u, accumulator.u)
    inner = math.hypot(operand, 2 * plain)
    products = STEP if accumulator.u > FP32.u else 1
    return Roundings(operand, adding, inner if typed else 2 * plain, inner, floor, steps or {}, products)
