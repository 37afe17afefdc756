"""The candidate cannot run the layer on the reference's values, or cannot open it by itself.

Looks at: what the runtime said. Proves, of what was opened: that the candidate's layer does not take what the reference
has there. Of what was not opened it proves nothing: the whole model was, and ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.printable import counted
from ..report.model import Cause
from .baked_constant import of_sizes
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..lockstep.plan import LayerPair

NAMED = 3
"""Most layers that are named."""


@dataclass(frozen=True)
class Refused:
    """What the candidate's runtime said of the reference's values."""

    message: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the candidate cannot run it on the reference's values: {self.message}"


@dataclass(frozen=True)
class RefusedToo:
    """Other layers that the candidate's runtime refuses with the same words.

    Attributes:
        layers: Their names.
    """

    layers: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        names = ", ".join(self.layers[:NAMED]) + (", ..." if len(self.layers) > NAMED else "")
        return f"nor can it run {counted(len(self.layers), 'more layer')}, for the same reason: {names}"


@dataclass(frozen=True)
class NotBuilt:
    """What the candidate's runtime said when it was to open the layer."""

    message: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the candidate cannot open it by itself: {self.message}"


def cannot_run(graphs: tuple[GraphIndex, GraphIndex], pair: LayerPair, fact: Refused) -> Diagnosis:
    """A layer that the candidate runs in the whole model, and not on what the reference gives it.

    Args:
        graphs: The reference's and the candidate's.
        pair: The layer.
        fact: What the runtime said.
    """
    baked = None if graphs[0] is graphs[1] else of_sizes(graphs, pair)
    if baked is None:
        return Diagnosis(Cause.WRONG_OP, (fact,))
    maker, told = baked
    return Diagnosis(Cause.WRONG_OP, (told, fact), maker)
