"""A narrow accumulator of integers: kernels that add two products of 8 bits in 16 bits, where large ones saturate.

CPUs of x86 without VNNI have no other instruction for unsigned activations times signed weights (VPMADDUBSW), and ONNX
Runtime uses it unless it is told not to (``session.x64quantprecision``).

Looks at: layers that the graph computes in scaled integers. Proves: that the layer's error is within what quantizing
explains once the same runtime computes it, from the same values, by kernels that do not saturate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import QUANTIZED, operator
from ..report.model import Cause
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from .case import LayerCase
    from .judgement import Judgement


@dataclass(frozen=True)
class PairsSaturate:
    """Sums of two products that do not fit in 16 bits.

    Attributes:
        runner: Who computes them so.
        relative: The layer's relative L2 error.
        exact: The same by kernels that do not saturate.
    """

    runner: str
    relative: float
    exact: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"on this CPU, 8-bit kernels of {self.runner} add two products in 16 bits, where large ones saturate: the "
            f"error is {self.relative:.2g}, by kernels that do not {self.exact:.2g}"
        )


def multiplies_integers(index: GraphIndex, nodes: Iterable[int]) -> bool:
    """Whether nodes of a graph take or give scaled integers, so that a runtime may multiply them."""
    return any(operator(index.nodes[p]) in QUANTIZED for p in nodes)


def find(case: LayerCase, exactly: Iterable[tuple[str, Callable[[], Judgement | None]]]) -> Diagnosis | None:
    """The cause, where one side alone saturates.

    Args:
        case: The layer.
        exactly: The names of sides that can compute it without, and the judgement on the layer where they do; None
            where they cannot compute it alone.
    """
    for name, judged in exactly:
        found = judged()
        if found is not None and not found.exceeds_noise:
            return Diagnosis(Cause.NARROW_ACCUMULATOR, (PairsSaturate(name, case.judgement.relative, found.relative),))
    return None
