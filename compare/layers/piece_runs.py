"""Both sides run one piece: the reference on its own values, the candidate on these and on its own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import exploded_name, in_whole_graph
from ...graph.errors import ModelError, RunnerError
from ...graph.specs import Arrays, cast, held
from ..causes import refused
from ..lockstep.plan import LayerPair, LockstepPlan, PiecePair
from ..lockstep.sessions import FREE, StepSessions
from ..runs.repeatability import same_bits
from ..runs.spill import Store
from .texts import walk_stopped
from .walked import Forced

if TYPE_CHECKING:
    from ...runners.contract.session import Session
    from ..report.model import Notice
    from ..sides import Side
    from .observation import Gathering

logger = logging.getLogger(__name__)


@dataclass
class PieceRun:
    """What both sides made of one piece and one sample.

    Attributes:
        sessions: Those of the piece.
        sample: Number of the sample.
        feed: The sample, where the piece reads something of it.
        values: The reference's tensors: what the piece and its layers read and make.
        layers: What the candidate made of layers on these, by the layer's number.
        own: What it made of its own values; None where it was not run on them.
        read: Those values, where both sides are one program.
    """

    sessions: StepSessions
    sample: int
    feed: Arrays
    values: dict[str, np.ndarray]
    layers: dict[int, Arrays] = field(default_factory=dict)
    own: Arrays | None = None
    read: Arrays | None = None

    @property
    def step(self) -> PiecePair:
        """The piece."""
        return self.sessions.step

    @property
    def reference(self) -> Callable[[], Session]:
        """Gives the reference's session on the piece."""
        return functools.partial(self.sessions.reference, self.values)


