"""Adds what rounding is expected to do to the evidence on outputs: measured, or by the formula where it cannot be."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...graph.errors import UsageError, first_line
from ...graph.specs import is_float
from ..progress import SILENT, Progress
from ..runs.samples import numbered
from .draws import Drawn
from .evidence import ByFormula, Measured, OutputEvidence
from .expectation import Expectation
from .formats_in_play import formats_in_play
from .formula import formula
from .tolerance import finer

if TYPE_CHECKING:
    from ..comparison import Comparison
    from ..runs.run import RunLog
    from ..sides import Side

Kept: TypeAlias = "Callable[[str, str, int], tuple[np.ndarray, np.ndarray]]"

logger = logging.getLogger("layerdiff")


def measure(
    comparison: Comparison,
    log: RunLog,
    evidence: Sequence[OutputEvidence],
    kept: Kept,
    progress: Progress = SILENT,
    drawn: Drawn | None = None,
) -> tuple[OutputEvidence, ...]:
    """Adds to evidence what rounding is expected to do, wherever outputs are in doubt.

    Args:
        comparison: Who ran.
        log: How the run went.
        evidence: What is known of each output of each candidate.
        kept: Gives the reference's and a candidate's output of a sample that is in doubt.
        progress: Told what is going on.
        drawn: What was drawn before; see `Expectation`.
    """
    found: dict[tuple[str, str], OutputEvidence] = {}
    for side in comparison.candidates:
        doubts = {e.tensor: e for e in evidence if e.candidate == side.name and e.to_be_measured}
        if doubts:
            progress.stage(f"{side.name}: measuring the error that rounding explains")
            for tensor, known in _measure(comparison, log, side, doubts, kept, progress, drawn).items():
                found[side.name, tensor] = known
    return tuple(found.get((e.candidate, e.tensor), e) for e in evidence)


def _measure(
    comparison: Comparison,
    log: RunLog,
    side: Side,
    doubts: Mapping[str, OutputEvidence],
    kept: Kept,
    progress: Progress,
    drawn: Drawn | None,
) -> dict[str, OutputEvidence]:
    narrow = log.of(side.name).info.fp16_accumulation | log.of(log.reference).info.fp16_accumulation
    pieces = any(runner.in_pieces for runner in log.runners)
    samples = {number for known in doubts.values() for number in known.doubts}
    found: dict[str, Measured] = {}
    why = {t: "its type has no expected error" for t, e in doubts.items() if not _measurable(e)}
    try:
        count = max(1, len(samples))
        with Expectation(comparison, side, narrow, pieces=pieces, samples=count, drawn=drawn) as expectation:
            for done, (number, feed) in enumerate(numbered(comparison.samples, samples)):
                names = [t for t, known in doubts.items() if number in known.doubts and t not in why]
                pairs = {name: kept(side.name, name, number) for name in names}
                for name, held in (expectation.judge(number, feed, pairs) if pairs else {}).items():
                    found[name] = found[name].merge(held) if name in found else held
                progress.advance(done + 1, len(samples))
    except Exception as error:  # whatever a runtime raises: the formula decides then, and the report says so
        if isinstance(error, UsageError):
            raise
        logger.debug("the expected error was not measured", exc_info=error)
        why.update({t: f"the expected error could not be measured: {first_line(error)}" for t in doubts})
    return {
        tensor: replace(known, by_formula=_by_formula(comparison.reference, side, known, kept, why[tensor]))
        if tensor in why
        else replace(known, expected=found[tensor])
        for tensor, known in doubts.items()
    }


def _measurable(known: OutputEvidence) -> bool:
    reference, candidate = known.statistics.dtypes or ("", "")
    small = ("float8", "float4", "complex")
    return not reference.startswith(small) and not candidate.startswith(small)


def _by_formula(reference: Side, side: Side, known: OutputEvidence, kept: Kept, why: str) -> ByFormula:
    mismatched, use = 0, 0.0
    for number in known.doubts:
        y, c = kept(side.name, known.tensor, number)
        if y.shape != c.shape or not is_float(y.dtype):
            mismatched += int(np.count_nonzero(y != c)) if y.shape == c.shape else y.size
            use = math.inf
            continue
        rule = formula(reference.model.index, known.tensor, formats_in_play(reference, side), finer(y.dtype, c.dtype))
        wide = np.complex128 if y.dtype.kind == "c" else np.float64
        with np.errstate(invalid="ignore"):
            error = np.abs(c.astype(wide) - y.astype(wide))
        share = np.where(np.isfinite(error), error, 0.0) / rule.allowed(y)
        mismatched += int(np.count_nonzero(share > 1))
        use = max(use, float(share.max(initial=0.0)))
    return ByFormula(mismatched, use, why)
