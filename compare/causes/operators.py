"""Other operators: the candidate computes the layer with operators that the reference has not.

Looks at: the sets of operators on both sides, those that only carry values left out. Proves: that the two are not the
same computation; not, that the difference is a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.operators import SILENT
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .evidence import greatest_difference

if TYPE_CHECKING:
    from ...graph.index import GraphIndex


@dataclass(frozen=True)
class OtherOperators:
    """What the candidate computes a layer without, and with."""

    without: tuple[str, ...]
    using: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        what = []
        if self.without:
            what.append(f"without {', '.join(self.without)}")
        if self.using:
            what.append(f"with {', '.join(self.using)}{' instead' if self.without else ''}")
        return f"the candidate computes it {' and '.join(what) or 'with other operators'}"


def signatures(case: LayerCase) -> tuple[list[str], list[str]]:
    """The operators that a layer is made of, in both graphs."""
    mine, theirs = case.graphs
    return _signature(mine, case.pair.reference.nodes), _signature(theirs, case.pair.candidate.nodes)


def _signature(index: GraphIndex, nodes: Sequence[int]) -> list[str]:
    return sorted({index.nodes[p].op_type for p in nodes} - (SILENT - {"Flatten", "Transpose"}))


def find(case: LayerCase) -> Diagnosis | None:
    """The operators that one side has and the other has not."""
    mine, theirs = signatures(case)
    if mine == theirs:
        return None
    other = OtherOperators(tuple(op for op in mine if op not in theirs), tuple(op for op in theirs if op not in mine))
    return Diagnosis(Cause.WRONG_OP, (other, greatest_difference(case)))
