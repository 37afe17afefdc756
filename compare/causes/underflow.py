"""Underflow: values among the subnormals of the candidate's format, or below them.

Looks at: the output, the weights, what became zero, and the tensors inside the layer as the reference computes them,
against the smallest normal number of the narrow format in play. Proves: that rounding them costs more than rounding in
the normal range does. Weights that are too large for the format are told here too: they are clamped, and nothing
becomes infinite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.operators import DIVIDES, operator
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .evidence import Elements
from .judgement import by_channel, channel_axis, output_axis
from .ranges import Holder, Loss, format_loss, lossy_weights, lost_values

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

EXPLAINS = 0.1
"""Share of the error's power that the values which became zero must have to be its cause."""
_LOSSES: tuple[Loss, ...] = ("overflow", "underflow")


@dataclass(frozen=True)
class BecameZero(Elements):
    """Values of the output that are zero in the candidate alone."""

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.first
        return f"{self.counted} became zero, first at {e.where}: {e.reference:.6g}"


def find(case: LayerCase) -> Diagnosis | None:
    """The first of output, weights, zeros, and what is inside that the format loses."""
    fmt = case.formats.narrow
    if fmt is None:
        return None
    if format_loss(case.y, fmt) == "underflow":
        fact = lost_values(case.y, fmt, "underflow", Holder("output", case.tensor))
        return Diagnosis(Cause.UNDERFLOW, (fact,))
    for loss in _LOSSES:
        weights = lossy_weights(case.graphs[0], case.pair.reference.nodes, fmt, loss)
        if weights is not None:
            return Diagnosis(Cause(loss), (weights[1],), weights[0])
    return _became_zero(case, fmt) or _inside(case, fmt) or _constant(case, fmt) or _dead_channels(case, fmt)


def of_operand(case: LayerCase) -> Diagnosis | None:
    """An output that is not finite because what a logarithm or a division reads became zero in the candidate's format.

    Who makes that operand is to blame, and a constant too small for the format that is added there says why.
    """
    fmt = case.formats.narrow
    if fmt is None or case.judgement.reason != "finite":
        return None
    index = case.graphs[0]
    given = {**case.values, **case.inner}
    for position in case.pair.reference.nodes:
        node = index.nodes[position]
        if operator(node) not in DIVIDES:
            continue
        operands = node.input[1:] if node.op_type == "Div" else node.input[:1]
        for name in (n for operand in operands for n in _through_roots(index, operand)):
            array = given.get(name)
            if array is None or not is_float(array.dtype):
                continue
            zero = (array != 0) & (np.abs(array.astype(np.float64)) < fmt.smallest_subnormal / 2)
            if not zero.any():
                continue
            made_inside = index.producer.get(name) in case.pair.reference.nodes
            holder = Holder("inside", index.names[index.producer[name]]) if made_inside else Holder("input", name)
            lost = lost_values(array, fmt, "underflow", holder)
            epsilon = _epsilon(index, name, position, fmt)
            facts = (lost,) if epsilon is None else (epsilon, lost)
            node = index.producer[name] if made_inside and epsilon is not None else None
            return Diagnosis(Cause.UNDERFLOW, facts, node, None if made_inside else name)
    return None


def _through_roots(index: GraphIndex, name: str) -> Iterator[str]:
    """A tensor, and what it is the root of: zero where that is."""
    yield name
    while name in index.producer and operator(node := index.nodes[index.producer[name]]) == "Sqrt":
        name = node.input[0]
        yield name


def _epsilon(index: GraphIndex, name: str, reader: int, fmt: NumberFormat) -> SmallConstant | None:
    """The constant too small for a format that is added to make a tensor."""
    maker = index.producer.get(name)
    if maker is None or operator(index.nodes[maker]) not in ("Add", "Max"):
        return None
    return _small_constant(index, maker, reader, fmt)


def _small_constant(index: GraphIndex, position: int, reader: int, fmt: NumberFormat) -> SmallConstant | None:
    """The first constant below a format's smallest number that a node reads; ``reader``: who reads what it makes."""
    for name in index.nodes[position].input:
        value = index.constant(name) if name else None
        if value is None or value.size != 1 or not is_float(value.dtype):
            continue
        size = abs(float(value.reshape(-1)[0]))
        if 0 < size < fmt.smallest_subnormal:
            return SmallConstant(size, fmt, index.names[reader], index.nodes[reader].op_type)
    return None


def of_weights(index: GraphIndex, nodes: Iterable[int], fmt: NumberFormat) -> Diagnosis | None:
    """Weights that underflow in the layer that costs outputs most, though their rounding explains what it errs by."""
    weights = lossy_weights(index, nodes, fmt, "underflow")
    return None if weights is None else Diagnosis(Cause.UNDERFLOW, (weights[1],), weights[0])


