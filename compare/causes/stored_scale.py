"""What a file says of a quantizer with one scale: its node, its scale and its zero point, and what these represent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import MOVEMENT, QUANTIZERS, operator

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.quantized.float_form import FloatForm
    from ...graph.quantized.quantizers import Quantizer

ROUNDED = 1.0
"""Steps by which an end of what a tensor takes may lie beyond the last level: a zero point is rounded."""


@dataclass(frozen=True)
class StoredScale:
    """A quantizer that stands in the candidate's file.

    Attributes:
        node: Operator and name of the node that rounds.
        constant: Name of its scale in the file.
        scale, zero: Its scale and its zero point.
        ends: Its least and its greatest integer.
    """

    node: str
    constant: str
    scale: float
    zero: int
    ends: tuple[int, int]

    @classmethod
    def of(cls, file: GraphIndex, form: FloatForm, position: int, found: Quantizer) -> StoredScale | None:
        """That of a quantizer of a file's float form; None where it has not one scale, makes no integers, or where it
        is not known which node of the file has the scale.

        Args:
            file: The file's own graph.
            form: Its float form.
            position: The quantizer's position there.
            found: What it does.
        """
        if found.scale is None or found.scale.size != 1 or found.levels is not None:
            return None
        scale, zero = (
            abs(float(found.scale.reshape(-1)[0])),
            0 if found.zero is None else int(found.zero.reshape(-1)[0]),
        )
        origin, constant = form.origins[position], form.index.nodes[position].input[1]
        while constant not in file.nodes[origin].input:  # what only moves what another node has rounded
            before = file.producer.get(next(iter(file.nodes[origin].input), ""))
            if before is None or operator(file.nodes[origin]) not in MOVEMENT | QUANTIZERS:
                return None
            origin = before
        ends = int(found.ends[0]), int(found.ends[1])
        node = f"{file.nodes[origin].op_type} {file.names[origin]}"
        return cls(node, constant, scale, zero, ends) if scale else None

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value that it represents."""
        low, high = ((end - self.zero) * self.scale for end in self.ends)
        return low, high

    @property
    def levels(self) -> int:
        """How many integers it has."""
        return self.ends[1] - self.ends[0] + 1

    @property
    def text(self) -> str:
        """The node with its numbers, and what they represent."""
        low, high = self.range
        return f"{self.node} (scale {self.scale:.6g}, zero point {self.zero}) represents {low:.4g} to {high:.4g}"

    @property
    def named(self) -> str:
        """What its scale is called."""
        return f"the scale of {self.node} ({self.constant!r})"

    def times(self, low: float, high: float) -> float:
        """How many times what a tensor takes it represents, at the end that is farther from zero; 0 of nothing."""
        end, reach = (1, high) if high >= -low else (0, low)
        return self.range[end] / reach if reach else 0.0

    def fitting(self, low: float, high: float) -> float | None:
        """The scale with which it represents what a tensor takes, with its zero point; None where no scale does."""
        found = 0.0
        for value, levels in (max(high, 0.0), self.ends[1] - self.zero), (max(-low, 0.0), self.zero - self.ends[0]):
            if value > ROUNDED * self.scale and not levels:
                return None
            found = max(found, value / levels if levels else 0.0)
        return found or None

    def other_zero(self, low: float, high: float) -> int | None:
        """The zero point with which it represents what a tensor takes, with its scale; None where it does so, or none
        does."""
        least, greatest = self.ends[0] - min(low, 0.0) / self.scale, self.ends[1] - max(high, 0.0) / self.scale
        if least > greatest + ROUNDED or least - ROUNDED <= self.zero <= greatest + ROUNDED:
            return None
        return min(max(round(least), self.ends[0]), self.ends[1])
