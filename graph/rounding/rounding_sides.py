"""Where two sides of a comparison round, and how coarsely: what random roundings are written for."""

from __future__ import annotations

from dataclasses import dataclass

from ..formats import FP32, NumberFormat, coarser


@dataclass(frozen=True)
class Roundoff:
    """Where two sides of a comparison round, and how coarsely.

    Attributes:
        reference, candidate: The formats in which the two sides compute FP32 layers.
        accumulator: The format in which the candidate adds up products.
        fp16_sums: Names of nodes whose products add up in FP16, whatever ``accumulator`` says.
        every_node: Whether the candidate rounds after every node, not at the borders of fused groups alone.
        inputs: Inputs that one side casts to another type, and the coarser type.
        casts: What Casts to a narrow type make of tensors that the other side has as they are.
        stored: Weights that one side holds in a narrow format and makes FP32 of, and that format.
        doubles: Whether what is FP64 in the network is FP32 on the other side.
        rounded_weights: Whether weights that the graph holds in FP16 or BF16 were rounded on one side only.
        subnormals: Whether numbers that are subnormal in the coarser format are rounded to its smallest ones, too.
            Constants of one element are not: what becomes of an epsilon is a fault and no rounding.
        by_value: Whether vectors of equal values (the same token many times, a blank background) are rounded alike, as
            kernels round them: their errors add up where others cancel.
    """

    reference: NumberFormat = FP32
    candidate: NumberFormat = FP32
    accumulator: NumberFormat = FP32
    fp16_sums: frozenset[str] = frozenset()
    every_node: bool = False
    rounded_weights: bool = False
    subnormals: bool = False
    by_value: bool = False
    inputs: tuple[tuple[str, NumberFormat], ...] = ()
    doubles: bool = False
    casts: frozenset[str] = frozenset()
    stored: tuple[tuple[str, NumberFormat], ...] = ()

    @property
    def coarse(self) -> NumberFormat:
        """The coarser of the two formats."""
        return coarser(self.reference, self.candidate)