def of_epsilon(index: GraphIndex, tensors: Iterable[str], fmt: NumberFormat) -> Diagnosis | None:
    """The constant too small for a format that is added to one of some tensors, which the format loses values of, in
    front of an operator that tells small numbers apart: what the layer that costs outputs most makes, or reads."""
    for position in (p for name in tensors for p in index.consumers.get(name, ())):
        made = index.nodes[position].output[0]
        reader = next((p for p in index.consumers.get(made, ()) if operator(index.nodes[p]) in DIVIDES), None)
        fact = None if reader is None else _epsilon(index, made, reader, fmt)
        if fact is not None:
            return Diagnosis(Cause.UNDERFLOW, (fact,), position)
    return None


@dataclass(frozen=True)
class LostBefore:
    """Tensors that come to a constant too small for a format, and that the format loses values of, too.

    Attributes:
        format: The format.
        nodes: The nodes that make them, the first of the graph first.
        tensors: The tensors.
    """

    format: NumberFormat
    nodes: tuple[str, ...]
    tensors: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        made = " and ".join(f"{t!r} ({n})" for n, t in zip(self.nodes, self.tensors, strict=True))
        return (
            f"values of {made} are below {self.format}'s smallest normal, {self.format.smallest_normal:.2g}, on the "
            f"way there, too"
        )


def _became_zero(case: LayerCase, fmt: NumberFormat) -> Diagnosis | None:
    y, c = case.y, case.c
    lost = (y != 0) & (c == 0) & (np.abs(y.astype(np.float64)) < fmt.smallest_normal)
    if not lost.any():
        return None
    power = float(np.sum(np.square(y[lost], dtype=np.float64)))
    if power <= EXPLAINS * float(np.sum(np.square((c - y).astype(np.float64)))):
        return None
    return Diagnosis(Cause.UNDERFLOW, (BecameZero.of(case, lost),))


def _inside(case: LayerCase, fmt: NumberFormat) -> Diagnosis | None:
    index = case.graphs[0]
    for name, array in case.inner.items():
        if format_loss(array, fmt) == "underflow":
            holder = Holder("inside", index.names[index.producer[name]])
            return Diagnosis(Cause.UNDERFLOW, (lost_values(array, fmt, "underflow", holder),))
    return None


@dataclass(frozen=True)
class SmallConstant:
    """A constant that a format has no number for, in front of an operator that tells small numbers apart.

    Attributes:
        value: The constant.
        format: The format.
        node, op: The operator that reads what becomes of it.
    """

    value: float
    format: NumberFormat
    node: str
    op: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"the constant {self.value:.4g} is below {self.format}'s smallest number, "
            f"{self.format.smallest_subnormal:.2g}: it becomes that or zero, and {self.op} {self.node} follows"
        )


def _constant(case: LayerCase, fmt: NumberFormat) -> Diagnosis | None:
    """An epsilon in front of a logarithm, a division or a power."""
    index, part = case.graphs[0], case.pair.reference
    dividing = [p for p in part.nodes if index.nodes[p].op_type in DIVIDES]
    for position in part.nodes:
        after = next((p for p in dividing if p > position), None)
        if after is None:
            break
        fact = _small_constant(index, position, after, fmt)
        if fact is not None:
            return Diagnosis(Cause.UNDERFLOW, (fact,), position)
    return None


@dataclass(frozen=True)
class DeadChannels:
    """Channels of weights that a format has no numbers for.

    Attributes:
        name: The weights.
        format: The format.
        count, size: How many channels of how many.
        greatest: The greatest of their weights.
    """

    name: str
    format: NumberFormat
    count: int
    size: int
    greatest: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.count:,} of {self.size:,} channels of the weights {self.name!r} are at most {self.greatest:.2g}, "
            f"below {self.format}'s smallest number, {self.format.smallest_subnormal:.2g}: they become zero or that"
        )


def _dead_channels(case: LayerCase, fmt: NumberFormat) -> Diagnosis | None:
    """Channels that a training left at next to nothing, where one of them is what is off."""
    axis = channel_axis(case.y.shape)
    if axis is None or case.judgement.reason != "slice":
        return None
    index, channels = case.graphs[0], case.y.shape[axis]
    for position in case.pair.reference.nodes:
        node = index.nodes[position]
        for name in list(node.input)[1:2]:
            weight = index.weight(name)
            along = None if weight is None or weight.ndim < 2 else output_axis(node, weight.ndim)
            if weight is None or along is None or weight.shape[along] != channels:
                continue
            largest = np.abs(by_channel(weight, along)).max(axis=1)
            dead = (largest > 0) & (largest < fmt.smallest_subnormal)
            if dead.any():
                fact = DeadChannels(name, fmt, int(dead.sum()), channels, float(largest[dead].max()))
                return Diagnosis(Cause.UNDERFLOW, (fact,), position, clamped=True)
    return None
