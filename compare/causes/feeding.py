"""Feeding: one runner gives two results of one network, because it is fed otherwise.

Looks at: which runners are compared. Proves: where one of them is the other, fed token by token or one entry of a batch
at a time, that the layer depends on that: nothing else differs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...graph.printable import counted
from ..report.model import Cause
from .diagnosis import Diagnosis
from .unknown import greatest_difference

if TYPE_CHECKING:
    from ..sides import Side
    from .case import LayerCase


@dataclass(frozen=True)
class FedOtherwise:
    """How the network was fed where it gives another result.

    Attributes:
        schedule: Completes "fed ...".
    """

    schedule: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the same network on the same runner gives another result here when it is fed {self.schedule}"


@dataclass(frozen=True)
class SeenAt:
    """Layers each of which computes a tensor for itself that depends on how the network is fed: their names."""

    layers: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        more = f" and {counted(len(self.layers) - 1, 'more layer')}" if self.layers[1:] else ""
        return f"seen at {self.layers[0]}{more}, which compute with it"


@dataclass(frozen=True)
class RangeOfAll:
    """A quantizer that measures the range of all that it is given at once."""

    node: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"{self.node} measures its range on all that comes at once, so that what is fed together shares a step"


def schedule(reference: Side, candidate: Side) -> str:
    """How one of two sides is fed that are the same but for that; empty where they are not."""
    for one, other in ((reference, candidate), (candidate, reference)):
        whole = one.runner.in_one_run
        alike = whole is not None and type(whole) is type(other.runner) and whole.arithmetic == other.runner.arithmetic
        if alike and one.model.same_network(other.model):
            return one.runner.schedule
    return ""


def find(case: LayerCase, fed: str) -> Diagnosis | None:
    """The cause, where two sides differ in how they are fed alone.

    Args:
        case: The layer.
        fed: See `schedule`.
    """
    if not fed:
        return None
    found = Diagnosis(Cause.FEEDING, (FedOtherwise(fed), greatest_difference(case)))
    index, nodes = case.graphs[0], case.pair.reference.nodes
    measuring = next((p for p in nodes if index.nodes[p].op_type == "DynamicQuantizeLinear"), None)
    if measuring is None:
        return found
    return replace(found.adding(RangeOfAll(index.names[measuring])), node=measuring)
