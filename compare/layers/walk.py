"""Both runtimes walk the graph piece by piece, side by side.

For each piece and sample the reference runs on its own values; the candidate runs on its own (cumulative error) and,
with every layer cut off from the others, on the reference's (local error). Statistics and the tensors live at the next
cut are kept, the rest is dropped. A layer whose local error rounding does not explain is looked into at once, while its
tensors are at hand, and from there on a copy of the reference carries its error, and its alone, to the outputs
(contribution).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ...graph.specs import Arrays
from ..lockstep.plan import LockstepPlan
from ..lockstep.sessions import Alike, SessionsAhead, StepSessions
from ..progress import SILENT, Progress
from ..runs.spill import SHARE, Store
from .collisions import Collision, collisions
from .contribution import SUSPECTS, Contributions
from .looks import Looks
from .observation import Gathering
from .piece_runs import PieceRun, PieceRuns
from .walked import Forced, Walked

if TYPE_CHECKING:
    from ...runners.contract.session import Session
    from ..comparison import Comparison
    from ..runs.deployed import Deployed
    from ..sides import Side
    from .judging import LayerJudge
    from .resuming import Checkpoint


class Walk:
    """One candidate's walk beside the reference.

    Args:
        comparison: The comparison.
        candidate: Who is judged.
        plan: The pieces and layers.
        judge: Holds layers against their expected noise; None: no layer is judged, see ``forced``.
        forced: Layers whose contribution is measured in place of that.
        deployed: The candidates' outputs as the whole models gave them; None: nothing is held against them.
        budget: Bytes that localizing may use; a share of them for the tensors that are kept between pieces.
        progress: Told what is going on.
    """

    def __init__(
        self,
        comparison: Comparison,
        candidate: Side,
        plan: LockstepPlan,
        *,
        judge: LayerJudge | None = None,
        forced: Forced | None = None,
        deployed: Deployed | None = None,
        budget: int = 1 << 28,
        progress: Progress = SILENT,
    ) -> None:
        self.comparison = comparison
        self.candidate = candidate
        self.reference = comparison.reference
        self.plan = plan
        self.judge = judge
        self.forced = forced or Forced(())
        self.deployed = deployed
        self.budget = budget
        self._progress = progress
        nan = comparison.rules.nan_equal
        self._seen = {p.number: Gathering(p, step.index, equal_nan=nan) for step in plan.steps for p in step.layers}
        self._collisions: list[Collision] = []
        self._random = {n for pair in plan.layers if pair.random for n in pair.reference.outputs}
        self._back = plan.back
        self._last = self._last_use()
        self._only = frozenset(self.forced.numbers) if judge is None and self.forced.errors is not None else None
        self._whole: Session | None = None

    # -- the walk -----------------------------------------------------------------------------------------------

    def run(self, checkpoint: Checkpoint | None = None) -> Walked:
        """Walks all pieces for all samples.

        Args:
            checkpoint: Where the walk goes on if it was killed, and keeps how far it is.
        """
        steps = self.plan.steps
        with ExitStack() as stack, Store(self.budget // SHARE) as store:
            if not self.reference.runner.capabilities.pieces:
                self._whole = stack.enter_context(self._open_whole())
            self._begin(store)
            done = self._go_on(checkpoint, store)
            for step, sessions in stack.enter_context(self._sessions(done)):
                behind = sum(len(other.layers) for other in steps if other.index < step.index)
                self._progress.advance(behind, len(self.plan.layers), "layers")
                self._step(sessions, store)
                done += 1
                if checkpoint is not None:
                    checkpoint.offer(functools.partial(self._state, done, store), last=done == len(steps))
            return self._finish(store)

    def _begin(self, store: Store) -> None:
        forced, plan, sides = self.forced, self.plan, (self.reference, self.candidate)
        self._runs = PieceRuns(
            *sides, plan, self._seen, store, whole=self._whole, forced=forced, judged=self.judge is not None
        )
        most = max(SUSPECTS, len(forced.numbers))
        self._contributions = Contributions(*sides, plan.tensors, self._last, most, forced.portion)
        self._looks = Looks(
            (self.reference.name, self.candidate.name),
            self._runs,
            self._seen,
            self._contributions,
            self.judge,
            forced,
            self.deployed,
            list(self.reference.model.index.outputs),
        )

    def _sessions(self, done: int) -> SessionsAhead:
        return SessionsAhead(
            self.reference,
            self.candidate,
            self.plan.steps[done:],
            self.budget,
            self.comparison.workload,
            frozenset() if self.judge is None and self.forced.sample is None else self._only,
            self.comparison.builders,
            Alike(self.plan.tensors, lambda: bool(self._runs.parted)),
        )

    def _state(self, done: int, store: Store) -> dict[str, Any]:
        """All that the walk has gathered when the first pieces are done."""
        judge = self.judge
        return {
            "done": done,
            "seen": {number: seen.state() for number, seen in self._seen.items() if seen.piece < done},
            "identical": self._looks.identical,
            "notices": self._runs.notices,
            "collisions": self._collisions,
            "free": self._runs.free,
            "parted": self._runs.parted,
            "errors": self._looks.errors,
            "streams": self._contributions.streams,
            "store": list(store.items()),
            "unprobed": {} if judge is None else {p.number: why for p, why in judge.noise.unprobed.items()},
            "bodies": {} if judge is None else judge.bodies.found,
        }

    def _go_on(self, checkpoint: Checkpoint | None, store: Store) -> int:
        """Takes over what an earlier run has kept. Returns how many pieces it was through."""
        state = None if checkpoint is None else checkpoint.found()
        if state is None:
            return 0
        for number, seen in state["seen"].items():
            vars(self._seen[number]).update(seen)
        runs, looks = self._runs, self._looks
        looks.identical, looks.errors, self._collisions = state["identical"], state["errors"], state["collisions"]
        runs.free, runs.parted, runs.notices = state["free"], state["parted"], state["notices"]
        self._contributions.streams[:] = state["streams"]
        for (stream, sample, name), array in state["store"]:
            store.put(stream, sample, name, array)
        if self.judge is not None:
            pairs = {pair.number: pair for pair in self.plan.layers}
            self.judge.noise.unprobed.update({pairs[n]: why for n, why in state["unprobed"].items()})
            self.judge.bodies.found.update(state["bodies"])
        return int(state["done"])

    def _step(self, sessions: StepSessions, store: Store) -> None:
        step = sessions.step
        needed = {*step.reference.inputs, *(self._back.get(n, n) for n in step.candidate.inputs)}
        for pair in step.layers:
            needed.update(pair.reference.inputs, (self._back.get(n, n) for n in pair.candidate.inputs))
        needed -= {n for pair in step.layers for n in pair.reference.outputs}
        graph_inputs = set(self.reference.model.index.inputs)
        for sample, feed in self._samples(bool(needed & graph_inputs) or self._whole is not None):
            if self.judge is None and self.forced.sample not in (None, sample):
                continue  # nothing else is wanted
            read = {n: feed[n] if n in feed else store.get("reference", sample, n) for n in needed}
            self._sample(sessions, sample, feed, read, store)
            gone = [n for n in needed if self._last.get(n, -1) <= step.index]
            store.drop("reference", sample, gone)
            store.drop("candidate", sample, gone)

    def _sample(self, sessions: StepSessions, sample: int, feed: Arrays, read: dict[str, Any], store: Store) -> None:
        made, index = self._runs.run(sessions, sample, feed, read), self.reference.model.index
        if not sample:
            layers = made.step.layers
            self._collisions += (c for p in layers for c in collisions(index, p.reference.nodes, made.values))
        self._keep(made, store)
        self._looks.at(made)

    def _keep(self, made: PieceRun, store: Store) -> None:
        """Keeps what later pieces read."""
        for pair in made.step.layers:
            for name, other in zip(pair.reference.outputs, pair.candidate.outputs, strict=True):
                if self._last.get(name, -1) <= made.step.index:
                    continue
                store.put("reference", made.sample, name, made.values[name])
                if made.own is not None and not pair.random:
                    store.put("candidate", made.sample, name, made.own[other])

    def _samples(self, with_feed: bool) -> Iterator[tuple[int, Arrays]]:
        if with_feed:
            yield from enumerate(self.comparison.samples)
        else:
            yield from ((i, {}) for i in range(len(self.comparison.samples)))

    def _last_use(self) -> dict[str, int]:
        """The last step that reads each tensor; outputs are kept to the end."""
        last: dict[str, int] = {}
        back = self._back
        for step in self.plan.steps:
            for name in step.reference.inputs:
                last[name] = step.index
            for name in step.candidate.inputs:
                last[back.get(name, name)] = step.index
            for pair in step.layers:
                for name in (*pair.reference.inputs, *(back.get(n, n) for n in pair.candidate.inputs)):
                    last[name] = step.index
        last.update(dict.fromkeys(self.comparison.reference.model.index.outputs, len(self.plan.steps)))
        if not self.reference.runner.capabilities.pieces:
            last.update(dict.fromkeys(self._random, len(self.plan.steps)))
        return last

    def _open_whole(self) -> Session:
        names = [n for pair in self.plan.layers for n in pair.reference.outputs]
        return self.reference.runner.session(self.reference.model, fetch=names, workload=self.comparison.workload)

    # -- the end ------------------------------------------------------------------------------------------------

    def _finish(self, store: Store) -> Walked:
        index = self.reference.model.index
        outputs = [n for n in index.outputs if n in self.plan.tensors and n in index.producer]
        feed_of = functools.partial(self._feed, store)
        shares = self._contributions.finish(store, self._looks.errors, outputs, feed_of, self._whole)
        layers = [self._seen[number].observed(shares.get(number)) for number in sorted(self._seen)]
        reached = {n: s.cumulative[n] for s in layers for n in outputs if n in s.cumulative}
        identical = {name: tuple(flags) for name, flags in self._looks.identical.items()}
        collided, notices = tuple(self._collisions), tuple(self._runs.notices)
        return Walked(tuple(layers), reached, identical, collided, notices, self._looks.errors)

    def _feed(self, store: Store, sample: int) -> Arrays:
        """The inputs of a whole model for one sample, and what it drew."""
        drawn = {n: store.get("reference", sample, n) for n in self._random if store.has("reference", sample, n)}
        return {**next(feed for i, feed in enumerate(self.comparison.samples) if i == sample), **drawn}
