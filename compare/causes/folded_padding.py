"""Scalings and shifts that one file has folded into a convolution that pads with zeros, which stand before them then.

Looks at: where the error of such a convolution is, or what was added to its bias. Proves: that the error is at the
border alone, where the window reaches beyond the input: the folded weights are right, and the zeros around are not what
the other file pads with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...graph.cutting.slices import backward
from ...graph.index import GraphIndex
from ...graph.operators import AFFINE_STEPS
from ...graph.pairing.changes import OperatorChange, OpName
from ...graph.pairing.constants import constant_value
from ...graph.pairing.differences import op_names
from ...graph.pairing.normal_form import normal_form
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer
from .input_stage import Shifted

SAME = 1e-3
"""Relative difference up to which a bias holds a shift, which is known by what it does to the input."""
INSIDE = 1e-2
"""Mean square of the error inside, as a share of that at the border, up to which all of it is at the border."""


@dataclass(frozen=True)
class PaddedBefore:
    """What is folded into a convolution on one side alone.

    Attributes:
        change: The nodes that the other side has for it.
        into: Operator and name of the convolution.
        count, size: Of how many places of the output the window reaches beyond the input, and how many there are.
    """

    change: OperatorChange
    into: str
    count: int
    size: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        side = "the reference" if self.change.candidate else "the candidate"
        return (
            f"{self.change}: {side} has that folded into {self.into}, whose zeros of padding come before it there, and "
            f"behind it in the other file; all of the error is where the window reaches beyond the input, at "
            f"{self.count:,} of {self.size:,} places"
        )


@dataclass(frozen=True)
class ShiftInBias:
    """A shift of the input that is folded into the bias of a convolution on one side alone.

    Attributes:
        change: The nodes that the other side has for it; empty where it is not known which.
        into: Operator and name of the convolution.
    """

    change: str
    into: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        told = f"{self.change}: " if self.change else ""
        return (
            f"{told}the candidate has the shift in the bias of {self.into} instead, which is right but where the "
            "window reaches beyond the input: the zeros of padding are not shifted there"
        )


def in_bias(
    graphs: tuple[GraphIndex, GraphIndex], nodes: tuple[int, Sequence[int]], found: Diagnosis
) -> Diagnosis | None:
    """What a shifted input is told as, where a convolution that pads with zeros has exactly that shift in its bias.

    Args:
        graphs: The reference's graph and the candidate's.
        nodes: The convolution in the reference, and those of its layer in the candidate.
        found: What was found of the layer that shifts.
    """
    index, other = graphs
    offsets = next((fact.offsets for fact in found.facts if isinstance(fact, Shifted)), ())
    twins = [p for p in nodes[1] if other.nodes[p].op_type == "Conv"]
    if not offsets or index.nodes[nodes[0]].op_type != "Conv" or len(twins) != 1:
        return None
    settings = normal_form(index, nodes[0], lambda name: index.weight(name) is not None).settings
    read = [index.nodes[nodes[0]].input, other.nodes[twins[0]].input]
    weights = [constant_value(graph, names[1]) for graph, names in zip(graphs, read, strict=True)]
    if not any(settings.get("pads") or ()) or any(w is None or w.shape[1] % len(offsets) for w in weights):
        return None
    mine, theirs = (w.astype(np.float64) for w in weights if w is not None)
    if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=SAME, atol=SAME * np.abs(mine).max()):
        return None
    shifts = np.broadcast_to(np.asarray(offsets), (mine.shape[1],))
    share = np.tensordot(mine.sum(axis=tuple(range(2, mine.ndim))), shifts, axes=1)
    biases = [
        constant_value(graph, names[2]) if len(names) > 2 else None for graph, names in zip(graphs, read, strict=True)
    ]
    own, its = (np.zeros_like(share) if b is None else b.astype(np.float64) for b in biases)
    if not np.allclose(its - own, -share, rtol=SAME, atol=SAME * np.abs(share).max()):
        return None
    stated = [str(f.difference.change) for f in found.facts if isinstance(f, GraphsDiffer)]
    into = f"Conv {index.names[nodes[0]]}"
    return Diagnosis(
        Cause.WRONG_OP,
        (ShiftInBias(stated[0] if stated else "", into), *(f for f in found.facts if isinstance(f, Shifted))),
        found.node,
    )


def find(case: LayerCase) -> Diagnosis | None:
    """An error at the border alone of a convolution that something is folded into."""
    index, main = case.graphs[0], case.pair.main
    if index.nodes[main].op_type != "Conv" or case.y.shape != case.c.shape:
        return None
    folded = _folded(case)
    given = None if folded is None else case.operands()
    border = None if given is None else _border(index, main, given[0].shape[2:], case.y.shape[2:])
    if folded is None or border is None or not border.any() or border.all():
        return None
    with np.errstate(all="ignore"):
        error = np.square(case.c.astype(np.float64) - case.y).reshape(-1, *border.shape).mean(axis=0)
        at_border = bool(error[~border].mean() <= INSIDE * error[border].mean())
    if not at_border:
        return None
    into = f"Conv {index.names[main]}"
    return Diagnosis(Cause.WRONG_OP, (PaddedBefore(folded, into, int(border.sum()), border.size),), main)


def _folded(case: LayerCase) -> OperatorChange | None:
    """The scalings and shifts that the layer has before its convolution on one side, and on the other has not."""
    found: list[tuple[OpName, ...]] = []
    for index, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True):
        last = [p for p in part.nodes if index.nodes[p].op_type == "Conv"][-1:]
        before = [name for p in last for name in index.nodes[p].input[:1] if name not in part.inputs]
        steps = backward(index, before, set(part.inputs)).nodes if before else ()
        if not last or not {index.nodes[p].op_type for p in steps} <= AFFINE_STEPS | {"Constant"}:
            return None
        found.append(op_names(index, (p for p in steps if index.nodes[p].op_type != "Constant")))
    change = OperatorChange(*found)
    return change if change.alone else None


def _border(index: GraphIndex, position: int, before: tuple[int, ...], behind: tuple[int, ...]) -> np.ndarray | None:
    """Where a convolution's window reaches beyond its input, place by place of its output; None where that is unknown.

    Args:
        index: The graph.
        position: The convolution.
        before, behind: The sizes that its window runs over, and those of its output.
    """
    settings = normal_form(index, position, lambda name: index.weight(name) is not None).settings
    pads, kernel = settings.get("pads"), settings.get("kernel_shape")
    if not pads or not kernel or not len(kernel) == len(before) == len(behind):
        return None
    border = np.zeros(behind, bool)
    for axis, (size, places) in enumerate(zip(before, behind, strict=True)):
        reach, stride = (kernel[axis] - 1) * settings["dilations"][axis] + 1, settings["strides"][axis]
        if (size + pads[axis] + pads[axis + len(kernel)] - reach) // stride + 1 != places:
            return None
        first = np.arange(places) * stride - pads[axis]
        beyond = (first < 0) | (first + reach > size)
        border |= beyond.reshape([-1 if i == axis else 1 for i in range(len(behind))])
    return border
