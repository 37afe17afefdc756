"""Cancellation: mere rounding, enlarged because terms of a sum cancel: what a layer is given, or what it makes inside.

Looks at: a layer that adds up terms, within its expected noise, that explains most of the final error, and by how much
its rounding exceeds that of a result that is rounded once; and at sums inside of a layer, as the reference computes
them, of terms that the layer itself makes. Proves: that the rounding of the terms is what the output shows, so that
more precision is needed before the sum, not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.operators import SUMMING, SUMS, operator
from ...graph.printable import share_of
from ...graph.rounding.roundings import KAPPA
from ...graph.specs import Arrays, is_float
from ..report.model import Cause
from .case import DOMINANT, LayerCase, LoudLayer
from .diagnosis import Diagnosis
from .differences import beyond_formats, stated

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

LOST = 1 / 32
"""Share of a sum that the rounding of its terms has to be for little of it to be left."""
EXPLAINS = 8.0
"""Times that share up to which an error at the layer's output may be of it."""


@dataclass(frozen=True)
class InputsCancel:
    """A layer whose inputs cancel.

    Attributes:
        rms_z: RMS of its error over the expected noise; None where it was not held against it.
        relative: Its local error.
        contribution: Its share of the final error.
    """

    rms_z: float | None
    relative: float
    contribution: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        z = "" if self.rms_z is None else f" (RMS z {self.rms_z:.1f})"
        return (
            f"its error is rounding{z}, but {self.relative:.1e} of its values, and explains "
            f"{share_of(self.contribution)} of the final error: its inputs cancel; raise the precision before it"
        )


def find(layer: LoudLayer) -> Diagnosis | None:
    """A layer that explains most of the final error by rounding that is larger than its result's."""
    verdict = layer.judgement
    if layer.op not in SUMMING or layer.quantized is not None:
        return None  # the steps of a scaled integer make its error, whatever cancels
    if layer.contribution < DOMINANT or not layer.enlarges:
        return None
    return Diagnosis(Cause.CANCELLATION, (InputsCancel(verdict.rms_z, verdict.relative, layer.contribution),))


@dataclass(frozen=True)
class TermsCancel:
    """A sum inside of a layer that is small beside its terms, which the layer itself makes.

    Attributes:
        position: The node that adds.
        node: Its name.
        format: The format that the terms would be rounded to.
        terms, left: Root mean squares of the largest term, and of the sum.
    """

    position: int
    node: str
    format: NumberFormat
    terms: float
    left: float

    @property
    def lost(self) -> float:
        """The share of the sum that the rounding of two such terms is, where each is rounded by itself."""
        rounding = math.sqrt(2 * KAPPA) * self.format.u * self.terms
        return rounding / self.left if self.left else math.inf

    @property
    def text(self) -> str:
        """See `Fact`."""
        step = self.format.u * 2 ** (math.floor(math.log2(self.terms)) + 1)
        return (
            f"inside, at {self.node}: terms of {self.terms:.4g} cancel, {self.left:.3g} is left, and {self.format} "
            f"rounds such terms in steps of {step:.3g}"
        )


def sums_of_own_terms(index: GraphIndex, nodes: Iterable[int]) -> Iterator[int]:
    """The nodes of a layer that add or subtract what other nodes of it make, and constants."""
    inside = set(nodes)
    for position in sorted(inside):
        node = index.nodes[position]
        own = [index.producer.get(name) in inside for name in node.input if name not in index.initializers]
        if operator(node) in SUMS and len(node.input) > 1 and own and all(own):
            yield position


def terms_cancel(index: GraphIndex, nodes: Iterable[int], values: Arrays, fmt: NumberFormat) -> TermsCancel | None:
    """The sum inside of a layer that loses most where every node rounds to a format; None where none loses much.

    Args:
        index: The reference's graph.
        nodes: The layer's nodes.
        values: What the reference has inside of it, and its outputs.
        fmt: The format.
    """
    found: list[TermsCancel] = []
    for position in sums_of_own_terms(index, nodes):
        node = index.nodes[position]
        arrays = [values[n] if n in values else index.weight(n) for n in (*node.input, node.output[0])]
        if not all(a is not None and is_float(a.dtype) and np.isfinite(a).all() for a in arrays):
            continue
        *terms, left = (_rms(a) for a in arrays if a is not None)
        if max(terms):
            found.append(TermsCancel(position, index.names[position], fmt, max(terms), left))
    worst = max(found, key=lambda fact: fact.lost, default=None)
    return worst if worst is not None and worst.lost > LOST else None


def inside(case: LayerCase) -> Diagnosis | None:
    """A sum inside whose terms cancel, in a layer that nothing else explains."""
    fact = _inside(case)
    if fact is None or case.judgement.relative > EXPLAINS * fact.lost:
        return None
    return Diagnosis(Cause.CANCELLATION, (fact,), fact.position)


def ended_not_finite(case: LayerCase) -> Diagnosis | None:
    """The same where the output is not finite: what is left of a variance is below zero, or zero."""
    if case.judgement.reason != "finite" or stated(case.graphs[0], beyond_formats(case.differences)) is not None:
        return None
    fact = _inside(case)
    if fact is None:
        return None
    made = case.graphs[0].nodes[fact.position].output[0]
    least = float(np.abs({**case.inner, **case.values}[made]).min())
    near_zero = least < EXPLAINS * fact.lost * fact.left
    return Diagnosis(Cause.CANCELLATION, (fact,), fact.position) if near_zero else None


def _inside(case: LayerCase) -> TermsCancel | None:
    fmt, index, nodes = case.formats.narrow, case.graphs[0], case.pair.reference.nodes
    if fmt is None or fmt.is_integer or not any(True for _ in sums_of_own_terms(index, nodes)):
        return None
    return terms_cancel(index, nodes, {**case.inner, **case.values}, fmt)


def _rms(values: np.ndarray) -> float:
    return math.sqrt(float(np.square(values, dtype=np.float64).mean())) if values.size else 0.0
