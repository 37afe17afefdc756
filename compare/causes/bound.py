"""The hard bound is broken: no rounding does that, in any order of sums.

Looks at: |error| over the largest error that rounding explains, element by element (`graph.rounding.error_bound`).
Proves: a wrong operator, where both sides are known to add as IEEE arithmetic does; elsewhere (Winograd's convolution,
tensor cores) it is evidence from `EVIDENCE` times on. Sums in a narrower format than is said may break it too, and are
given the benefit of the doubt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..report.model import Cause
from .accumulator import adding_format
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import in_graphs
from .evidence import Element, count_text
from .judgement import use_of
from .operators import signatures

EVIDENCE = 16.0
"""Times a hard bound from which on breaking it speaks for a wrong operator, where the bound is not proven to hold."""


@dataclass(frozen=True)
class BoundBroken:
    """An element beyond what rounding explains.

    Attributes:
        worst: The element that is beyond it by most.
        difference, bound: Its error, and the largest that rounding explains.
        count, size: How many elements of how many are beyond.
        proven: Whether both sides are known to obey the bound.
    """

    worst: Element
    difference: float
    bound: float
    count: int
    size: int
    proven: bool

    @property
    def text(self) -> str:
        """See `Fact`."""
        e = self.worst
        caution = "" if self.proven else " (Winograd's convolution and tensor cores need not keep within it)"
        return (
            f"no rounding does this: {e.reference:.6g} in the reference, {e.candidate:.6g} in the candidate at "
            f"{e.where}, a difference of {self.difference:.3g} where rounding explains {self.bound:.3g} at "
            f"most{caution}; {count_text(self.count, self.size)} are beyond that"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """A broken bound, unless the graphs say what is computed instead, or narrower sums explain it."""
    precision, use = case.expected.precision, case.judgement.bound_use
    if precision is None or use is None or use <= (1.0 if precision.proven else EVIDENCE):
        return None
    if in_graphs(case) is not None:
        return None
    y, c = case.y, case.c
    adding = adding_format(case)
    if adding is not None:
        looser = case.expected.bound(case.judgement.tensor, c, adding=adding)
        if looser is None or use_of(c.astype(np.float64) - y, looser) <= 1:
            return None
    mine, theirs = signatures(case)
    if mine != theirs:
        return None
    bound = case.expected.bound(case.judgement.tensor, c, step=case.formats.result_step * math.sqrt(12))
    if bound is None:
        return None
    with np.errstate(all="ignore"):
        error = np.abs(c.astype(np.float64) - y.astype(np.float64))
        share = np.where(np.isfinite(error), error / bound, 0.0)
    at = np.unravel_index(int(share.argmax()), share.shape)
    count = int(np.count_nonzero(share > 1))
    fact = BoundBroken(Element.of(case, at), float(error[at]), float(bound[at]), count, share.size, precision.proven)
    return Diagnosis(Cause.WRONG_OP, (fact,))
