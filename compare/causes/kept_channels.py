"""Pruned channels: a product that was left with the weights of other channels than it is given.

Looks at: which of the reference's channels the weights of two products belong to, the one that makes them and the one
that reads them. Proves: that weights and channels do not belong together, whatever the channels are worth.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.printable import counted, few
from ..report.model import Cause
from .diagnosis import Diagnosis

FEW = 3
"""How many channels are named."""


@dataclass(frozen=True)
class KeepsOthers:
    """A product whose weights are those of other channels than it is given.

    Attributes:
        maker: Operator and name of the node that makes the channels.
        given: The channels that this one keeps, and the reader lacks.
        weighted: The channels of which the reader has weights, and that are not kept.
        before, after: How many channels there are on each side.
        moved: How many channels meet the weights of another one.
    """

    maker: str
    given: tuple[int, ...]
    weighted: tuple[int, ...]
    before: int
    after: int
    moved: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        kept = f"of {self.before} channels that {self.maker} makes, {self.after} are kept in the candidate"
        told = f"{kept}, and {counted(self.moved, 'of them meets', 'of them meet')} the weights of another channel"
        if not self.given:
            return f"{told}: they are in another order here"
        place = "them" if len(self.weighted) > 1 else "it"
        theirs = f"the weights here are those of {_channels(self.weighted)} in place of {place}"
        return f"{told}: {self.maker} keeps {_channels(self.given)}, {theirs}"

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"keep the weights of the channels here that {self.maker} keeps in the second file"


def _channels(numbers: tuple[int, ...]) -> str:
    return f"channel{'s' if len(numbers) > 1 else ''} {few([*map(str, numbers)], FEW)}"


def keeps_others(maker: str, node: int, given: tuple[int, ...], weighted: tuple[int, ...], before: int) -> Diagnosis:
    """The diagnosis on a reader.

    Args:
        maker: Operator and name of the node that makes the channels.
        node: The reader, in the reference's graph.
        given, weighted: The channels that are made, and those of which the reader has weights, in order.
        before: How many the reference has.
    """
    moved = sum(a != b for a, b in zip(given, weighted, strict=True))
    alone = [tuple(i for i in one if i not in other) for one, other in ((given, weighted), (weighted, given))]
    fact = KeepsOthers(maker, alone[0], alone[1], before, len(given), moved)
    return Diagnosis(Cause.WEIGHTS, (fact,), node)
