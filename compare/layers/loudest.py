"""Outputs disagree, and no layer is beyond its expected noise: which layer is named all the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..causes import nan
from ..causes.case import LoudLayer
from ..causes.examiner import loudest
from ..progress import SILENT, Progress
from ..report.model import Cause
from ..runs.memory import budget
from .observation import relative_error
from .walk import Walk

if TYPE_CHECKING:
    from ..report.model import OutputResult
    from .observation import LayerObservation
    from .prepare import Prepared
    from .verdicts import Verdicts
    from .walk import Walked

REPRODUCED = 0.1
"""Share of an output's error that the walk must show for its layers to be asked about it."""
FORCED = 6
"""Layers whose contribution is measured where outputs disagree and no layer exceeds its expected noise."""
INT8_ROUNDING = 0.01
"""Relative RMS of rounding to 255 steps, for values that reach four times their RMS: 4 / 127 / sqrt(12)."""


def is_off(output: OutputResult) -> bool:
    """Whether an output that was compared does not agree, or rounding alone makes its error large."""
    undecided = output.verdict == "undecided" and output.expected is not None and output.expected["rel_l2"] is not None
    return (output.verdict == "fail" or undecided) and output.metrics is not None


def name_loudest(
    prepared: Prepared,
    walked: Walked,
    given: Verdicts,
    outputs: Sequence[OutputResult],
    progress: Progress = SILENT,
) -> tuple[Verdicts, list[LayerObservation]]:
    """The layer that explains most of outputs that disagree, where no layer is to blame.

    Args:
        prepared: Who is walked.
        walked: What the walk saw.
        given: The verdicts so far.
        outputs: What the candidate's outputs showed.
        progress: Told what is going on.

    Returns:
        The verdicts with the contributions that were measured, and the layer. With the cause ``spread`` it is an entry
        for the report, and its verdict stays.
    """
    if not any(map(is_off, outputs)) or not _reproduced(walked, outputs):
        return given, []
    already = _not_a_number(given.layers, outputs)
    if already is not None:
        return given.knowing([already]).blaming(already.number), [already]
    loud = _measured(prepared, given.layers, progress)
    given = given.knowing(loud)
    if not loud or loud[0].contribution is None:
        return given, []
    top = _diagnosed(prepared, loud)
    given = given.knowing([top])
    spread = top.diagnosis is not None and top.diagnosis.cause is Cause.SPREAD
    return given if spread else given.blaming(top.number), [top]


def _reproduced(walked: Walked, outputs: Sequence[OutputResult]) -> bool:
    """Whether the walk shows some of the error by which outputs fail. It does not show that of random values."""
    for output in outputs:
        seen, deployed = walked.outputs.get(output.tensor), (output.metrics or {}).get("rel_l2")
        if not is_off(output) or seen is None:
            continue
        if deployed is None or relative_error(seen) > REPRODUCED * deployed:
            return True
    return False


def _not_a_number(layers: Sequence[LayerObservation], outputs: Sequence[OutputResult]) -> LayerObservation | None:
    """The layer where NaN begins on both sides, where that is what fails the outputs."""
    failing = [o.metrics for o in outputs if is_off(o) and o.metrics is not None]
    if not failing or not all(metrics["nan"] and all(metrics["nan"]) for metrics in failing):
        return None
    for s in layers:
        for name, statistics in s.local.items():
            mine, theirs = statistics.metrics()["nan"] or (0, 0)
            if mine and theirs:
                return replace(s, diagnosis=nan.on_both_sides(name, mine, theirs))
    return None


def _measured(prepared: Prepared, layers: Sequence[LayerObservation], progress: Progress) -> list[LayerObservation]:
    """The layers with the largest errors, that which contributes most first; walks once more."""
    loud = [s for s in layers if 0 < s.local_error < math.inf]
    loud = sorted(loud, key=lambda s: s.local_error, reverse=True)[:FORCED]
    if not loud or not prepared.candidate.runner.capabilities.pieces:
        return []
    comparison = prepared.comparison
    memory = budget(comparison.rules.memory)
    numbers = [s.number for s in loud]
    again = Walk(comparison, prepared.candidate, prepared.plan, forced=numbers, budget=memory, progress=progress)
    shares = {s.number: s.contribution for s in again.run().layers}
    loud = [replace(s, contribution=shares[s.number]) for s in loud]
    return sorted(loud, key=lambda s: -math.inf if s.contribution is None else s.contribution, reverse=True)


def _diagnosed(prepared: Prepared, loud: Sequence[LayerObservation]) -> LayerObservation:
    """The first of the layers that contribute most, with its diagnosis."""
    names, top = prepared.comparison.reference.model.index.names, loud[0]
    shares = tuple((names[s.pair.main], s.contribution) for s in loud if s.contribution is not None)
    assert top.judgement is not None
    case = LoudLayer(top.judgement, shares[0][1], _plain_rounding(prepared), shares)
    return replace(top, diagnosis=loudest(case))


def _plain_rounding(prepared: Prepared) -> float:
    """The relative error of a result that is rounded and nothing else."""
    usual = prepared.judge.noise.roundings.usual
    return max(usual.result, INT8_ROUNDING if usual.steps else 0.0)
