"""Both runtimes walk the graph piece by piece, side by side.

For each piece and sample the reference runs on its own values; the candidate runs on its own (cumulative error) and,
with every layer cut off from the others, on the reference's (local error). Statistics and the tensors live at the next
cut are kept, the rest is dropped. A layer whose local error rounding does not explain is looked into at once, while its
tensors are at hand, and from there on a copy of the reference carries its error, and its alone, to the outputs
(contribution).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.cutting.slices import exploded_name, in_whole_graph
from ...graph.errors import ModelError, RunnerError
from ...graph.specs import Arrays, cast, held, is_float
from ..causes import nondeterminism, refused
from ..lockstep.plan import LayerPair, LockstepPlan, PiecePair
from ..lockstep.sessions import FREE, Alike, SessionsAhead, StepSessions
from ..progress import SILENT, Progress
from ..runs.repeatability import repeat, same_bits
from ..runs.spill import SHARE, Store
from ..statistics.portrait import close_up
from .collisions import Collision, collisions
from .contribution import SUSPECTS, Contributions
from .observation import Gathering, relative_error
from .portion import squares
from .texts import walk_stopped
from .walked import Forced, Walked

if TYPE_CHECKING:
    from ...runners.contract.session import Session
    from ..comparison import Comparison
    from ..report.model import Notice
    from ..runs.deployed import Deployed
    from ..sides import Side
    from .judging import LayerJudge
    from .resuming import Checkpoint

logger = logging.getLogger(__name__)


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
        self._identical: dict[str, list[bool | None]] = {name: [] for name in self.reference.model.index.outputs}
        self._notices: list[Notice] = []
        self._collisions: list[Collision] = []
        self._random = {n for pair in plan.layers if pair.random for n in pair.reference.outputs}
        self._back = plan.back
        self._last = self._last_use()
        self._errors = dict(self.forced.errors or {})
        self._only = frozenset(self.forced.numbers) if judge is None and self.forced.errors is not None else None
        most, portion = max(SUSPECTS, len(self.forced.numbers)), self.forced.portion
        self._contributions = Contributions(self.reference, candidate, plan.tensors, self._last, most, portion)
        self._free = True
        self._parted: set[int] = set()  # samples of which the candidate has made other values than the reference
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
            done = self._go_on(checkpoint, store)
            opened = stack.enter_context(
                SessionsAhead(
                    self.reference,
                    self.candidate,
                    steps[done:],
                    self.budget,
                    self.comparison.workload,
                    frozenset() if self.judge is None and self.forced.sample is None else self._only,
                    self.comparison.builders,
                    Alike(self.plan.tensors, lambda: bool(self._parted)),
                )
            )
            for step, sessions in opened:
                behind = sum(len(other.layers) for other in steps if other.index < step.index)
                self._progress.advance(behind, len(self.plan.layers), "layers")
                self._step(sessions, store)
                done += 1
                if checkpoint is not None:
                    checkpoint.offer(functools.partial(self._state, done, store), last=done == len(steps))
            return self._finish(store)

    def _state(self, done: int, store: Store) -> dict[str, Any]:
        """All that the walk has gathered when the first pieces are done."""
        judge = self.judge
        return {
            "done": done,
            "seen": {number: seen.state() for number, seen in self._seen.items() if seen.piece < done},
            "identical": self._identical,
            "notices": self._notices,
            "collisions": self._collisions,
            "free": self._free,
            "parted": self._parted,
            "errors": self._errors,
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
        self._identical, self._notices, self._collisions = state["identical"], state["notices"], state["collisions"]
        self._free, self._errors, self._parted = state["free"], state["errors"], state["parted"]
        self._contributions.streams[:] = state["streams"]
        for (stream, sample, name), array in state["store"]:
            store.put(stream, sample, name, array)
        if self.judge is not None:
            pairs = {pair.number: pair for pair in self.plan.layers}
            self.judge.noise.unprobed.update({pairs[n]: why for n, why in state["unprobed"].items()})
            self.judge.bodies.found.update(state["bodies"])
        return int(state["done"])

    def _step(self, run: StepSessions, store: Store) -> None:
        step = run.step
        needed = {*step.reference.inputs, *(self._back.get(n, n) for n in step.candidate.inputs)}
        for pair in step.layers:
            needed.update(pair.reference.inputs, (self._back.get(n, n) for n in pair.candidate.inputs))
        needed -= {n for pair in step.layers for n in pair.reference.outputs}
        graph_inputs = set(self.reference.model.index.inputs)
        for sample, feed in self._samples(bool(needed & graph_inputs) or self._whole is not None):
            if self.judge is None and self.forced.sample not in (None, sample):
                continue  # nothing else is wanted
            values: dict[str, np.ndarray] = {
                n: feed[n] if n in feed else store.get("reference", sample, n) for n in needed
            }
            self._run_reference(run, feed, values)
            if not sample:
                index = self.reference.model.index
                self._collisions += (c for p in step.layers for c in collisions(index, p.reference.nodes, values))
            session = functools.partial(run.reference, values)
            if self._whole is None:
                self._contributions.begin(step, values, session)
            both, own = self._together(run, sample, feed, values, store), None
            if both is None:
                both = self._undivided(run, sample, feed, values, store)
            if both is not None:  # its own values first, which nobody needs any longer
                own = self._cumulative(run, sample, feed, values, store, both.pop(FREE))
            if self.candidate.runner.capabilities.runs_parts:
                self._local(run, sample, feed, values, both)
            if both is None and self._only is None:
                own = self._cumulative(run, sample, feed, values, store)
            if self._whole is None:
                read = functools.partial(self._own_values, step, sample, feed, values, store)
                theirs = functools.partial(_joined, read, own) if run.one and own is not None else None
                self._contributions.carry(step, sample, values, session, theirs)
            for name in (n for pair in step.layers for n in pair.reference.outputs):
                if self._last.get(name, -1) > step.index:
                    store.put("reference", sample, name, values[name])
            gone = [n for n in needed if self._last.get(n, -1) <= step.index]
            store.drop("reference", sample, gone)
            store.drop("candidate", sample, gone)

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

    # -- reference ----------------------------------------------------------------------------------------------

    def _open_whole(self) -> Session:
        names = [n for pair in self.plan.layers for n in pair.reference.outputs]
        return self.reference.runner.session(self.reference.model, fetch=names, workload=self.comparison.workload)

    def _run_reference(self, run: StepSessions, feed: Arrays, values: dict[str, np.ndarray]) -> None:
        outputs = run.step.reference.outputs
        if self._whole is not None:
            # what earlier pieces gave is taken as it is: computed anew, random values would be drawn anew
            feeds = self.reference.runner.capabilities.feeds_inner_tensors
            drawn = {n: values[n] for n in run.step.reference.inputs} if feeds else {}
            # what is inside its layers too, where that is not what the graph would compute from their inputs
            inner = () if self.reference.runner.capabilities.any_model else run.step.inner
            values.update(self._whole.infer({**feed, **drawn}, [*outputs, *inner]))
            return
        session = run.reference(values)
        values.update(session.infer({n: values[n] for n in run.step.reference.inputs}, outputs))

    # -- local error --------------------------------------------------------------------------------------------

    def _together(
        self, run: StepSessions, sample: int, feed: Arrays, values: Arrays, store: Store
    ) -> dict[int, Arrays] | None:
        """What the candidate makes of layers on the reference's values and, as that of `FREE`, of its own, by one
        session; None where it takes two, or one cannot be run and has to say why."""
        pairs = self._runnable(run.step)
        if not run.joins or run.refused or not pairs or not self._free:
            return None
        own = self._own_values(run.step, sample, feed, values, store)
        given = {**self._feed_of(pairs, values), **{exploded_name(n, FREE): array for n, array in own.items()}}
        try:
            flat = run.together(pairs, given).infer(given)
        except (RunnerError, ModelError):
            run.joins = False
            return None
        made = {p.number: {n: flat[exploded_name(n, p.number)] for n in p.candidate.outputs} for p in pairs}
        return {**made, FREE: {n: flat[exploded_name(n, FREE)] for n in run.step.candidate.outputs}}

    def _undivided(
        self, run: StepSessions, sample: int, feed: Arrays, values: Arrays, store: Store
    ) -> dict[int, Arrays] | None:
        """As `_together`, while the candidate's own values are the reference's, of a run on these: if it makes the
        reference's again, bit by bit, each layer has read the reference's values. Of `FREE` alone, if it does not.
        """
        step = run.step
        able = self._free and self._only is None and not run.chains and bool(step.candidate.outputs)
        if sample in self._parted or not able or any(pair.random for pair in step.layers):
            return None
        try:
            own = self._own_values(step, sample, feed, values, store)
            made = run.candidate(own).infer(own, step.candidate.outputs)
        except (RunnerError, ModelError):
            self._parted.add(sample)
            return None
        mine = {n: values[self._back.get(n, n)] for n in (*own, *made) if self._back.get(n, n) in values}
        if not all(same_bits(mine.get(name), array) for name, array in {**own, **made}.items()):
            self._parted.add(sample)
            return {FREE: made}
        made = {name: mine[name] for name in made}
        return {**{p.number: {n: made[n] for n in p.candidate.outputs} for p in self._pairs(step)}, FREE: made}

    def _pairs(self, step: PiecePair) -> list[LayerPair]:
        """The layers of a piece whose local error is looked at."""
        return [p for p in step.layers if not p.random and (self.judge or p.number in self.forced.numbers)]

    def _runnable(self, step: PiecePair) -> list[LayerPair]:
        """These layers, if all of them can be run; none if one cannot."""
        pairs = self._pairs(step)
        return [] if any(self._seen[pair.number].failure is not None for pair in pairs) else pairs

    def _local(
        self, run: StepSessions, sample: int, feed: Arrays, values: Arrays, both: dict[int, Arrays] | None
    ) -> None:
        pairs = self._pairs(run.step)
        if not pairs:
            return
        made = both or self._run_layers(run, pairs, values)
        suspects = []
        for pair in pairs:
            if pair.number not in made:
                continue
            seen = self._seen[pair.number]
            relative = seen.compared(values, made[pair.number], sample)
            if pair.number in self.forced.numbers and sample == self.forced.sample:
                self._contribute(run.step, seen, sample, made, values)
                self.forced.look_at(pair, values)
            if self.judge is not None and self.judge.worth_judging(seen, relative, sample, values):
                suspects.append(seen)
        if self.judge is None:
            return
        guilty = self.judge.judge(suspects, sample, values, made)
        if guilty:
            self._run_again(run, guilty, pairs, feed, values, made)
        for seen in guilty:
            for name, other in zip(seen.pair.reference.outputs, seen.pair.candidate.outputs, strict=True):
                seen.portraits[name].update(close_up(values[name], made[seen.pair.number][other]))
            self._contribute(run.step, seen, sample, made, values)
        for pair in pairs:
            self.judge.look_inside(self._seen[pair.number], values, made.get(pair.number))

    def _run_again(
        self,
        run: StepSessions,
        guilty: Sequence[Gathering],
        pairs: list[LayerPair],
        feed: Arrays,
        values: Arrays,
        made: Mapping[int, Arrays],
    ) -> None:
        """Runs both sides once more: of an error that no graph draws, it is known then whether it comes and goes."""
        mine = dict(values)
        self._run_reference(run, feed, mine)
        theirs = self._run_layers(run, pairs, values)
        for seen in (s for s in guilty if not s.pair.drawn):
            pair, name = seen.pair, seen.tensor
            other = pair.candidate.outputs[pair.reference.outputs.index(name)]
            first = made[pair.number][other]
            runs = {self.candidate.name: ({name: first}, {name: theirs[pair.number][other]})}
            read = {n: values[n] for n in pair.reference.inputs}
            if repeat(read, mine).identical:  # else what it reads came and went
                runs[self.reference.name] = {name: values[name]}, {name: mine[name]}
            error = relative_error(seen.statistics().update(values[name], first))
            seen.diagnosis = nondeterminism.find(runs, error) or seen.diagnosis

    def _run_layers(self, run: StepSessions, pairs: Sequence[LayerPair], values: Arrays) -> dict[int, Arrays]:
        """What the candidate makes of layers on the reference's values, by the layer's number."""
        made = (self._run_exploded(run, group, values) for group in run.groups(pairs))
        return {number: outputs for group in made for number, outputs in group.items()}

    def _run_exploded(self, run: StepSessions, pairs: Sequence[LayerPair], values: Arrays) -> dict[int, Arrays]:
        if len(pairs) == 1 and self._seen[pairs[0].number].failure is not None:
            return {}
        feed, session = self._feed_of(pairs, values), None
        try:
            session = run.exploded(pairs, feed)
            flat = session.infer(feed)
        except (RunnerError, ModelError) as error:
            if len(pairs) > 1:
                logger.debug("%d layers do not run together", len(pairs), exc_info=error)
                run.refuse(pairs)
                return self._run_layers(run, pairs, values)
            failed = refused.NotBuilt if session is None else refused.Refused
            self._seen[pairs[0].number].failure = failed(in_whole_graph(str(error)))
            return {}
        return {p.number: {n: flat[exploded_name(n, p.number)] for n in p.candidate.outputs} for p in pairs}

    def _feed_of(self, pairs: Sequence[LayerPair], values: Arrays) -> Arrays:
        """The reference's values for what the candidate's layers read."""
        specs = self.candidate.model.index.specs
        return {name: held(values[source], specs.get(name)) for name, source in self.plan.sources(pairs).items()}

    def _contribute(
        self, step: PiecePair, seen: Gathering, sample: int, made: Mapping[int, Arrays], values: Arrays
    ) -> None:
        whole = self._whole is not None
        self._contributions.start(step, seen.pair, sample, made[seen.pair.number], values, whole=whole)

    # -- cumulative error ---------------------------------------------------------------------------------------

    def _cumulative(
        self,
        run: StepSessions,
        sample: int,
        feed: Arrays,
        values: Arrays,
        store: Store,
        made: Arrays | None = None,
    ) -> Arrays | None:
        """``made``: what the candidate gives on its own values, where that is known. Returns that, if it gives any."""
        step = run.step
        if not self._free or not step.candidate.outputs:
            return None
        try:
            if made is None:
                own = self._own_values(step, sample, feed, values, store)
                made = self._chained(run, own, values) or run.candidate(own).infer(own, step.candidate.outputs)
        except (RunnerError, ModelError) as error:
            self._free = False
            self._notices.append(walk_stopped(self.candidate.name, step.index, error))
            return None
        for pair in step.layers:
            if pair.random:
                continue
            seen = self._seen[pair.number]
            for name, other in zip(pair.reference.outputs, pair.candidate.outputs, strict=True):
                seen.went(name, values[name], made[other], sample)
                if name in self._identical and is_float(values[name].dtype):
                    self._errors[sample, name] = squares(values[name], made[other])
                if name in self._identical and self.deployed is not None:
                    same = self.deployed.same(self.candidate.name, sample, name, made[other])
                    self._identical[name].append(same)
                if self._last.get(name, -1) > step.index:
                    store.put("candidate", sample, name, made[other])
        return made

    def _chained(self, run: StepSessions, own: Arrays, values: Arrays) -> dict[str, np.ndarray] | None:
        """What the candidate makes of its own values, layer by layer in the session that has just run them on the
        reference's; None where it takes a session of its own."""
        pairs = self._runnable(run.step)
        if not run.chains or not pairs:
            return None
        known = dict(own)
        try:
            for group in run.groups(pairs):
                session = run.exploded(group, self._feed_of(group, values))
                for pair in group:
                    names = {exploded_name(n, pair.number): n for n in pair.candidate.outputs}
                    made = session.infer({n: known[n] for n in pair.candidate.inputs}, list(names))
                    known.update((names[name], array) for name, array in made.items())
            return {n: known[n] for n in run.step.candidate.outputs}
        except (RunnerError, ModelError, KeyError):
            run.chains = False  # a shape that follows from values, a layer that reads one behind it
            return None

    def _own_values(self, step: PiecePair, sample: int, feed: Arrays, values: Arrays, store: Store) -> Arrays:
        """What the candidate itself made of what a piece reads; of what is random or given, what the reference did."""
        specs = self.candidate.model.index.specs
        own: dict[str, np.ndarray] = {}
        for name in step.candidate.inputs:
            source = self._back.get(name, name)
            if source in feed:
                own[name] = cast(feed[source], specs.get(name))
            elif source in self._random:
                drawn = values[source] if source in values else store.get("reference", sample, source)
                own[name] = held(drawn, specs.get(name))
            else:
                own[name] = store.get("candidate", sample, source)
        return own

    # -- the end ------------------------------------------------------------------------------------------------

    def _finish(self, store: Store) -> Walked:
        index = self.reference.model.index
        outputs = [n for n in index.outputs if n in self.plan.tensors and n in index.producer]
        feed_of = functools.partial(self._feed, store)
        shares = self._contributions.finish(store, self._errors, outputs, feed_of, self._whole)
        layers = [self._seen[number].observed(shares.get(number)) for number in sorted(self._seen)]
        reached = {n: s.cumulative[n] for s in layers for n in outputs if n in s.cumulative}
        identical = {name: tuple(flags) for name, flags in self._identical.items()}
        collided, notices = tuple(self._collisions), tuple(self._notices)
        return Walked(tuple(layers), reached, identical, collided, notices, self._errors)

    def _feed(self, store: Store, sample: int) -> Arrays:
        """The inputs of a whole model for one sample, and what it drew."""
        drawn = {n: store.get("reference", sample, n) for n in self._random if store.has("reference", sample, n)}
        return {**next(feed for i, feed in enumerate(self.comparison.samples) if i == sample), **drawn}


def _joined(read: Callable[[], Arrays], made: Arrays) -> Arrays:
    return {**read(), **made}
