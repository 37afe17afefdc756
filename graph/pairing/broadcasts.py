"""Constants that run along other axes of a result: the slopes of channels, broadcast along a width."""

from __future__ import annotations

from dataclasses import dataclass

from ..operators import BROADCASTING, operator
from ..quantized.layouts import with_channels_last
from .constants import Operand
from .pairs import compatible
from .weight_changes import dims_text

BROADCAST_SINCE = 7
"""The opset from which on shapes alone say what a constant runs along; an attribute did before."""


@dataclass(frozen=True)
class RunsOtherwise:
    """A constant whose shape lays it along other axes.

    Attributes:
        name: The input that it is; empty where the operator's inputs can be exchanged.
        shape, candidate_shape: Its shapes.
        axes, candidate_axes: The axes of the result along which it has more than one value.
    """

    name: str
    shape: tuple[int, ...]
    candidate_shape: tuple[int, ...]
    axes: tuple[int, ...]
    candidate_axes: tuple[int, ...]

    @property
    def of(self) -> str:
        """What it is called."""
        return self.name or "the constant"

    def __str__(self) -> str:
        mine, theirs = (_named(axes) for axes in (self.axes, self.candidate_axes))
        shapes = f"shape {dims_text(self.shape)} against {dims_text(self.candidate_shape)}"
        return f"{self.of}: {shapes}, which runs along {mine} in the reference, along {theirs} in the candidate"


def runs_otherwise(mine: Operand, theirs: Operand) -> RunsOtherwise | None:
    """How a constant of two nodes of one operator runs along other axes of what they compute.

    Returns:
        None where it runs along the same axes, and where the two results are not known to have the same layout.
    """
    (reference, candidate), (x, y) = ((o.index for o in (mine, theirs)), (o.value for o in (mine, theirs)))
    node, slot = reference.nodes[mine.node], mine.slot
    broadcasts = operator(node) in BROADCASTING or (operator(node) == "Gemm" and slot == "c")
    if not broadcasts or x.size != y.size or min(g.opset.get("", 1) for g in (reference, candidate)) < BROADCAST_SINCE:
        return None
    specs = (reference.specs.get(node.output[0]), candidate.specs.get(candidate.nodes[theirs.node].output[0]))
    made, other = (None if spec is None else spec.shape for spec in specs)
    if made is None or other is None or not compatible(made, other) or max(x.ndim, y.ndim) > len(made):
        return None
    if (node.output[0] in with_channels_last(reference)) != (
        candidate.nodes[theirs.node].output[0] in with_channels_last(candidate)
    ):
        return None
    axes, others = (tuple(i + len(made) - a.ndim for i, d in enumerate(a.shape) if d != 1) for a in (x, y))
    if axes == others or not all(isinstance(made[i], int) and made[i] == other[i] for i in axes):
        return None
    return RunsOtherwise("" if slot == "const" else slot, x.shape, y.shape, axes, others)


def _named(axes: tuple[int, ...]) -> str:
    return f"ax{'is' if len(axes) == 1 else 'es'} {' and '.join(map(str, axes))}"
