"""Who is off: float64 decides between two FP32 runtimes of one file."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import slice_model
from ...graph.formats import FP32
from ...graph.specs import is_float, specs_of

if TYPE_CHECKING:
    from ..sides import Side
    from .case import LayerCase

log = logging.getLogger(__name__)

LARGEST = 1 << 24
"""Elements of a tensor up to which it is computed in float64."""


@dataclass(frozen=True)
class Float64Says:
    """Relative L2 errors of both sides against float64."""

    reference: float
    candidate: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        off = "the candidate" if self.candidate > self.reference else "the reference"
        return (
            f"float64 says {off} is off (relative error {self.reference:.1e} in the reference, "
            f"{self.candidate:.1e} in the candidate)"
        )


def arbitrate(case: LayerCase, reference: Side, candidate: Side) -> Float64Says | None:
    """How far both sides are from float64; None where they do not run one graph in FP32, or where it cannot be told.

    A runner that cannot run a piece of the graph has a program of its own, of which the graph is a conversion: float64
    would judge the conversion by itself.
    """
    runners = reference.runner, candidate.runner
    if not all(r.capabilities.pieces and r.capabilities.any_model for r in runners):
        return None
    if case.y.shape != case.c.shape or not is_float(case.y.dtype) or case.y.size > LARGEST:
        return None
    if not (np.isfinite(case.y).all() and np.isfinite(case.c).all()):
        return None
    formats = reference.runner.arithmetic, candidate.runner.arithmetic
    if not candidate.model.same_network(reference.model) or any(f.is_integer or f.u > FP32.u for f in formats):
        return None
    from ...runners.reference_evaluator.runner import ReferenceEvaluatorRunner

    part = case.pair.reference
    feed = {n: case.values[n] for n in part.inputs}
    name = case.tensor
    try:
        model = slice_model(reference.model, part, specs_of(feed))
        with ReferenceEvaluatorRunner(dtype="float64").session(model) as session:
            truth = session.infer(feed)[name].astype(np.float64)
    except Exception as error:  # the arbiter is an extra: without it the diagnosis stands as it is
        log.debug("no float64 value for %s: %s", name, error)
        return None
    if truth.shape != case.y.shape:
        return None
    ours, theirs = (math.sqrt(float(np.sum((x.astype(np.float64) - truth) ** 2))) for x in (case.y, case.c))
    norm = math.sqrt(float(np.sum(truth**2))) or 1.0
    return Float64Says(ours / norm, theirs / norm)