class PieceRuns:
    """The runs of one walk.

    Args:
        reference: Who is believed.
        candidate: Who is judged.
        plan: The pieces and layers.
        seen: What is seen of each layer, by its number: told what could not be run.
        store: Holds what both sides made of earlier pieces.
        whole: The session of a reference that runs whole models only.
        forced: Layers whose contribution is measured.
        judged: Whether all layers are looked at, not those alone.

    Attributes:
        free: Whether the candidate could be run on its own values so far.
        parted: Samples of which it has made other values than the reference.
        notices: What the user should know.
    """

    def __init__(
        self,
        reference: Side,
        candidate: Side,
        plan: LockstepPlan,
        seen: Mapping[int, Gathering],
        store: Store,
        *,
        whole: Session | None,
        forced: Forced,
        judged: bool,
    ) -> None:
        self._reference, self._candidate, self._plan, self._seen, self._store = reference, candidate, plan, seen, store
        self._whole, self._forced, self._judged = whole, forced, judged
        self._own_wanted = judged or forced.errors is None
        self._drawn = {n for pair in plan.layers if pair.random for n in pair.reference.outputs}
        self.free = True
        self.parted: set[int] = set()
        self.notices: list[Notice] = []

    @property
    def whole(self) -> bool:
        """Whether the reference runs whole models only."""
        return self._whole is not None

    def run(self, sessions: StepSessions, sample: int, feed: Arrays, values: dict[str, np.ndarray]) -> PieceRun:
        """Runs both sides on one piece and sample.

        Args:
            sessions: Those of the piece.
            sample: Number of the sample.
            feed: The sample, where the piece reads something of it.
            values: What the reference's piece and its layers read; the tensors that it makes are added.
        """
        made = PieceRun(sessions, sample, feed, values)
        self.run_reference(made, values)
        if not self._together(made) and not self._undivided(made):
            made.layers = self.run_layers(sessions, self.layers(made.step), values)
        if made.own is None and self._own_wanted:
            made.own = self._on_its_own(made)
        if not self.free:
            made.own = None
        return made

    def layers(self, step: PiecePair) -> list[LayerPair]:
        """The layers of a piece whose local error is looked at."""
        if not self._candidate.runner.capabilities.runs_parts:
            return []
        return [p for p in step.layers if not p.random and (self._judged or p.number in self._forced.numbers)]

    def _runnable(self, step: PiecePair) -> list[LayerPair]:
        """These layers, if all of them can be run; none if one cannot."""
        pairs = self.layers(step)
        return [] if any(self._seen[pair.number].failure is not None for pair in pairs) else pairs

    # -- the reference ------------------------------------------------------------------------------------------

    def run_reference(self, made: PieceRun, values: dict[str, np.ndarray]) -> None:
        """Adds what the reference makes of a piece to ``values``, which hold what it reads."""
        step = made.step
        if self._whole is not None:
            # what earlier pieces gave is taken as it is: computed anew, random values would be drawn anew
            feeds = self._reference.runner.capabilities.feeds_inner_tensors
            drawn = {n: values[n] for n in step.reference.inputs} if feeds else {}
            # what is inside its layers too, where that is not what the graph would compute from their inputs
            inner = () if self._reference.runner.capabilities.any_model else step.inner
            values.update(self._whole.infer({**made.feed, **drawn}, [*step.reference.outputs, *inner]))
            return
        session = made.sessions.reference(values)
        values.update(session.infer({n: values[n] for n in step.reference.inputs}, step.reference.outputs))

    # -- the candidate, on the reference's values ---------------------------------------------------------------

    def _together(self, made: PieceRun) -> bool:
        """Runs the candidate's layers on the reference's values, and the piece on its own, by one session. Returns
        whether that could be done: not where it takes two, or where one cannot be run and has to say why."""
        run, step = made.sessions, made.step
        pairs = self._runnable(step)
        if not run.joins or run.refused or not self.free or len(self._plan.agreeing(pairs)) != 1:
            return False
        own = self._own_values(made)
        given = {**self._feed_of(pairs, made.values), **{exploded_name(n, FREE): array for n, array in own.items()}}
        try:
            flat = run.together(pairs, given).infer(given)
        except (RunnerError, ModelError):
            run.joins = False
            return False
        made.layers = {p.number: {n: flat[exploded_name(n, p.number)] for n in p.candidate.outputs} for p in pairs}
        made.own = {n: flat[exploded_name(n, FREE)] for n in step.candidate.outputs}
        return True

    def _undivided(self, made: PieceRun) -> bool:
        """As `_together`, while the candidate's own values are the reference's, of a run on these: if it makes the
        reference's again, bit by bit, each layer has read the reference's values. If not, its layers are still to be
        run."""
        run, step = made.sessions, made.step
        able = self.free and self._own_wanted and not run.chains and bool(step.candidate.outputs)
        if made.sample in self.parted or not able or any(pair.random for pair in step.layers):
            return False
        try:
            own = self._own_values(made)
            found = run.candidate(own).infer(own, step.candidate.outputs)
        except (RunnerError, ModelError):
            self.parted.add(made.sample)
            return False
        made.own, made.read = found, own if run.one else None
        values, back = made.values, self._plan.back
        mine = {n: values[back.get(n, n)] for n in (*own, *found) if back.get(n, n) in values}
        if not all(same_bits(mine.get(name), array) for name, array in {**own, **found}.items()):
            self.parted.add(made.sample)
            return False
        made.own = {name: mine[name] for name in found}
        left_out = {p.number: self._plan.sources([p]) for p in step.layers if not p.candidate.nodes}
        made.layers = {
            p.number: {
                n: values[left_out[p.number][n]] if p.number in left_out else mine[n] for n in p.candidate.outputs
            }
            for p in self.layers(step)
        }
        return True

    def run_layers(self, run: StepSessions, pairs: Sequence[LayerPair], values: Arrays) -> dict[int, Arrays]:
        """What the candidate makes of layers on the reference's values, by the layer's number."""
        made = (self._run_exploded(run, group, values) for group in self._groups(run, pairs))
        return {number: outputs for group in made for number, outputs in group.items()}

    def _groups(self, run: StepSessions, pairs: Sequence[LayerPair]) -> list[Sequence[LayerPair]]:
        """Layers in groups that run together on one value of each tensor that they read."""
        return [group for part in self._plan.agreeing(pairs) for group in run.groups(part)]

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
                return self.run_layers(run, pairs, values)
            failed = refused.NotBuilt if session is None else refused.Refused
            self._seen[pairs[0].number].failure = failed(in_whole_graph(str(error)))
            return {}
        return {p.number: {n: flat[exploded_name(n, p.number)] for n in p.candidate.outputs} for p in pairs}

    def _feed_of(self, pairs: Sequence[LayerPair], values: Arrays) -> Arrays:
        """The reference's values for what the candidate's layers read."""
        specs = self._candidate.model.index.specs
        return {name: held(values[source], specs.get(name)) for name, source in self._plan.sources(pairs).items()}

    # -- the candidate, on its own values -----------------------------------------------------------------------

    def _on_its_own(self, made: PieceRun) -> Arrays | None:
        """What the candidate makes of its own values of a piece, if it gives any."""
        step = made.step
        if not self.free or not step.candidate.outputs:
            return None
        try:
            own = self._own_values(made)
            if made.sessions.one:
                made.read = own
            return self._chained(made, own) or made.sessions.candidate(own).infer(own, step.candidate.outputs)
        except (RunnerError, ModelError) as error:
            self.free = False
            self.notices.append(walk_stopped(self._candidate.name, step.index, error))
            return None

    def _chained(self, made: PieceRun, own: Arrays) -> dict[str, np.ndarray] | None:
        """What the candidate makes of its own values, layer by layer in the session that has just run them on the
        reference's; None where it takes a session of its own."""
        run, pairs = made.sessions, self._runnable(made.step)
        if not run.chains or not pairs:
            return None
        known = dict(own)
        try:
            for group in self._groups(run, pairs):
                session = run.exploded(group, self._feed_of(group, made.values))
                for pair in group:
                    names = {exploded_name(n, pair.number): n for n in pair.candidate.outputs}
                    found = session.infer({n: known[n] for n in pair.candidate.inputs}, list(names))
                    known.update((names[name], array) for name, array in found.items())
            return {n: known[n] for n in made.step.candidate.outputs}
        except (RunnerError, ModelError, KeyError):
            run.chains = False  # a shape that follows from values, a layer that reads one behind it
            return None

    def _own_values(self, made: PieceRun) -> Arrays:
        """What the candidate itself made of what a piece reads; of what is random or given, what the reference did."""
        specs, values, store = self._candidate.model.index.specs, made.values, self._store
        own: dict[str, np.ndarray] = {}
        for name in made.step.candidate.inputs:
            source = self._plan.back.get(name, name)
            if source in made.feed:
                own[name] = cast(made.feed[source], specs.get(name))
            elif source in self._drawn:
                drawn = values[source] if source in values else store.get("reference", made.sample, source)
                own[name] = held(drawn, specs.get(name))
            else:
                own[name] = store.get("candidate", made.sample, source)
        return own
