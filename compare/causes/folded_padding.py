"""Scalings and shifts that one file has folded into a convolution that pads with zeros, which stand before them then.

Looks at: where the error of such a convolution is. Proves: that it is at the border alone, where the window reaches
beyond the input: the folded weights are right, and the zeros around are not what the other file pads with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...graph.cutting.slices import backward
from ...graph.index import GraphIndex
from ...graph.operators import AFFINE_STEPS
from ...graph.pairing.changes import OperatorChange, OpName
from ...graph.pairing.differences import op_names
from ...graph.pairing.normal_form import normal_form
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis

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
