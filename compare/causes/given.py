"""Overflow and underflow made elsewhere: the layer is given what the candidate's format cannot hold.

Looks at: the layer's inputs in the reference. Proves: that no layer which reads this tensor in the candidate's format
can be right, so that whoever makes the tensor is to blame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import BY_DTYPE, FP32, NumberFormat
from ...graph.operators import DIVIDES, SELECTION, STRETCHES, operator
from ...graph.pairing.differences import DifferenceKind
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import beyond_formats, explained, weights_read
from .evidence import count_text
from .ranges import Holder, format_loss, lost_values

if TYPE_CHECKING:
    from ...graph.index import GraphIndex


@dataclass(frozen=True)
class InfiniteByType:
    """A tensor that is infinite in the type that the graph gives it, and past which the reference is finite again.

    Attributes:
        tensor: Its name.
        format: Its type.
        count, size: How many values of how many are infinite.
    """

    tensor: str
    format: NumberFormat
    count: int
    size: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"'{self.tensor}': {count_text(self.count, self.size)} are above {self.format}'s greatest, "
            f"{self.format.max:g}, and infinite in the graph's own type, past which the reference carries wider values"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """Blames the producer of an input that the candidate's format, or the graph's own type, cannot hold."""
    if case.judgement.reason == "finite" and np.isfinite(case.y).all():
        for name in case.pair.reference.inputs:
            array = case.values[name]
            fmt = BY_DTYPE.get(array.dtype.name)
            infinite = int(np.count_nonzero(np.isinf(array))) if fmt is not None and fmt.u > FP32.u else 0
            if fmt is not None and infinite:
                return Diagnosis(Cause.OVERFLOW, (InfiniteByType(name, fmt, infinite, array.size),), producer=name)
    zero = _divides_by_zero(case)
    if zero is not None:
        return zero
    computing = case.formats.candidate
    if computing.is_integer:
        return None
    # a runtime that computes a narrow file in FP32 rounds there, and is given the greatest number of the type
    fmt = computing if computing.u > FP32.u else _type_read(case)
    if fmt is None:
        return None
    for name in case.pair.reference.inputs:
        loss = format_loss(case.values[name], fmt)
        if loss == "overflow" or (loss is not None and fmt is computing):
            if fmt is not computing and _by_weights(case, fmt):
                return None
            fact = lost_values(case.values[name], fmt, loss, Holder("input", name), case.entry)
            return Diagnosis(Cause(loss), (fact,), producer=name, clamped=fmt is not computing)
    return None


def _by_weights(case: LayerCase, fmt: NumberFormat) -> bool:
    """Whether the candidate's weights make the error of a layer, and the greatest number of the type, which stands for
    what is beyond it, does not."""
    differ = [d for _, d in beyond_formats(case.differences) if d.kind is DifferenceKind.WEIGHTS]
    if not differ:
        return False
    read = {n: case.values[n] for n in case.pair.reference.inputs if is_float(case.values[n].dtype)}
    held = {n: np.clip(array, -fmt.max, fmt.max).astype(array.dtype) for n, array in read.items()}
    alone = case.reweighted(held)
    made = None if alone is None else case.reweighted({**held, **weights_read(case.graphs, differ)})
    return alone is not None and made is not None and not explained(case, alone) and explained(case, made)


def _type_read(case: LayerCase) -> NumberFormat | None:
    """The narrow type that all floating tensors have which the candidate's layer reads; None where they have others."""
    specs = case.graphs[1].specs
    types = {s.dtype for n in case.pair.candidate.inputs if (s := specs.get(n)) is not None and is_float(s.dtype)}
    fmt = BY_DTYPE.get(types.pop().name) if len(types) == 1 else None
    return fmt if fmt is not None and fmt.u > FP32.u else None


@dataclass(frozen=True)
class BecomesZero:
    """A tensor with values that a format has no number for, so that they become zero.

    Attributes:
        tensor: Its name.
        format: The format.
        value: One of them.
        constant: Whether it is a constant of the node that makes the tensor.
        count, size: How many of how many.
    """

    tensor: str
    format: NumberFormat
    value: float
    constant: bool
    count: int
    size: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        what = f"the constant {self.value:g}, which stands in {count_text(self.count, self.size)} of '{self.tensor}',"
        if not self.constant:
            what = f"the number {self.value:g} in '{self.tensor}', as small as {count_text(self.count, self.size)},"
        return (
            f"{what} becomes zero: {self.format}'s smallest number is {self.format.smallest_subnormal:.2g}, and a "
            "division, logarithm or power of zero follows"
        )


def _divides_by_zero(case: LayerCase) -> Diagnosis | None:
    """Blames the producer of an input with numbers so small that the format makes them zero, where none may be."""
    fmt, index = case.formats.narrow, case.graphs[0]
    if fmt is None or case.judgement.reason != "finite" or not np.isfinite(case.y).all():
        return None
    if not any(index.nodes[p].op_type in DIVIDES for p in case.pair.reference.nodes):
        return None
    for name in case.pair.reference.inputs:
        array = case.values[name]
        if not is_float(array.dtype):
            continue
        size = np.abs(array.astype(np.float64))
        lost = (size > 0) & (size <= fmt.smallest_subnormal / 2)
        if not lost.any():
            continue
        value = float(array[lost].reshape(-1)[0])
        position = _constant_of(index, name, value)
        fact = BecomesZero(name, fmt, value, position is not None, int(np.count_nonzero(lost)), array.size)
        return Diagnosis(Cause.UNDERFLOW, (fact,), position, name)
    return None


def _constant_of(index: GraphIndex, tensor: str, value: float) -> int | None:
    """The node that puts a constant into a tensor, at most some movements before it."""
    while tensor in index.producer:
        position = index.producer[tensor]
        node = index.nodes[position]
        constants = [w for n in node.input if n and (w := index.constant(n)) is not None and w.size == 1]
        if any(float(w.reshape(-1)[0]) == value for w in constants if is_float(w.dtype)):
            return position
        if operator(node) not in STRETCHES | SELECTION:
            return None
        tensor = node.input[0]
    return None
