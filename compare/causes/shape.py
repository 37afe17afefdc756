"""Another shape.

Looks at: the shapes of the output on both sides. Proves: that the candidate computes something else; what, the graphs
say where they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import in_graphs


@dataclass(frozen=True)
class Shapes:
    """Two shapes that are not one."""

    reference: tuple[int, ...]
    candidate: tuple[int, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        mine, theirs = ("x".join(map(str, shape)) or "a scalar" for shape in (self.reference, self.candidate))
        return f"the reference gives {mine}, the candidate {theirs}"


def find(case: LayerCase) -> Diagnosis | None:
    """The difference in the graphs, if there is one, with both shapes."""
    if case.y.shape == case.c.shape:
        return None
    shapes = Shapes(case.y.shape, case.c.shape)
    stated = in_graphs(case)
    return Diagnosis(Cause.WRONG_OP, (shapes,)) if stated is None else stated.adding(shapes)
