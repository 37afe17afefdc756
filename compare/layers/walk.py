"""Both runtimes walk the graph piece by piece, side by side.

For each piece and sample the reference runs on its own values; the candidate runs on its own (cumulative error) and,
with every layer cut off from the others, on the reference's (local error). Statistics and the tensors live at the next
cut are kept, the rest is dropped. A layer whose local error rounding does not explain is looked into at once, while its
tensors are at hand, and from there on a copy of the reference carries its error, and its alone, to the outputs
(contribution).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...graph.cutting.slices import exploded_name
from ...graph.errors import ModelError, RunnerError
from ...graph.specs import cast, is_float
from ..causes.expected_noise import Expected, Noise
from ..causes.judgement import SLICE, Judgement
from ..lockstep.sessions import SessionsAhead, StepSessions
from ..lockstep.units import LayerPair, LockstepPlan, PiecePair
from ..notices import walk_stopped
from ..progress import SILENT, Progress
from ..runs.spill import SHARE, Store
from ..statistics.statistics import Statistics
from .contribution import Contributions

if TYPE_CHECKING:
    from ...runners.contract.session import Session
    from ..causes.examiner import Diagnosis, Examiner
    from ..comparison import Comparison
    from ..report.model import Notice
    from ..runs.deployed import Deployed
    from ..sides import Side

Arrays = dict[str, np.ndarray]


@dataclass
class LayerObservation:
    """What was seen of one layer.

    Attributes:
        local, cumulative: By output tensor; empty where the layer could not be run that way.
        judgement: The worst over the samples that were judged, and over its outputs.
        judgements: The worst over the samples of each output that was held against its expected noise.
        blamed: The output to blame, where a later layer cannot be given what it holds.
        diagnosis: Why, for a layer beyond its expected noise.
        failure: The candidate's error message, if it could not run the layer on the reference's inputs.
        full: All statistics of the output that is off the most, from the sample on that gave it away.
        contribution: Share of the candidate's whole error at the outputs.
    """

    unit: LayerPair
    piece: int
    local: dict[str, Statistics] = field(default_factory=dict)
    cumulative: dict[str, Statistics] = field(default_factory=dict)
    judgement: Judgement | None = None
    judgements: dict[str, Judgement] = field(default_factory=dict)
    blamed: str | None = None
    diagnosis: Diagnosis | None = None
    failure: str | None = None
    full: Statistics | None = None
    contribution: float | None = None

    @property
    def beyond(self) -> bool:
        """Whether its local error is more than rounding."""
        return self.failure is not None or (self.judgement is not None and self.judgement.beyond)

    @property
    def off(self) -> tuple[str, ...]:
        """The outputs that are to blame: all of them, where nothing tells them apart."""
        names = self.unit.reference.outputs
        found = tuple(n for n in names if n == self.blamed or (n in self.judgements and self.judgements[n].beyond))
        return found or names

    def note(self, found: Mapping[str, Judgement]) -> Judgement | None:
        """Keeps what is worse than before. Returns the worst."""
        for name, now in found.items():
            self.judgements[name] = worse(self.judgements.get(name), now)
            self.judgement = worse(self.judgement, now)
        return self.judgement


class Walk:
    """One candidate's walk beside the reference.

    Args:
        comparison: The comparison.
        candidate: Who is judged.
        layout: The pieces and layers.
        noise: What rounding is expected of a healthy layer.
        forced: Numbers of layers whose contribution is measured whatever their local error.
        deployed: The candidates' outputs as the whole models gave them; None: nothing is held against them.
        budget: Bytes that localizing may use; a share of them for the tensors that are kept between pieces.
        progress: Told what is going on.

    Attributes:
        examiner: Finds the cause for a layer beyond its expected noise; None: no layer is judged, see ``forced``.
        seen: What was seen of each layer, by its number.
        outputs: Cumulative statistics of the model's outputs.
        identical: Of each output and sample, whether it was the deployed one bit by bit.
        notices: What the user should know.
    """

    def __init__(
        self,
        comparison: Comparison,
        candidate: Side,
        layout: LockstepPlan,
        noise: Noise,
        *,
        forced: Collection[int] = (),
        deployed: Deployed | None = None,
        budget: int = 1 << 28,
        progress: Progress = SILENT,
    ) -> None:
        self.comparison = comparison
        self.candidate = candidate
        self.reference = comparison.reference
        self.layout = layout
        self.noise = noise
        self.examiner: Examiner | None = None
        self.forced = frozenset(forced)
        self.deployed = deployed
        self.budget = budget
        self._progress = progress
        self.seen = [LayerObservation(unit, step.index) for step in layout.steps for unit in step.units]
        self.seen.sort(key=lambda s: s.unit.number)
        self.outputs: dict[str, Statistics] = {}
        self.identical: dict[str, list[bool | None]] = {name: [] for name in self.reference.model.index.outputs}
        self.notices: list[Notice] = []
        self._random = {n for unit in layout.units if unit.random for n in unit.reference.outputs}
        self._last = self._last_use()
        self._contributions = Contributions(self.reference, self._last)
        self._free = True
        self._whole: Session | None = None
        self._back = {other: name for name, other in layout.tensors.items()}

    # -- the walk -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Walks all pieces for all samples; what it finds is in the attributes."""
        steps = self.layout.steps
        with ExitStack() as stack, Store(self.budget // SHARE) as store:
            if not self.reference.runner.capabilities.pieces:
                self._whole = stack.enter_context(self._open_whole())
            opened = stack.enter_context(
                SessionsAhead(self.reference, self.candidate, steps, self.budget, self.comparison.workload)
            )
            for step, sessions in opened:
                self._progress.advance(step.index, len(steps), "pieces")
                self._step(sessions, store)
            self._finish(store)

    def _step(self, run: StepSessions, store: Store) -> None:
        step = run.step
        needed = {*step.reference.inputs, *(self._back.get(n, n) for n in step.candidate.inputs)}
        for unit in step.units:
            needed.update(unit.reference.inputs)
        needed -= {n for unit in step.units for n in unit.reference.outputs}
        graph_inputs = set(self.reference.model.index.inputs)
        for sample, feed in self._samples(bool(needed & graph_inputs) or self._whole is not None):
            values: Arrays = {n: feed[n] if n in feed else store.get("reference", sample, n) for n in needed}
            self._run_reference(run, feed, values)
            if self.candidate.runner.capabilities.pieces:
                self._local(run, sample, values)
            self._cumulative(run, sample, feed, values, store)
            if self._whole is None:
                self._contributions.carry(step, sample, values, functools.partial(run.reference, values))
            for name in (n for unit in step.units for n in unit.reference.outputs):
                if self._last.get(name, -1) > step.index:
                    store.put("reference", sample, name, values[name])
            gone = [n for n in needed if self._last.get(n, -1) <= step.index]
            store.drop("reference", sample, gone)
            store.drop("candidate", sample, gone)

    def _samples(self, with_feed: bool) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        if with_feed:
            yield from enumerate(self.comparison.samples)
        else:
            yield from ((i, {}) for i in range(len(self.comparison.samples)))

    def _last_use(self) -> dict[str, int]:
        """The last step that reads each tensor; outputs are kept to the end."""
        last: dict[str, int] = {}
        back = {other: name for name, other in self.layout.tensors.items()}
        for step in self.layout.steps:
            for name in step.reference.inputs:
                last[name] = step.index
            for name in step.candidate.inputs:
                last[back.get(name, name)] = step.index
            for unit in step.units:
                for name in (*unit.reference.inputs, *(back.get(n, n) for n in unit.candidate.inputs)):
                    last[name] = step.index
        last.update(dict.fromkeys(self.comparison.reference.model.index.outputs, len(self.layout.steps)))
        if not self.reference.runner.capabilities.pieces:
            last.update(dict.fromkeys(self._random, len(self.layout.steps)))
        return last

    # -- reference ----------------------------------------------------------------------------------------------

    def _open_whole(self) -> Session:
        names = [n for unit in self.layout.units for n in unit.reference.outputs]
        return self.reference.runner.session(self.reference.model, fetch=names, workload=self.comparison.workload)

    def _run_reference(self, run: StepSessions, feed: Mapping[str, np.ndarray], values: Arrays) -> None:
        outputs = run.step.reference.outputs
        if self._whole is not None:
            # what earlier pieces gave is taken as it is: computed anew, random values would be drawn anew
            drawn = (
                {n: values[n] for n in run.step.reference.inputs}
                if self.reference.runner.capabilities.feeds_inner_tensors
                else {}
            )
            values.update(self._whole.infer({**feed, **drawn}, outputs))
            return
        session = run.reference(values)
        values.update(session.infer({n: values[n] for n in run.step.reference.inputs}, outputs))

    # -- local error --------------------------------------------------------------------------------------------

    def _local(self, run: StepSessions, sample: int, values: Arrays) -> None:
        units = [u for u in run.step.units if not u.random and (self.examiner or u.number in self.forced)]
        if not units:
            return
        made: dict[int, Arrays] = {}
        for group in self._groups(run, units):
            made.update(self._run_exploded(run, group, values))
        doubtful = []
        for unit in units:
            if unit.number not in made:
                continue
            seen = self.seen[unit.number]
            relative = 0.0
            for name, other in zip(unit.reference.outputs, unit.candidate.outputs, strict=True):
                array = made[unit.number][other]
                now = Statistics(full=False).update(values[name], array, sample=sample)
                seen.local.setdefault(name, Statistics(full=False)).merge(now)
                relative = max(relative, relative_error(now))
                if seen.full is not None and name == _tensor(seen):
                    seen.full.update(values[name], array, sample=sample)
            if unit.number in self.forced:
                self._contribute(run.step, unit, sample, made[unit.number], values)
            if self.examiner is not None and self._worth_judging(seen, relative, sample, values):
                doubtful.append(unit)
        if doubtful:
            self._judge(run, doubtful, sample, values, made)
        if self.examiner is not None:
            for unit in units:
                self.examiner.look_inside(unit, values, made.get(unit.number))

    def _groups(self, run: StepSessions, units: list[LayerPair]) -> list[list[LayerPair]]:
        return [[unit] for unit in units] if run.apart else [units]

    def _run_exploded(self, run: StepSessions, units: list[LayerPair], values: Arrays) -> dict[int, Arrays]:
        units = [unit for unit in units if self.seen[unit.number].failure is None]
        if not units:
            return {}
        feed = self._feed_of(units, values)
        try:
            session = run.exploded(units, feed)
            flat = session.infer(feed)
        except (RunnerError, ModelError) as error:
            if len(units) > 1:  # one layer that cannot run must not hide the others
                run.apart = True
                result: dict[int, Arrays] = {}
                for unit in units:
                    result.update(self._run_exploded(run, [unit], values))
                return result
            self.seen[units[0].number].failure = str(error)
            return {}
        return {u.number: {n: flat[exploded_name(n, u.number)] for n in u.candidate.outputs} for u in units}

    def _feed_of(self, units: list[LayerPair], values: Arrays) -> Arrays:
        specs = self.candidate.model.index.specs
        feed: Arrays = {}
        for name in dict.fromkeys(n for unit in units for n in unit.candidate.inputs):
            feed[name] = cast(values[self._back.get(name, name)], specs.get(name))
        return feed

    def _worth_judging(self, seen: LayerObservation, relative: float, sample: int, values: Arrays) -> bool:
        """Whether a layer has to be held against its expected noise: not where plain rounding explains it."""
        if not math.isfinite(relative):
            return seen.judgement is None or not seen.judgement.beyond
        if seen.judgement is not None and relative <= 2 * seen.judgement.relative:
            return False
        if not relative:
            return False
        plain = self.noise.plain(seen.unit, values)
        if relative > plain:
            return True
        seen.judgement = Judgement(False, relative / plain, None, None, 0.0, None, relative, plain, None, sample)
        return False

    def _judge(
        self, run: StepSessions, units: list[LayerPair], sample: int, values: Arrays, made: Mapping[int, Arrays]
    ) -> None:
        """Holds layers against their expected noise, large tensors by the entry of the batch that is off the most."""
        entries: dict[int | None, list[LayerPair]] = {}
        for unit in units:
            entries.setdefault(self.noise.entry(unit, values, made[unit.number]), []).append(unit)
        for entry, members in entries.items():
            part = values if entry is None else _entry(values, members, entry)
            clear = [u for u in members if self.noise.known(u) and comparable(u, values, made[u.number])]
            expected = self.noise.probe(clear, part)
            for unit in members:
                mine = made[unit.number]
                if entry is not None:
                    mine = {n: a[entry : entry + 1] for n, a in mine.items()}
                if self._guilty(unit, sample, part, mine, expected):
                    self._examine(run.step, unit, sample, values, made[unit.number], part, mine, expected, entry or 0)

    def _guilty(
        self, unit: LayerPair, sample: int, values: Arrays, made: Arrays, expected: dict[int, Expected]
    ) -> bool:
        """Judges one layer on one draw of its noise, and on more of them before what one draw cannot tell makes it
        guilty."""
        found = self._hold(unit, sample, values, made, expected.get(unit.number, Expected()))
        reasons = {judgement.reason for judgement in found.values()}
        few = any(values[n].size < SLICE for n in unit.reference.outputs)
        if reasons & {"slice", "gain"} or ("noise" in reasons and (few or self.noise.repeats(unit))):
            expected[unit.number] = self.noise.settled(unit, values)
            found = self._hold(unit, sample, values, made, expected[unit.number])
        worst = self.seen[unit.number].note(found)
        return worst is not None and worst.beyond and worst.sample == sample

    def _hold(
        self, unit: LayerPair, sample: int, values: Arrays, made: Arrays, expected: Expected
    ) -> dict[str, Judgement]:
        """Judges the outputs of one layer on one sample."""
        return {
            name: self.noise.judge(unit, name, other, values, made, expected, sample)
            for name, other in zip(unit.reference.outputs, unit.candidate.outputs, strict=True)
        }

    def _examine(
        self,
        step: PiecePair,
        unit: LayerPair,
        sample: int,
        values: Arrays,
        made: Arrays,
        part: Arrays,
        part_made: Arrays,
        expected: Mapping[int, Expected],
        entry: int,
    ) -> None:
        seen = self.seen[unit.number]
        if self.examiner is None or seen.judgement is None:
            return
        name = _tensor(seen)
        other = unit.candidate.outputs[unit.reference.outputs.index(name)]
        seen.full = Statistics().update(values[name], made[other], sample=sample)
        mine = expected.get(unit.number, Expected())
        seen.diagnosis = self.examiner.examine(unit, seen.judgement, part, part_made, mine, entry)
        if seen.diagnosis.producer is None:
            self._contribute(step, unit, sample, made, values)

    def _contribute(self, step: PiecePair, unit: LayerPair, sample: int, made: Arrays, values: Arrays) -> None:
        self._contributions.start(step, unit, sample, made, values, whole=self._whole is not None)

    # -- cumulative error ---------------------------------------------------------------------------------------

    def _cumulative(
        self,
        run: StepSessions,
        sample: int,
        feed: Mapping[str, np.ndarray],
        values: Arrays,
        store: Store,
    ) -> None:
        step = run.step
        if not self._free or not step.candidate.outputs:
            return
        specs = self.candidate.model.index.specs
        own: Arrays = {}
        for name in step.candidate.inputs:
            source = self._back.get(name, name)
            if source in feed:
                own[name] = cast(feed[source], specs.get(name))
            elif source in self._random:
                own[name] = values[source] if source in values else store.get("reference", sample, source)
            else:
                own[name] = store.get("candidate", sample, source)
        try:
            made = run.candidate(own).infer(own, step.candidate.outputs)
        except (RunnerError, ModelError) as error:
            self._free = False
            self.notices.append(walk_stopped(self.candidate.name, step.index, error))
            return
        for unit in step.units:
            if unit.random:
                continue
            seen = self.seen[unit.number]
            for name, other in zip(unit.reference.outputs, unit.candidate.outputs, strict=True):
                statistics = seen.cumulative.setdefault(name, Statistics(full=False))
                statistics.update(values[name], made[other], sample=sample)
                if name in self.identical and self.deployed is not None:
                    same = self.deployed.same(self.candidate.name, sample, name, made[other])
                    self.identical[name].append(same)
                if self._last.get(name, -1) > step.index:
                    store.put("candidate", sample, name, made[other])

    # -- the end ------------------------------------------------------------------------------------------------

    def _finish(self, store: Store) -> None:
        index = self.reference.model.index
        outputs = [n for n in index.outputs if n in self.layout.tensors and n in index.producer]
        for name in outputs:
            found = next((s for s in self.seen if name in s.cumulative), None)
            if found is not None:
                self.outputs[name] = found.cumulative[name]
        feed_of = functools.partial(self._feed, store)
        for number, share in self._contributions.finish(store, outputs, feed_of, self._whole).items():
            self.seen[number].contribution = share

    def _feed(self, store: Store, sample: int) -> Arrays:
        """The inputs of a whole model for one sample, and what it drew."""
        drawn = {n: store.get("reference", sample, n) for n in self._random if store.has("reference", sample, n)}
        return {**next(feed for i, feed in enumerate(self.comparison.samples) if i == sample), **drawn}


def _entry(values: Arrays, units: list[LayerPair], entry: int) -> Arrays:
    """One entry of the batch of everything that some layers read and write."""
    names = {n for u in units for n in (*u.reference.inputs, *u.reference.outputs)}
    return {n: values[n][entry : entry + 1] for n in names}


def worse(one: Judgement | None, other: Judgement) -> Judgement:
    """The worse of two judgements; the first of equals."""
    return other if one is None or (other.beyond, other.relative) > (one.beyond, one.relative) else one


def _tensor(seen: LayerObservation) -> str:
    """The output of a layer that is off the most."""
    judged = seen.judgement.tensor if seen.judgement is not None else ""
    return judged or seen.unit.reference.outputs[0]


def comparable(unit: LayerPair, values: Arrays, made: Arrays) -> bool:
    """Whether a probe can tell anything: one float output at least has the reference's shape."""
    return any(
        is_float(values[name].dtype) and values[name].shape == made[other].shape
        for name, other in zip(unit.reference.outputs, unit.candidate.outputs, strict=True)
    )


def relative_error(statistics: Statistics) -> float:
    """Relative L2 error; infinite where something is not finite on one side or an integer differs from zero."""
    metrics = statistics.metrics()
    if statistics.shape_mismatch is not None or statistics.broken:
        return math.inf
    value = metrics["rel_l2"]
    if value is None:
        return math.inf if metrics["max_abs"] else 0.0
    return float(value)
