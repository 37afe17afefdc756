"""An inverted condition: the candidate takes where the reference leaves, as with a mask of the other meaning.

Looks at: what the candidate makes with the opposite condition of one Where. Proves: where that is what the reference
makes, that the condition alone is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from ...graph.cutting.slices import with_inverted
from ...graph.pairing.changes import OperatorChange
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis

MOST = 4
"""Most nodes of a layer that are tried."""
LEFT = 0.02
"""Share of the error that may be left with the opposite condition, for it to be the cause."""


@dataclass(frozen=True)
class Opposite:
    """A Where whose condition is the opposite of the reference's.

    Attributes:
        node: Its name.
        condition: The tensor that it reads as its condition.
    """

    node: str
    condition: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"the condition '{self.condition}' of Where {self.node} is inverted: with the opposite one the candidate "
            "makes what the reference does"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """The Where with the opposite condition, if that of one of them explains the error."""
    y, c = case.y, case.c
    if y.shape != c.shape or not y.size or y.dtype.kind in "bOSU":
        return None
    if case.graphs[0] is case.graphs[1]:
        return None  # one network: both select by the same conditions
    index = case.graphs[1]
    selects = any(case.graphs[0].nodes[p].op_type == "Where" for p in case.pair.reference.nodes)
    changes = (d.change for _, d in case.differences if isinstance(d.change, OperatorChange))
    if not selects and not any("Where" in dict(change.candidate) for change in changes if change.reference):
        return None  # what the second file alone selects has no opposite in the first one
    for position in islice((p for p in case.pair.candidate.nodes if index.nodes[p].op_type == "Where"), MOST):
        altered = case.altered(partial(with_inverted, node=case.pair.candidate.nodes.index(position)), {})
        made = None if altered is None else altered[case.twin]
        if explains(y, c, made):
            fact = Opposite(index.names[position], index.nodes[position].input[0])
            return Diagnosis(Cause.WRONG_OP, (fact,), candidate_node=position)
    return None


def explains(y: np.ndarray, c: np.ndarray, made: np.ndarray | None) -> bool:
    """Whether next to nothing is left of an error, and nothing that is not finite on one side alone.

    Args:
        y: What the reference makes.
        c: What the candidate makes, of the same shape.
        made: What it makes with the opposite condition; None where that could not be computed.
    """
    if made is None or made.shape != y.shape:
        return False
    finite = np.isfinite(y)
    if not np.array_equal(finite, np.isfinite(made)):
        return False
    wide, narrow, opposite = (a[finite].astype(np.float64) for a in (y, c, made))
    error = np.where(np.isfinite(narrow), narrow, 0) - wide
    left = float(np.linalg.norm(opposite - wide))
    return bool(np.any(narrow != wide)) and left <= LEFT * float(np.linalg.norm(error))
