"""Every sample through every runner, one after the other; nothing is kept but what the caller keeps."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ...graph.cutting.dataflow import random_nodes
from ...graph.errors import LayerdiffError, RunnerError, UsageError
from ..sides import Side, Sides, other_file
from ..statistics import libraries
from ..statistics.device import Uploads
from .piecewise import PiecedSession
from .run import Fetch, Run
from .samples import checked, feed_of

if TYPE_CHECKING:
    import numpy as np

    from ...dataloaders.base import Samples
    from ...runners.contract.runner import Runner
    from ...runners.contract.session import Session
    from ...runners.contract.workload import Feed
    from ..progress import Progress

Take: TypeAlias = Callable[[Side, int, "dict[str, Any]", Fetch], None]

log = logging.getLogger("layerdiff")


def execute(
    run: Run,
    begin: Callable[[Run], None],
    take: Take,
    progress: Progress,
    latency: int = 0,
    on_device: bool = False,
) -> None:
    """Opens every session once and streams the samples through all of them.

    A runner that fails is noted and left out; the others go on as long as a pair is left. With ``on_device``, ``take``
    is given what can stay on the device that the reference shares with a candidate.
    """
    samples = run.samples
    with ExitStack() as stack:
        sessions = _open_all(run, stack, progress)
        sides = run.asked
        remaining = sides.without([p for p in sides.all if p.name in run.errors])
        if remaining is None:
            return
        if remaining.reference is not sides.reference:
            run.warnings.append(f"{sides.reference.name} failed; {remaining.reference.name} is the reference instead.")
        run.sides = remaining
        begin(run)
        progress.stage(f"running {len(samples)} sample{'s'[: len(samples) != 1]} on {len(sessions)} runners")
        sample: dict[str, np.ndarray] = {}
        staying = _staying(remaining, sessions) if on_device else set()
        uploads = Uploads(sessions[remaining.reference.name].device)
        stack.callback(libraries.release)
        infer = {n: _inferences(s, samples, uploads if n in staying else None) for n, s in sessions.items()}
        for number, sample in enumerate(checked(samples)):
            _run_sample(run, sessions, infer, number, sample, take)
            if remaining.reference.name in run.errors or all(p.name in run.errors for p in remaining.candidates):
                break
            progress.advance(number + 1, len(samples))
        if latency:
            _measure(run, sessions, sample, latency, progress)
        for name, session in sessions.items():  # it may have learned something on the way
            run.sessions[name] = session.info


def _open_all(run: Run, stack: ExitStack, progress: Progress) -> dict[str, Session]:
    sessions: dict[str, Session] = {}
    refused: dict[Side, LayerdiffError] = {}
    timings: dict[type[Runner], bytes] = {}
    for side in run.asked.all:
        start = time.perf_counter()
        try:
            session = run.open(
                replace(side, runner=side.runner.with_timings(timings.get(type(side.runner), b""))),
                progress=lambda text, name=side.name: progress.stage(f"{name}: {text}"),  # type: ignore[misc]
            )
        except Exception as error:
            if isinstance(error, UsageError) and other_file(side, run.asked.reference):
                refused[side] = error
                continue
            run.errors[side.name] = reason(error)
            continue
        sessions[side.name] = stack.enter_context(session)
        run.seconds[side.name] = [time.perf_counter() - start, 0.0]
        run.sessions[side.name] = session.info
        timings[type(side.runner)] = session.info.timing_cache
        run.samples_run[side.name] = 0
    if refused:
        _leave_out(run, refused)
    return sessions


def _leave_out(run: Run, refused: Mapping[Side, LayerdiffError]) -> None:
    """With two files, a runner may be able to open the first alone (TensorFlow, of a TensorFlow and an ONNX file)."""
    left = tuple(p for p in run.asked.candidates if p not in refused)
    if not left:
        raise next(iter(refused.values()))
    run.asked = run.sides = replace(run.asked, candidates=left)
    run.warnings += [f"{side.name} was left out: {error}" for side, error in refused.items()]


def _run_sample(
    run: Run,
    sessions: Mapping[str, Session],
    infer: Mapping[str, Callable[[Feed], Any]],
    number: int,
    sample: Feed,
    take: Take,
) -> None:
    """One sample through the reference, then through every candidate that is still there."""
    for side in run.sides.all:
        if side.name in run.errors:
            continue
        session = sessions[side.name]
        feed = feed_of(session, sample)
        start = time.perf_counter()
        try:
            outputs = infer[side.name](feed)
        except Exception as error:
            run.errors[side.name] = f"sample {number}: {reason(error)}"
            if side is run.sides.reference:
                return
            continue
        run.seconds[side.name][1] += time.perf_counter() - start
        run.samples_run[side.name] += 1
        take(side, number, outputs, functools.partial(session.infer, feed))


def _staying(sides: Sides, sessions: Mapping[str, Session]) -> set[str]:
    """Whose outputs need no download before they are compared: the reference's, and those of who shares its GPU."""
    device = sessions[sides.reference.name].device
    others = {p.name for p in sides.candidates if device and sessions[p.name].device == device}
    return {sides.reference.name, *others} if others else set()


def _inferences(session: Session, samples: Samples, uploads: Uploads | None) -> Callable[[Feed], Any]:
    """Gives the outputs of one sample after the other; with ``uploads``, on the device."""
    if not isinstance(session, PiecedSession):
        return session.infer if uploads is None else lambda feed: session.infer_on_device(uploads(feed))
    results = session.infer_all(lambda: (feed_of(session, sample) for sample in checked(samples)))
    return lambda feed: next(results)


def _measure(run: Run, sessions: Mapping[str, Session], sample: Feed, runs: int, progress: Progress) -> None:
    """Times each runner alone, one after the other."""
    for side in run.sides.all:
        if side.name in run.errors:
            continue
        progress.stage(f"{side.name}: timing {runs} runs")
        session = sessions[side.name]
        if isinstance(session, PiecedSession):
            run.warnings.append(f"{side.name} was not timed: its weights do not fit in memory.")
            continue
        try:
            run.latency[side.name] = session.latency(feed_of(session, sample), runs).as_dict()
        except Exception as error:
            run.errors[side.name] = f"latency: {reason(error)}"


def reason(error: Exception) -> str:
    """Why a runner failed, in at most two lines. Wrong usage is not a failure and goes on up."""
    log.debug("a runner failed", exc_info=error)
    if isinstance(error, LayerdiffError) and not isinstance(error, RunnerError):
        raise error
    text = "\n".join(str(error).strip().splitlines()[:2])
    return (
        text if isinstance(error, RunnerError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
    )


def may_vary(side: Side) -> bool:
    """Whether the same inputs may give other bits the next time."""
    return not side.runner.repeatable or bool(random_nodes(side.model.index))
