"""Layout: the same values in other places, or channels in another order.

Looks at: the output's values sorted, and the distances between its channels. Proves: that what is computed is right, to
within what rounding explains, and stands elsewhere (a transposition, an axis, an order of gates or colours).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from ...graph.nodes import attribute_ints
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .evidence import Element
from .judgement import by_channel, channel_axis

SAME_ELSEWHERE = 1e-3
"""Share of the error's power that may be left once the values are sorted, for them to be the same in other places."""
NOISES = 16
"""Times the expected error that may be left: values of two tensors of one distribution are nearly alike once sorted."""
_MOST_CHANNELS = 4096
_FEWEST_VALUES = 4
_MOST_AXES = 5
_FIRST = 4096
"""Elements that tell whether axes are exchanged."""


@dataclass(frozen=True)
class ElementsMoved:
    """The same values in other places."""

    first: Element

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.first
        return f"the same values in other places, first at {e.where}: {e.reference:.6g} against {e.candidate:.6g}"


@dataclass(frozen=True)
class ChannelsMoved:
    """Channels in another order.

    Attributes:
        axis: Their axis.
        count, channels: How many moved of how many.
        example: Where one of them stands in the reference and in the candidate.
    """

    axis: int
    count: int
    channels: int
    example: tuple[int, int]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"the channels of axis {self.axis} stand in another order: {self.count} of {self.channels} moved, "
            f"e.g. {self.example[0]} to {self.example[1]}"
        )


@dataclass(frozen=True)
class PermutationsDiffer:
    """The order of axes that a Transpose makes."""

    reference: tuple[int, ...]
    candidate: tuple[int, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"perm {list(self.reference)} against {list(self.candidate)}"


def find(case: LayerCase) -> Diagnosis | None:
    """Elements or channels that moved."""
    y, c = case.y, case.c
    if y.size < 2:
        return None
    error = float(np.sum(np.square(c.astype(np.float64) - y)))
    left = float(np.sum(np.square(np.sort(c, axis=None).astype(np.float64) - np.sort(y, axis=None))))
    if not error or left > SAME_ELSEWHERE * error or left > _noise(case):
        return None
    fact = _channels(y, c) or ElementsMoved(Element.first(case, c != y))
    found = _transposed(case)
    if found is None:
        return Diagnosis(Cause.LAYOUT, (fact,))
    position, change = found
    return Diagnosis(Cause.LAYOUT, (change, fact), position)


def axes_exchanged(case: LayerCase, found: Diagnosis) -> bool:
    """Whether values that moved are channels in another order, or the reference's with their axes in another one: not
    reversed, repeated or shifted.

    Args:
        case: The layer.
        found: What `find` says of it.
    """
    y, c = case.y, case.c
    if not all(isinstance(fact, ElementsMoved) for fact in found.facts) or y.ndim > _MOST_AXES:
        return True
    first = c.flat[:_FIRST]
    orders = (np.transpose(y, order).flat[:_FIRST] for order in itertools.permutations(range(y.ndim)))
    return any(np.allclose(first, values, rtol=1e-2, atol=0) for values in orders)


def _noise(case: LayerCase) -> float:
    """The power of the error that may be left between the same values; infinite where the noise is not known."""
    if case.judgement.expected is None:
        return math.inf
    return float(np.sum(np.square(NOISES * case.judgement.expected * case.y.astype(np.float64))))


def _transposed(case: LayerCase) -> tuple[int, PermutationsDiffer] | None:
    """The Transpose of the layer that moves its values otherwise: its position, and how."""
    sides = []
    for index, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True):
        nodes = ((p, index.nodes[p]) for p in sorted(part.nodes))
        sides.append([(p, attribute_ints(node, "perm")) for p, node in nodes if node.op_type == "Transpose"])
    mine, theirs = sides
    if len(mine) != len(theirs):
        return None
    changed = [(p, a, b) for (p, a), (_, b) in zip(mine, theirs, strict=True) if a and b and a != b]
    if len(changed) != 1:
        return None
    position, a, b = changed[0]
    return position, PermutationsDiffer(tuple(a), tuple(b))


def _channels(y: np.ndarray, c: np.ndarray) -> ChannelsMoved | None:
    """Channels in another order: the same norms, each channel nearly equal to another one."""
    axis = channel_axis(y.shape)
    if axis is None:
        return None
    n = y.shape[axis]
    a, b = by_channel(y, axis), by_channel(c, axis)
    if n > _MOST_CHANNELS or a.shape[1] < _FEWEST_VALUES:
        return None
    distance = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    order = distance.argmin(axis=0)
    if len(set(order.tolist())) < n or np.array_equal(order, np.arange(n)):
        return None
    left = float(np.sum((b - a[order]) ** 2))
    if left > SAME_ELSEWHERE * float(np.sum((b - a) ** 2)):
        return None
    moved = np.flatnonzero(order != np.arange(n))
    return ChannelsMoved(axis, len(moved), n, (int(order[moved[0]]), int(moved[0])))
