"""Remedies that are no precision: the network rewritten so that a narrow format holds what it computes.

Each is proposed with its proof: what the rewritten network gives in FP32, and in the format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.fusion import fused_groups
from ...graph.formats import FORMATS, NumberFormat
from ...graph.operators import AFFINE_PRODUCTS, operator
from ...graph.rounding.constants_in_range import in_range
from ...graph.rounding.rescale import rescaled
from ..report.model import Cause
from ..runs.opening import for_rewritten
from ..runs.samples import checked, feed_of

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ..comparison import Comparison
    from ..report.model import Culprit
    from ..sides import Side

ROOM = 16
"""Powers of two between the greatest value that was seen and the greatest of the format, after a rescaling: 2^4."""
CAUSES = (Cause.OVERFLOW, Cause.UNDERFLOW, Cause.NAN)
"""Causes that a rewriting may do away with."""


@dataclass(frozen=True)
class Rewriting:
    """A network rewritten for one culprit.

    Attributes:
        text: What was done, in a clause.
        model: The network.
        exact: Whether FP32 gives the same bits by construction.
    """

    text: str
    model: Model
    exact: bool


def rewritings(comparison: Comparison, side: Side, culprit: Culprit) -> Iterator[Rewriting]:
    """What may be done about a culprit without another format, the simplest first.

    Args:
        comparison: What was compared; its samples tell how large values are.
        side: The candidate.
        culprit: One of its culprits.
    """
    index = side.model.index
    node = culprit.candidate_node or culprit.node
    if culprit.cause not in CAUSES or culprit.inside or node not in index.names:
        return
    number = FORMATS[side.runner.arithmetic.name]
    if number.is_integer:
        return
    position = index.names.index(node)
    near = _near(index, position)
    constants = in_range(side.model, near, number)
    if constants is not None and (culprit.cause is not Cause.OVERFLOW or abs(constants.before) > number.max):
        kept = "its lowest" if constants.before < -number.max else "its greatest"
        kind = kept if abs(constants.before) > number.max else "its smallest normal number"
        what = f"{constants.before:.3g} that {constants.nodes[0]} reads by {constants.after:.6g}"
        yield Rewriting(f"replace {what}, {number}'s {kind.removeprefix('its ')}", constants.model, exact=False)
    for product in _products(index, position):
        power = _power(comparison, side, index.nodes[product].output[0], number)
        found = rescaled(side.model, product, power) if power else None
        if found is not None:
            down, up = " and ".join(found.smaller), " and ".join(found.larger)
            text = f"scale the constants of {down} by 2^{-power} and those of {up} by 2^{power} (exact)"
            yield Rewriting(text, found.model, exact=True)
            return


def _near(index: GraphIndex, position: int) -> frozenset[int]:
    """The nodes of a node's fused group, and those that make what the group reads: a constant is often put in there."""
    group = next((set(g.nodes) for g in fused_groups(index) if position in g.nodes), {position})
    makers = {index.producer[n] for p in group for n in index.reads[p] if n in index.producer}
    return frozenset(group | makers)


def _products(index: GraphIndex, position: int) -> Iterator[int]:
    """The product in a node's fused group, or the one before it."""
    near = sorted(_near(index, position), reverse=True)
    yield from (p for p in near if operator(index.nodes[p]) in AFFINE_PRODUCTS)


def _power(comparison: Comparison, side: Side, tensor: str, number: NumberFormat) -> int:
    """By which power of two values have to be made smaller to fit a format; negative: larger; 0: they fit."""
    greatest = 0.0
    with for_rewritten(comparison.reference).open(side.model, fetch=[tensor]) as session:
        for sample in checked(comparison.samples):
            value = np.abs(session.infer(feed_of(session, sample), [tensor])[tensor])
            finite = value[np.isfinite(value)]
            greatest = max(greatest, float(finite.max(initial=0.0)))
    if not greatest:
        return 0
    if greatest > number.max:
        return math.ceil(math.log2(greatest / number.max)) + int(math.log2(ROOM))
    if greatest < number.smallest_normal * 2**10:
        return math.floor(math.log2(greatest))  # to about 1
    return 0
