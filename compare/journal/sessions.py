"""Sessions whose results are kept in a journal: what a run gave once is not run again.

What a session gives depends on its runner, its model and what it is fed, and on nothing else. Where all that it is
asked for is in the journal, it is never opened. A run that is asked for a second time is a run of its own, with an
entry of its own: whether a runtime gives the same bits twice is never answered by remembering.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ...graph.cutting.dataflow import random_nodes
from ...graph.digest import combined
from ...graph.specs import TensorSpec
from ...runners.contract.latency import Latency
from ...runners.contract.session import Session, SessionInfo
from ...runners.contract.workload import Workload
from .journal import MISSING, Journal
from .keys import Digests, key_of, runner_key

if TYPE_CHECKING:
    import numpy as np

    from ...dataloaders.base import Samples
    from ...graph.model import Model
    from ...runners.contract.runner import Runner
    from ...runners.contract.workload import Feed

T = TypeVar("T")

RATE = 1e9
"""Bytes that are kept in a second, or a little more."""
SHARE = 0.05
"""Of the time that a result takes, what keeping it may take besides."""
FREE = 1 << 20
"""Bytes of a result that are kept whatever it took."""


class Facts(NamedTuple):
    """What a session is known by before it is opened."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    info: SessionInfo


class RunJournal:
    """The journal of one comparison, as those use it who run something.

    Attributes:
        entries: The journal.
        digests: Of arrays.
        asked: How often each run was asked for.
    """

    def __init__(self, entries: Journal) -> None:
        self.entries = entries
        self.digests = Digests()
        self.asked: Counter[str] = Counter()
        self._data: tuple[Samples, str] | None = None

    def session(
        self,
        runner: Runner,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Session:
        """See `Runner.session`: the same, opened when something is asked for that the journal does not hold."""

        def opened(timings: bytes = b"") -> Session:
            timed = runner.with_timings(timings) if timings else runner
            return timed.session(model, fetch=fetch, workload=workload, progress=progress)

        key = self._key(runner, model, fetch, workload)
        if key is None:
            return opened()
        files = [getattr(runner, name) for name in runner.capabilities.output_files]
        believed, keeps = all(os.path.exists(path) for path in files if path), runner.capabilities.keeps_inputs
        return JournaledSession(self, key, opened, believed, keeps)

    def data(self, samples: Samples) -> str:
        """One digest of all samples."""
        if self._data is None or self._data[0] is not samples:
            self._data = samples, combined(map(self.digests.of, samples))
        return self._data[1]

    def turn(self, *parts: Any) -> str:
        """The key of something that is asked for, which is another one each time."""
        key = key_of(*parts)
        self.asked[key] += 1
        return key_of(key, self.asked[key])

    def _key(self, runner: Runner, model: Model, fetch: Sequence[str], workload: Workload | None) -> str | None:
        """The key of a session; None where its results depend on more than what has a key.

        What draws random values gives others, if some of its runs are left out.
        """
        mine = runner_key(runner)
        if mine is None or random_nodes(model.index):
            return None
        return key_of("session", mine, model.digest, list(fetch), self._built_for(runner, workload or Workload()))

    def _built_for(self, runner: Runner, workload: Workload) -> Any:
        """What a session is made for, where its runner makes something of that."""
        can, fmt = runner.capabilities, runner.arithmetic
        if not (can.builds_for_shapes or fmt.is_integer or fmt.name == "e4m3"):
            return None
        samples = workload.calibrating
        sets = [{name: (r.min, r.opt, r.max) for name, r in shapes.items()} for shapes in workload.shape_sets]
        return [] if samples is None else list(map(self.digests.of, samples())), sets


def remembered(
    journal: RunJournal | None, parts: Callable[[RunJournal], tuple[Any, ...] | None], make: Callable[[], T]
) -> T:
    """What a stage comes to, made once for the same journal.

    Args:
        journal: The journal; None: nothing is kept.
        parts: Gives all that the result depends on; None where that is not known.
        make: Makes the result.
    """
    if journal is None:
        return make()
    try:
        known = parts(journal)
        key = None if known is None else key_of(*known)
    except TypeError:  # something that has no key
        key = None
    found: Any = MISSING if key is None else journal.entries.recall(key)
    if found is not MISSING:
        made: T
        made, turns = found
        journal.asked.update(turns)
        return made
    before = Counter(journal.asked)
    made = make()
    if key is not None:
        # what asks for the same again later is to get the answer that it got before
        journal.entries.keep(key, (made, dict(journal.asked - before)))
    return made


class JournaledSession(Session):
    """A session that is opened when it is needed. See `RunJournal.session`."""

    def __init__(
        self, journal: RunJournal, key: str, opened: Callable[[bytes], Session], believed: bool, keeps: bool
    ) -> None:
        """Opens the session if the journal does not know it.

        Args:
            journal: The journal.
            key: The key of the session.
            opened: Opens it, with what is known of kernels' times.
            believed: Whether what the journal knows does. Else opening it leaves something that is not there.
            keeps: Whether it may be fed some inputs alone, see `Capabilities`: what it was fed in runs that were
                remembered, it has not seen.
        """
        self._keeps = keeps
        self._unseen: dict[str, np.ndarray] = {}
        self._journal = journal
        self._key = key
        self._opened = opened
        self._session: Session | None = None
        self._seen = SessionInfo()
        found: Any = journal.entries.recall(key) if believed else MISSING
        if found is MISSING:
            session = self._real()
            found = Facts(session.inputs, session.outputs, session.info)
            if not found.info.not_run:  # another time, there may be a GPU
                journal.entries.keep(key, found)
        self.inputs, self.outputs, self.info = found

    def infer(self, feed: Feed, fetch: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """See `Session.infer`."""
        key = self._journal.turn(
            "infer", self._key, self._journal.digests.of(feed), None if fetch is None else list(fetch)
        )
        self._unseen.update(feed if self._keeps else {})

        def run(session: Session) -> dict[str, np.ndarray]:
            unseen, self._unseen = self._unseen, {}
            return session.infer(unseen if self._keeps else feed, fetch)

        found: dict[str, np.ndarray] = self._remembered(
            key, run, lambda made, seconds: _size(made) <= max(FREE, SHARE * RATE * seconds)
        )
        return found

    def latency(self, feed: Feed, runs: int) -> Latency:
        """See `Session.latency`."""
        key = self._journal.turn("latency", self._key, self._journal.digests.of(feed), runs)
        found: Latency = self._remembered(key, lambda session: session.latency(feed, runs), lambda *_: True)
        return found

    def close(self) -> None:
        """See `Session.close`."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _remembered(self, key: str, make: Callable[[Session], Any], worth: Callable[[Any, float], bool]) -> Any:
        entries = self._journal.entries
        found = entries.recall(key)
        if found is not MISSING:
            made, news = found
            self.info = news or self.info
            return made
        session = self._real()
        start = time.perf_counter()
        made = make(session)
        seconds = time.perf_counter() - start
        news = None if session.info is self._seen else session.info
        if news is not None:
            self._seen = self.info = news
        if worth(made, seconds):
            entries.keep(key, (made, news))
        return made

    def _real(self) -> Session:
        if self._session is None:
            known = self._journal.entries.recall(self._key)
            timings = b"" if known is MISSING else known.info.timing_cache
            self._session = self._opened(timings)
            self._seen = self._session.info
        return self._session


def _size(outputs: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in outputs.values())
