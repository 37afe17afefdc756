"""A narrow accumulator: an FP32 product whose error is that of sums in FP16 or BF16.

Looks at: RMS z of a product in FP32, which as a multiple of FP32's unit roundoff says how coarse its sums were rounded,
and how many elements err. Proves: nothing by itself; the error is of the size that such sums have, no larger than they
can make it, and all over the tensor. Where nobody speaks of a narrow format and the graphs differ in an operator, that
operator is told instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import BF16, FP16, FP32, NumberFormat
from ...graph.operators import CONTROL_FLOW, PRODUCTS, QUANTIZED, RECURRENT, operator
from ...graph.pairing.differences import DifferenceKind
from ...graph.printable import share_of
from ..report.model import Cause
from .case import LayerCase, LoudLayer
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

EVERYWHERE = 0.5
"""Share of the elements that err where all sums are rounded; of those that are zero on both sides nothing is known."""
ROUNDED = 0.25
"""Relative error from which on no format of 16 bits explains it by rounding its sums."""


@dataclass(frozen=True)
class SumsAsIn:
    """Sums that err as those of a format do.

    Attributes:
        format: The format.
        roundoff: The unit roundoff that the error speaks for.
        rms_z: Times what FP32 sums explain.
    """

    format: NumberFormat
    roundoff: float
    rms_z: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"error as of sums with unit roundoff {self.roundoff:.1e} ({self.format}: {self.format.u:.1e}), "
            f"{self.rms_z:,.0f} times what FP32 sums explain"
        )


def find(case: LayerCase) -> Diagnosis | None:
    """An FP32 product that adds in a narrower format."""
    fmt, z = adding_format(case), case.judgement.rms_z
    return None if fmt is None or z is None else Diagnosis(Cause.NARROW_ACCUMULATOR, (SumsAsIn(fmt, _roundoff(z), z),))


@dataclass(frozen=True)
class StateRounded:
    """A loop or a recurrence that rounds what it carries at each step, to most of the final error.

    Attributes:
        relative: Its own error.
        contribution: Its share of the final error.
    """

    relative: float
    contribution: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"what it carries from step to step is rounded at each, and what is small beside it is lost: an error of "
            f"{self.relative:.1e}, which makes {share_of(self.contribution)} of the final one"
        )


def of_state(layer: LoudLayer) -> Diagnosis | None:
    """A loop or a recurrence that makes most of the final error by rounding its state."""
    if layer.op not in RECURRENT | CONTROL_FLOW or not layer.holds_most or not layer.enlarges:
        return None
    return Diagnosis(Cause.NARROW_ACCUMULATOR, (StateRounded(layer.judgement.relative, layer.contribution),))


def adding_format(case: LayerCase) -> NumberFormat | None:
    """The format in which an FP32 product seems to add; None if its error is not of that size."""
    index, verdict = case.graphs[0], case.judgement
    if case.formats.candidate != FP32 or verdict.rms_z is None or not verdict.relative < ROUNDED:
        return None
    products = PRODUCTS | RECURRENT
    if case.formats.coarse or not any(index.nodes[p].op_type in products for p in case.pair.reference.nodes):
        return None
    if _truncates(case) or not _everywhere(case) or _sums_integers(case):
        return None
    if case.formats.narrow is None and any(d.kind is DifferenceKind.OPERATOR for _, d in case.differences):
        return None
    narrow = case.formats.narrow
    candidates = (FP16, BF16) if narrow is None else (narrow,)
    return next((f for f in candidates if f.u / 16 < _roundoff(verdict.rms_z) < 4 * f.u), None)


def _roundoff(rms_z: float) -> float:
    return rms_z * FP32.u * math.sqrt(2)


def _everywhere(case: LayerCase) -> bool:
    """Whether most elements err, as sums do that are all rounded alike."""
    y, c = case.y, case.c
    if y.shape != c.shape:
        return False
    known = (y != 0) | (c != 0)
    return bool(np.count_nonzero(y != c) >= EVERYWHERE * np.count_nonzero(known))


def _truncates(case: LayerCase) -> bool:
    """Whether the candidate makes integers of floats there, and the reference does not."""
    mine, theirs = case.graphs
    return _casts(theirs, case.pair.candidate.nodes) and not _casts(mine, case.pair.reference.nodes)


def _sums_integers(case: LayerCase) -> bool:
    """Whether the candidate's products are those of scaled integers, whose sums are exact: what it rounds is what it
    multiplies."""
    index = case.graphs[1]
    return any(operator(index.nodes[p]) in QUANTIZED for p in case.pair.candidate.nodes)


def _casts(index: GraphIndex, nodes: Sequence[int]) -> bool:
    made = (index.specs.get(index.nodes[p].output[0]) for p in nodes if index.nodes[p].op_type == "Cast")
    return any(spec is not None and spec.dtype.kind in "iu" for spec in made)
