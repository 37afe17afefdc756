"""Whether sums in FP16 are what an error comes from: the network emulated with such sums, on the same inputs.

What they may explain (`tolerance.Tolerance.sums`) is several times the tolerance in long sums, and many a fault would
fit in between. But how large the errors of one network are on some inputs need not be derived. Where an output exceeds
its tolerance, and by no more than that, the reference's network is emulated with sums in FP16 on the samples in
question. A candidate that errs about as much passes, if the network keeps its tolerance with sums in FP32; one that
errs by more fails, and so does one whose network FP16 harms whatever its sums are. Where it cannot be emulated, nothing
is decided.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ..progress import SILENT, Progress
from ..sides import Side

if TYPE_CHECKING:
    import numpy as np

    from ...runners.contract.runner import Runner, Session
    from ..comparator import Run
    from ..report.model import OutputResult
    from .judge import Judge

LIKE = 2.0
"""How many times the greatest error of the emulation a healthy candidate's may be: TensorRT's was 0.6 to 1.4 of it, and
faults that are not lost in the noise exceed it (docs/tolerance.md)."""
DECIDED_BY = "emulated sums in FP16"

log = logging.getLogger("layerdiff")


def settle(
    run: Run,
    judge: Judge,
    outputs: Sequence[OutputResult],
    feeds: Callable[[Collection[int]], Iterable[tuple[int, dict[str, np.ndarray]]]],
    progress: Progress = SILENT,
) -> tuple[tuple[OutputResult, ...], list[str]]:
    """Passes outputs that err as the emulation does, and fails those that err by more.

    Args:
        run: Who ran.
        judge: What judged the outputs.
        outputs: The verdicts so far.
        feeds: Gives samples by their numbers.
        progress: Told what is going on.

    Returns:
        The verdicts, and a sentence on each that became a pass.
    """
    settled, told = list(outputs), []
    reference = run.sides.reference
    for side in run.sides.candidates:
        complete = run.samples_run.get(side.name) == run.samples_run.get(reference.name) == len(run.samples)
        doubtful = judge.doubtful(side.name)
        mine = [
            at
            for at, o in enumerate(outputs)
            if o.candidate == side.name and o.tensor in doubtful and o.verdict == "undecided"
        ]
        runners = side.runner.alike() if mine and complete else None
        if runners is None or run.in_pieces(reference):
            continue
        wanted = {sample for at in mine for sample in doubtful[outputs[at].tensor][0]}
        progress.stage(f"emulating the sums of {side.name} on {len(wanted)} sample{'s'[: len(wanted) != 1]}")
        try:
            uses, plain = _uses(run, judge, side, runners, feeds(wanted))
        except Exception as error:  # whatever ONNX Runtime says of a model that it cannot run
            log.debug("sums in FP16 were not emulated", exc_info=error)
            continue
        for at in mine:
            output = outputs[at]
            own, theirs, without = output.use or 0.0, uses.get(output.tensor), plain.get(output.tensor)
            if theirs is None or without is None or math.isinf(theirs):
                continue
            text = f"emulated with sums in FP16 on the same inputs, the network errs by {theirs:.2f} times that"
            if own > LIKE * theirs:
                reason = f"{doubtful[output.tensor][1]}; {text}, this by {own:.2f} times"
                settled[at] = replace(output, verdict="fail", reason=reason)
                continue
            if without > 1:
                text = f"emulated with sums in FP32, the network errs by {without:.2f} times that: it is not the sums"
                settled[at] = replace(output, verdict="fail", reason=f"{doubtful[output.tensor][1]}; {text}")
                continue
            settled[at] = replace(output, verdict="pass", reason=None, decided_by=DECIDED_BY)
            told.append(f"{side.name} errs in {output.tensor} by {own:.2f} times what is allowed: {text}.")
    return tuple(settled), told


def _uses(
    run: Run, judge: Judge, side: Side, runners: Sequence[Runner], feeds: Iterable[tuple[int, dict[str, np.ndarray]]]
) -> list[dict[str, float]]:
    """The greatest share of what is allowed that each emulation uses, by output; infinite where it ruins one."""
    reference = run.sides.reference
    judges = [judge.like(Side(side.name, runner, reference.model)) for runner in runners]
    count = 0
    with ExitStack() as stack:
        believed = stack.enter_context(run.open(reference))
        emulated = [stack.enter_context(r.open(reference.model, workload=run.workload)) for r in runners]
        for number, sample in feeds:
            feed = _taken(believed, sample)
            expected = believed.infer(feed)

            def fetch(names: Sequence[str], feed: dict[str, np.ndarray] = feed) -> dict[str, np.ndarray]:
                return believed.infer(feed, names)

            for like, session in zip(judges, emulated, strict=True):
                like.take(reference.name, number, expected, fetch)
                like.take(side.name, number, session.infer(_taken(session, sample)))
            count += 1
    done = {reference.name: count, side.name: count}
    return [
        {r.tensor: math.inf if r.verdict == "fail" else r.use for r in like.results(count, done) if r.use is not None}
        for like in judges
    ]


def _taken(session: Session, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a sample that a session takes."""
    return {spec.name: sample[spec.name] for spec in session.inputs if spec.name in sample}
