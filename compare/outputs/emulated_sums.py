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

from ...runners.emulate import cpu_emulations
from ..progress import SILENT, Progress
from ..sides import Side
from .by_tolerance import MISMATCHES, mismatch
from .evidence import Decision, EmulatedSums, OutputEvidence

if TYPE_CHECKING:
    import numpy as np

    from ...runners.contract.runner import Runner
    from ...runners.contract.session import Session
    from ..runs.run import Run
    from .judge import Judge

LIKE = 2.0
"""How many times the greatest error of the emulation a healthy candidate's may be: TensorRT's was 0.6 to 1.4 of it, and
faults that are not lost in the noise exceed it (docs/tolerance.md)."""
DECIDED_BY = "emulated sums in FP16"

log = logging.getLogger("layerdiff")


def emulate_sums(
    run: Run,
    judge: Judge,
    evidence: Sequence[OutputEvidence],
    feeds: Callable[[Collection[int]], Iterable[tuple[int, dict[str, np.ndarray]]]],
    progress: Progress = SILENT,
) -> tuple[OutputEvidence, ...]:
    """Adds to the evidence on outputs that sums in FP16 may explain what the emulation makes of them.

    Args:
        run: Who ran.
        judge: What collected the evidence.
        evidence: On all outputs of all candidates.
        feeds: Gives samples by their numbers.
        progress: Told what is going on.
    """
    found = list(evidence)
    reference = run.sides.reference
    for side in run.sides.candidates:
        mine = [
            at
            for at, e in enumerate(evidence)
            if e.candidate == side.name and e.maybe_fp16_sums and e.coverage.complete
        ]
        runners = cpu_emulations(side.runner) if mine else None
        if runners is None or run.in_pieces(reference):
            continue
        wanted = {sample for at in mine for sample in evidence[at].worst_samples}
        progress.stage(f"emulating the sums of {side.name} on {len(wanted)} sample{'s'[: len(wanted) != 1]}")
        try:
            uses, plain = _uses(run, judge, side, runners, feeds(wanted))
        except Exception as error:  # whatever ONNX Runtime says of a model that it cannot run
            log.debug("sums in FP16 were not emulated", exc_info=error)
            continue
        for at in mine:
            theirs, without = uses.get(evidence[at].tensor), plain.get(evidence[at].tensor)
            if theirs is not None and without is not None:
                found[at] = replace(evidence[at], emulated=EmulatedSums(theirs, without))
    return tuple(found)


def by_emulated_sums(evidence: OutputEvidence) -> Decision | None:
    """Passes outputs that err as the emulation does, and fails those that err by more."""
    emulated, own = evidence.emulated, evidence.statistics.use or 0.0
    if emulated is None or math.isinf(emulated.fp16):
        return None
    if own > LIKE * emulated.fp16:
        reason = f"{mismatch(evidence)}; {_errs(emulated)}, this by {own:.2f} times"
        return Decision("fail", reason)
    if emulated.fp32 > 1:
        text = f"emulated with sums in FP32, the network errs by {emulated.fp32:.2f} times that: it is not the sums"
        return Decision("fail", f"{mismatch(evidence)}; {text}")
    return Decision("pass", decided_by=DECIDED_BY)


def told(evidence: OutputEvidence) -> str:
    """What to say of an output that passes because the emulation errs as it does."""
    assert evidence.emulated is not None
    own = evidence.statistics.use or 0.0
    text = f"{evidence.candidate} errs in {evidence.tensor} by {own:.2f} times what is allowed"
    return f"{text}: {_errs(evidence.emulated)}."


def _errs(emulated: EmulatedSums) -> str:
    return f"emulated with sums in FP16 on the same inputs, the network errs by {emulated.fp16:.2f} times that"


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
    return [{e.tensor: use for e in like.evidence(count, done) if (use := _use(e)) is not None} for like in judges]


def _use(evidence: OutputEvidence) -> float | None:
    """The greatest share of what is allowed that an emulated output uses; infinite where it is ruined."""
    use = evidence.shown.use
    ruined = any((found := decider(evidence)) is not None and found.verdict == "fail" for decider in MISMATCHES)
    return math.inf if use is not None and ruined else use


def _taken(session: Session, sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a sample that a session takes."""
    return {spec.name: sample[spec.name] for spec in session.inputs if spec.name in sample}
