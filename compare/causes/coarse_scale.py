"""A scale that is many times too large for its tensor, in a file whose other scales fit theirs.

Looks at: what every quantizer with one scale represents, and what its tensor takes on all samples. Proves: that one of
them wastes levels that the others use. Calibration on wider data does that, too: which of the two it is, the values
do not say, and both are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ...graph.operators import PROBABILITIES, operator
from ..report.model import Cause
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from .stored_scale import StoredScale

STANDS_OUT = 3.0
"""Times the usual share of its range that a tensor leaves unused, from which on its scale is another one than those
beside it: calibration leaves up to twice, at most."""
SHARE = 0.2
"""Share of the error at the outputs from which on a layer that rounds by it is to blame."""
FEWEST = 4
"""How many scales beside it tell what is usual."""


@dataclass(frozen=True)
class TakenOf:
    """What a tensor takes of what its quantizer represents.

    Attributes:
        tensor: The tensor.
        stored: What the file says of its quantizer.
        least, greatest: What it takes on all samples.
    """

    tensor: str
    stored: StoredScale
    least: float
    greatest: float

    @property
    def times(self) -> float:
        """How many times that is represented."""
        return self.stored.times(self.least, self.greatest)


@dataclass(frozen=True)
class CoarseScale:
    """A scale that is too large.

    Attributes:
        found: Where.
        others, usual: How many scales are beside it, and how many times what their tensors take they represent.
    """

    found: TakenOf
    others: int
    usual: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        found = self.found
        return (
            f"{found.stored.text}, where '{found.tensor}' takes {found.least:.4g} to {found.greatest:.4g} on these "
            f"inputs: {found.times:.3g} times too coarse; half of the {self.others} other scales represent at most "
            f"{self.usual:.3g} times what their tensors take, so that either this one is wrong, or calibration saw "
            "values here that these inputs do not make"
        )

    @property
    def remedy(self) -> str:
        """What makes it fit."""
        found = self.found
        scale = found.stored.fitting(found.least, found.greatest)
        return f"set {found.stored.named} to {scale:.6g}, or calibrate the range of '{found.tensor}' again"


def coarse(index: GraphIndex, taken: Iterable[TakenOf]) -> dict[str, CoarseScale]:
    """Those of some scales that stand out, by the tensor.

    What a Softmax makes, say, has a range by its operator, whatever comes; and what is moved, or is a mean, may have
    the scale of what it is made of.
    """
    every = {one.tensor: one for one in taken}
    own = {name: one for name, one in every.items() if one.times and _has_its_own(index, one, every)}
    found = {}
    for name, one in own.items():
        others = [other.times for n, other in own.items() if n != name]
        if len(others) >= FEWEST and one.times >= STANDS_OUT * max(usual := median(others), 1.0):
            found[name] = CoarseScale(one, len(others), usual)
    return found


def diagnosis(index: GraphIndex, found: CoarseScale) -> Diagnosis:
    """Blames the scale, at what makes its tensor."""
    return Diagnosis(Cause.QUANTIZATION, (found,), index.producer.get(found.found.tensor))


def _has_its_own(index: GraphIndex, one: TakenOf, every: Mapping[str, TakenOf]) -> bool:
    """Whether the scale of a tensor is that of the values that it takes."""
    position = index.producer.get(one.tensor)
    if position is None:
        return True
    node = index.nodes[position]
    if operator(node) in PROBABILITIES | {"Tanh", "Clip"}:
        return False
    before = (every[name].stored for name in node.input if name in every)
    return not any((s.scale, s.zero) == (one.stored.scale, one.stored.zero) for s in before)
