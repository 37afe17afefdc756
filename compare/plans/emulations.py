"""Emulations that stand for a runtime whose runs are expensive: what single layers cost is measured on them.

Where a runtime rounds is not known before it runs: kernels add in FP32 or in FP16, and round inside of what could be
fused. The emulation is taken whose error of the whole network comes nearest to the runtime's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...graph.errors import RunnerError
from ...graph.rounding.round_array import STORAGE
from .predict import HUGE

if TYPE_CHECKING:
    from ...runners.contract.runner import Runner
    from ...runners.contract.session import SessionInfo
    from ..comparison import Comparison
    from ..report.plan import OutputTrial
    from ..sides import Side

NEAR = 2.0
"""An emulation whose error is within this factor of the runtime's is taken, and no other is tried."""
LEAST = 1e-9
"""Stands for errors of nothing."""


def emulations(
    runner: Runner, side: Side, comparison: Comparison, deployed: SessionInfo | None = None
) -> tuple[Runner, ...]:
    """What may measure the error of single layers, the likeliest first.

    Args:
        runner: What runs the candidate.
        side: The candidate.
        comparison: What was compared.
        deployed: What the session on the whole model turned out to be.

    Returns:
        The runner itself where it is an emulation; else emulations of its format: one that rounds where fused groups
        end, one that rounds what every node gives, and both with sums in FP16 where the runtime may add so. The latter
        come first where some of its kernels are known to.
    """
    from ...runners.emulate import EmulateRunner

    if isinstance(runner, EmulateRunner):
        return (runner,)
    own = EmulateRunner(format=runner.arithmetic.name)
    found = [own]
    if own.format in STORAGE:
        found.append(replace(own, every_node=True))
    if own.format == "fp16" and runner.accumulator.name == "fp16":
        adding = [replace(emulation, fp16_accumulation=True) for emulation in found]
        found = [*adding, *found] if deployed is not None and deployed.fp16_accumulation else [*found, *adding]
    return tuple(emulation.calibrated(side.model, comparison.workload) for emulation in found)


def nearest(
    able: Sequence[Runner], before: Sequence[OutputTrial], whole: Callable[[Runner], Sequence[OutputTrial]]
) -> Runner:
    """The emulation whose error comes nearest to the runtime's.

    Args:
        able: The emulations, the likeliest first. One alone is not run.
        before: The outputs of the runtime with nothing kept.
        whole: Runs an emulation with nothing kept.
    """
    if len(able) == 1:
        return able[0]
    best, least = able[0], math.inf
    for emulation in able:
        try:
            off = _off(whole(emulation), before)
        except RunnerError:
            continue
        if off < least:
            best, least = emulation, off
        if least <= math.log(NEAR):
            break
    return best


def _off(emulated: Sequence[OutputTrial], before: Sequence[OutputTrial]) -> float:
    """How far the errors of an emulation are off those of the runtime: the largest logarithm of their ratio."""
    errors = {output.tensor: _held(output.error) for output in emulated}
    return max(
        (abs(math.log(errors[o.tensor] / _held(o.error))) for o in before if o.tensor in errors), default=math.inf
    )


def _held(error: float | None) -> float:
    return HUGE if error is None else min(max(error, LEAST), HUGE)
