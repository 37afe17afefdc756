"""Optional inputs that depend on the data, and that one of two nodes alone has: the lengths of sequences, a mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..index import GraphIndex
from .normal_form import CAPTURED, NormalForm, is_optional, spelled


@dataclass(frozen=True)
class InputAbsent:
    """A tensor that only one of two nodes reads, as an input that may be left out.

    Attributes:
        op: The operator.
        slot: The input, by the operator's schema.
        name: The tensor.
        in_candidate: Whether it is the candidate that lacks it.
    """

    op: str
    slot: str
    name: str
    in_candidate: bool

    def __str__(self) -> str:
        has, lacks = ("reference", "candidate") if self.in_candidate else ("candidate", "reference")
        return f"{self.op} reads '{self.name}' as {self.slot} in the {has}, and has no {self.slot} in the {lacks}"


def absent_inputs(
    reference: GraphIndex, n: int, a: NormalForm, candidate: GraphIndex, m: int, b: NormalForm
) -> Iterator[InputAbsent]:
    """The optional inputs that one of two nodes alone has, each node given with its graph, position and normal form."""
    if a.commutative:
        return
    for index, position, own, other, in_candidate in ((reference, n, a, b, True), (candidate, m, b, a, False)):
        there = {slot for slot, _ in other.data} | other.weights.keys() | other.settings.keys()
        for slot, name in own.data:
            if slot not in there and not slot.startswith(CAPTURED) and is_optional(index, position, slot):
                yield InputAbsent(index.nodes[position].op_type, spelled(index, position, slot), name, in_candidate)
