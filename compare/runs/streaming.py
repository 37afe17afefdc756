"""Every sample through every runner, one after the other; nothing is kept but what the caller keeps."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ...graph.cutting.dataflow import random_nodes
from ...graph.errors import LayerdiffError, RunnerError, UsageError, may_be_of_sizes, said
from ...graph.printable import counted
from ...runners.contract.session import SessionInfo
from .. import notices
from ..progress import SILENT, Progress
from ..report.model import STOPPED
from ..share import belongs
from ..sides import Side, Sides, other_file
from ..statistics import libraries
from ..statistics.device import Uploads
from .again import postponed
from .deployed import Deployed, fingerprints
from .inputs import Inputs
from .opening import open_whole, run_in_pieces
from .piecewise import PiecedSession
from .repeatability import Repeat, repeat
from .run import RunLog, RunnerLog, Stopped
from .samples import feed_of, numbered

if TYPE_CHECKING:
    import numpy as np

    from ...runners.contract.latency import Latency
    from ...runners.contract.runner import Runner
    from ...runners.contract.session import Session
    from ...runners.contract.workload import Feed
    from ..comparison import Comparison
    from ..report.model import Notice

Take: TypeAlias = Callable[[Side, int, "dict[str, Any]"], None]
"""Is given a side's outputs for one sample; the reference's come first."""
Begin: TypeAlias = "Callable[[Sides], Take]"
"""Is given those that opened, before the first sample."""

log = logging.getLogger("layerdiff")


def execute(
    comparison: Comparison,
    begin: Begin,
    progress: Progress = SILENT,
    *,
    on_device: bool = False,
    remember: bool = False,
) -> RunLog:
    """Opens every session once and streams the samples through all of them.

    A runner that fails is noted and left out; the others go on as long as a pair is left.

    Args:
        comparison: Who runs what.
        begin: Told who is there before the first sample; gives what takes the outputs.
        progress: Told what is going on.
        on_device: Whether outputs may stay on a device that the reference shares with a candidate.
        remember: Whether the outputs of whole models are remembered by their hashes, and what differs is run twice:
            for whoever looks at layers later.

    Raises:
        Stopped: Ctrl-C came; it holds how far the run went.
    """
    stack = ExitStack()
    streaming = _Streaming(comparison, progress, stack, remember)
    try:
        with stack:
            streaming.run(begin, on_device)
    except KeyboardInterrupt as error:
        streaming.stop()
        raise Stopped(streaming.log()) from error
    return streaming.log()


@dataclass
class _Entry:
    """What is known of one runner so far."""

    side: Side
    in_pieces: bool
    session: Session | None = None
    open_seconds: float | None = None
    infer_seconds: float | None = None
    samples: int = 0
    error: str | None = None
    refused: bool = False
    of_sizes: bool = True
    latency: Latency | None = None
    repeat: Repeat | None = None
    waits: bool = False
    postponed: int | None = None

    @property
    def not_run(self) -> str:
        """Why it can give nothing, though it opened; empty where it can."""
        return "" if self.session is None else self.session.info.not_run

    @property
    def runs_again(self) -> bool:
        """Whether the same sample can be run once more, which has not been done or left to the walk."""
        again = not self.in_pieces and self.side.runner.capabilities.computes
        return again and self.repeat is None and self.postponed is None

    def close(self) -> None:
        """Frees what the session holds. That this fails costs no result, and is a failure of the runner."""
        assert self.session is not None
        try:
            self.session.close()
        except Exception as error:
            self.error = self.error or f"closing: {_reason(error)}"

    def log(self) -> RunnerLog:
        """How the runner fared. Its session may have learned something while it ran."""
        return RunnerLog(
            name=self.side.name,
            info=SessionInfo() if self.session is None else self.session.info,
            in_pieces=self.in_pieces,
            open_seconds=self.open_seconds,
            infer_seconds=self.infer_seconds,
            samples=self.samples,
            error=self.error,
            refused=self.refused,
            of_sizes=self.of_sizes,
            latency=None if self.latency is None else self.latency.as_dict(),
            kernels=() if self.latency is None else self.latency.kernels,
            repeat=self.repeat,
            postponed=self.postponed,
        )


class _Streaming:
    """One run on its way."""

    def __init__(self, comparison: Comparison, progress: Progress, stack: ExitStack, remember: bool) -> None:
        self._comparison = comparison
        self._progress = progress
        self._stack = stack
        self._remember = remember
        self._asked = comparison.sides
        pieces = run_in_pieces(comparison)
        self._entries = {
            side.name: _Entry(side, side.name in pieces, waits=not pieces and postponed(comparison, side))
            for side in self._asked.all
        }
        self._ran: Sides | None = None
        self._hashes: dict[tuple[str, int, str], bytes] = {}
        self._notices: list[Notice] = []
        self._inputs = Inputs(comparison)

    def run(self, begin: Begin, on_device: bool) -> None:
        """Opens, streams and times."""
        self._open_all()
        idle = {name for name, entry in self._entries.items() if entry.error or entry.not_run}
        sides = self._asked.without([side for side in self._asked.all if side.name in idle])
        first = self._asked.reference.name
        by = None if sides is None or sides.reference.name == first else sides.reference.name
        if self._entries[first].not_run:
            self._notices.append(notices.reference_not_run(first, self._entries[first].not_run, by))
        elif by is not None:
            self._notices.append(notices.reference_replaced(first, by))
        if sides is None:
            return
        self._ran = sides
        opened = {name: e.session for name, e in self._entries.items() if e.session is not None and name not in idle}
        take = begin(sides)
        samples = self._comparison.samples
        mine = [n for n in range(len(samples)) if belongs(n, self._comparison.rules.shard)]
        self._progress.stage(f"running {counted(len(mine), 'sample')} on {len(opened)} runners")
        staying = _staying(sides, opened) if on_device else set()
        uploads = Uploads(opened[sides.reference.name].device)
        self._stack.callback(libraries.release)
        wanted = functools.partial(numbered, samples, frozenset(mine)) if mine else functools.partial(iter, ())
        infer = {n: _inferences(s, wanted, uploads if n in staying else None) for n, s in opened.items()}
        sample: dict[str, np.ndarray] = {}
        for done, (number, sample) in enumerate(wanted()):
            self._inputs.take(number, sample)
            self._run_sample(sides, infer, number, sample, take)
            failed = [self._entries[side.name].error is not None for side in sides.all]
            if failed[0] or all(failed[1:]):
                break
            self._progress.advance(done + 1, len(mine))
        if self._comparison.rules.latency:
            self._measure(sides, sample, self._comparison.rules.latency)

    def log(self) -> RunLog:
        """How it went, once all sessions are closed."""
        reference = self._asked.reference if self._ran is None else self._ran.reference
        candidates = () if self._ran is None else tuple(side.name for side in self._ran.candidates)
        runners = tuple(entry.log() for entry in self._entries.values())
        told = (*self._notices, *self._inputs.notices())
        seen = self._inputs
        log = RunLog(reference.name, candidates, runners, Deployed(self._hashes), told)
        return replace(log, masks=seen.masks, blank=seen.blank, varied=seen.varied, nan_given=seen.nan)

    def stop(self) -> None:
        """Notes that the run ends here for all that are not through."""
        total = len(self._comparison.samples)
        for entry in self._entries.values():
            if entry.error is None and not entry.not_run and entry.samples < total:
                entry.error = f"{STOPPED} {entry.samples} of {total} samples"

    def _open_all(self) -> None:
        refused: dict[Side, LayerdiffError] = {}
        timings: dict[type[Runner], bytes] = {}
        for side in self._asked.all:
            entry, start = self._entries[side.name], time.perf_counter()
            try:
                known = timings.get(type(side.runner), b"")
                runner = side.runner.with_timings(known)
                session = open_whole(
                    self._comparison,
                    replace(side, runner=runner if self._comparison.rules.latency else runner.untimed()),
                    entry.in_pieces,
                    progress=lambda text, name=side.name: self._progress.stage(f"{name}: {text}"),  # type: ignore[misc]
                )
            except Exception as error:
                if isinstance(error, UsageError) and other_file(side, self._asked.reference):
                    refused[side] = error
                    continue
                entry.error, entry.of_sizes = _reason(error), may_be_of_sizes(error)
                continue
            entry.session = session
            self._stack.callback(entry.close)
            timings[type(side.runner)] = session.info.timing_cache
            entry.open_seconds, entry.infer_seconds = time.perf_counter() - start, None if entry.not_run else 0.0
        if refused:
            self._leave_out(refused)

    def _leave_out(self, refused: Mapping[Side, LayerdiffError]) -> None:
        """With two files, a runner may open the first alone (TensorFlow, of a TensorFlow and an ONNX file). Nothing is
        said of the reference's, which was named for the first."""
        left = tuple(side for side in self._asked.candidates if side not in refused)
        if not left:
            raise next(iter(refused.values()))
        self._asked = replace(self._asked, candidates=left)
        for side, error in refused.items():
            del self._entries[side.name]
            if type(side.runner) is not type(self._asked.reference.runner):
                self._notices.append(notices.left_out(side.name, error))

    def _run_sample(
        self, sides: Sides, infer: Mapping[str, Callable[[Feed], Any]], number: int, sample: Feed, take: Take
    ) -> None:
        """One sample through the reference, then through every candidate that is still there."""
        given: dict[str, dict[str, Any]] = {}
        for side in sides.all:
            entry = self._entries[side.name]
            if entry.error is not None or entry.session is None:
                continue
            feed = feed_of(entry.session, sample)
            start = time.perf_counter()
            try:
                outputs = infer[side.name](feed)
            except Exception as error:
                entry.error, entry.of_sizes = f"sample {number}: {_reason(error)}", may_be_of_sizes(error)
                can = side.runner.capabilities
                entry.refused = can.any_model and can.runs_parts and type(error) is RunnerError
                if side is sides.reference:
                    return
                continue
            entry.infer_seconds = (entry.infer_seconds or 0.0) + time.perf_counter() - start
            entry.samples += 1
            take(side, number, outputs)
            if self._remember:
                given[side.name] = outputs
                if side is not sides.reference or (entry.waits and entry.postponed is None):
                    self._hashes.update(fingerprints(side.name, number, outputs))
        if self._remember:
            self._repeat(sides, number, sample, given)

    def _repeat(self, sides: Sides, number: int, sample: Feed, given: Mapping[str, dict[str, Any]]) -> None:
        """Runs twice what differs, and the reference, on the first sample on which it does: before anything is blamed
        for a difference, it is known whether it comes and goes. What draws random values is run twice in any case; what
        the walk will run once more is left to it (`again`)."""
        reference = sides.reference.name
        waiting = [n for n in given if self._entries[n].runs_again]
        differs = {n for n in given if waiting and not repeat(given[n], given[reference]).identical}
        if differs:
            differs.add(reference)
        for name in waiting:
            entry = self._entries[name]
            if name not in differs and not (number == 0 and random_nodes(entry.side.model.index)):
                continue
            if entry.waits:
                entry.postponed = number
                continue
            assert entry.session is not None
            try:
                again = entry.session.infer(feed_of(entry.session, sample), list(given[name]))
            except Exception as error:
                entry.error = f"sample {number}, run again: {_reason(error)}"
            else:
                entry.repeat = repeat(given[name], again)

    def _measure(self, sides: Sides, sample: Feed, runs: int) -> None:
        """Times each runner alone, one after the other."""
        for side in sides.all:
            entry = self._entries[side.name]
            if entry.error is not None or entry.session is None:
                continue
            self._progress.stage(f"{side.name}: timing {counted(runs, 'run')}")
            if entry.in_pieces:
                self._notices.append(notices.not_timed(side.name))
                continue
            if not side.runner.capabilities.computes:
                self._notices.append(notices.not_computed(side.name))
                continue
            try:
                entry.latency = entry.session.latency(feed_of(entry.session, sample), runs)
            except Exception as error:
                entry.error = f"latency: {_reason(error)}"


def _staying(sides: Sides, sessions: Mapping[str, Session]) -> set[str]:
    """Whose outputs need no download before they are compared: the reference's, and those of who shares its GPU."""
    device = sessions[sides.reference.name].device
    others = {p.name for p in sides.candidates if device and sessions[p.name].device == device}
    return {sides.reference.name, *others} if others else set()


def _inferences(
    session: Session, samples: Callable[[], Iterator[tuple[int, Feed]]], uploads: Uploads | None
) -> Callable[[Feed], Any]:
    """Gives the outputs of one sample after the other; with ``uploads``, on the device."""
    if not isinstance(session, PiecedSession):
        return session.infer if uploads is None else lambda feed: session.infer_on_device(uploads(feed))
    results = session.infer_all(lambda: (feed_of(session, sample) for _, sample in samples()))
    return lambda feed: next(results)


def _reason(error: Exception) -> str:
    """Why a runner failed, in at most two lines. Wrong usage is not a failure and goes on up."""
    log.debug("a runner failed", exc_info=error)
    if isinstance(error, LayerdiffError) and not isinstance(error, RunnerError):
        raise error
    text = "\n".join(said(error).splitlines()[:2])
    return (
        text if isinstance(error, RunnerError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
    )
