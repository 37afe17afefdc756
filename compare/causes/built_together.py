"""Nodes that a runtime computes rightly layer by layer, and wrongly where it builds them together."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.printable import counted


@dataclass(frozen=True)
class BuiltTogether:
    """A part of the network that is wrong as the runtime builds it whole.

    Attributes:
        tensor: What it makes, as the candidate calls it.
        nodes: The nodes of it that compute floats, in the order of the candidate's graph.
        error: The relative L2 error of the tensor where they are built together, on the reference's values.
        apart: The same where their layers are built one by one.
        marked: A tensor inside, with which among the network's outputs the network agrees; empty where none was found.
        left: The relative L2 error at the output that is left then.
    """

    tensor: str
    nodes: tuple[str, ...]
    error: float
    apart: float
    marked: str = ""
    left: float = 0.0

    @property
    def text(self) -> str:
        """See `Fact`."""
        made = f"a relative error of {self.error:.2g} at '{self.tensor}'; built layer by layer"
        if len(self.nodes) == 1:
            return f"built as in the whole network, {self.nodes[0]} makes {made}, it makes {self.apart:.2g}"
        who = f"{counted(len(self.nodes), 'node')}, {self.nodes[0]} to {self.nodes[-1]},"
        return f"built together, {who} make {made}, they make {self.apart:.2g}"

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.marked:
            return (
                f"mark '{self.marked}' as an output of the network, too, so that the runtime does not fuse across it: "
                f"measured, a relative error of {self.left:.2g} is left"
            )
        return "build it with another optimization level, or another version of the runtime"
