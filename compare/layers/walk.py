"""Both runtimes walk the graph piece by piece, side by side.

For each piece and sample the reference runs on its own values; the candidate runs on its own (cumulative error) and,
with every layer cut off from the others, on the reference's (local error). Statistics and the tensors live at the next
cut are kept, the rest is dropped. A layer whose local error rounding does not explain is looked into at once, while its
tensors are at hand, and from there on a copy of the reference carries its error, and its alone, to the outputs
(contribution).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.errors import LayerdiffError, ModelError, RunnerError
from ...graph.formats import BY_DTYPE, FP32
from ...graph.probe import Roundings, known, probe, roundings, terms
from ...graph.slices import Slice, backward, explode, exploded_name, slice_model
from ...graph.specs import TensorSpec, is_float
from ...runners.base import Workload
from ..statistics import Statistics
from .judge import Judgement, judge, plain_noise
from .store import Store
from .units import Layout, Step, Unit

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...runners.base import Runner, Session
    from ..context import Context
    from ..parties import Party
    from .diagnose import Diagnosis, Examiner

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

SUSPECTS = 8
"""Most layers whose contribution is measured: each costs one more pass from there to the outputs."""


@dataclass
class Seen:
    """What was seen of one layer.

    Attributes:
        local, cumulative: By output tensor; empty where the layer could not be run that way.
        judgement: The worst over the samples that were judged.
        diagnosis: Why, for a layer beyond its expected noise.
        failure: The candidate's error message, if it could not run the layer on the reference's inputs.
        full: All statistics of the layer's first output, from the sample on that gave it away.
        contribution: Share of the candidate's whole error at the outputs.
    """

    unit: Unit
    piece: int
    local: dict[str, Statistics] = field(default_factory=dict)
    cumulative: dict[str, Statistics] = field(default_factory=dict)
    judgement: Judgement | None = None
    diagnosis: Diagnosis | None = None
    failure: str | None = None
    full: Statistics | None = None
    contribution: float | None = None

    @property
    def beyond(self) -> bool:
        """Whether its local error is more than rounding."""
        return self.failure is not None or (self.judgement is not None and self.judgement.beyond)


@dataclass
class _Stream:
    """A run of the reference with one layer taken from the candidate.

    Attributes:
        sample: The sample it runs on.
        values: Tensors in which it differs from the reference, as far as they are still needed.
    """

    number: int
    sample: int
    values: Arrays


class Walk:
    """One candidate's walk beside the reference.

    Args:
        context: The comparison.
        candidate: Who is judged.
        layout: The pieces and layers.
        rounding: What rounding is expected of a healthy layer.
        examiner: Finds the cause for a layer beyond its expected noise; None: nothing is judged, see ``forced``.
        forced: Numbers of layers whose contribution is measured whatever their local error.
        budget: Bytes for the tensors that are kept between pieces.
    """

    def __init__(
        self,
        context: Context,
        candidate: Party,
        layout: Layout,
        rounding: Roundings,
        examiner: Examiner | None,
        *,
        forced: Collection[int] = (),
        budget: int = 1 << 28,
    ) -> None:
        self.context = context
        self.candidate = candidate
        self.reference = context.reference
        self.layout = layout
        self.rounding = rounding
        self.examiner = examiner
        self.forced = frozenset(forced)
        self.budget = budget
        self.seen = [Seen(unit, step.index) for step in layout.steps for unit in step.units]
        self.seen.sort(key=lambda s: s.unit.number)
        self.outputs: dict[str, Statistics] = {}
        self.inferences = 0
        self.notes: list[str] = []
        self._streams: list[_Stream] = []
        self._free = True
        self._whole: Session | None = None
        self._back = {other: name for name, other in layout.tensors.items()}
        self._judging_runner: Runner | None = None
        self._sums: dict[int, float] = {}

    # -- the walk -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Walks all pieces for all samples; what it finds is in the attributes."""
        last = self._last_use()
        steps = self.layout.steps
        with ExitStack() as stack, Store(self.budget) as store:
            if not self.reference.runner.opens_pieces:
                self._whole = stack.enter_context(self._open_whole())
            for step in steps:
                self.context.progress.advance(step.index, len(steps), "pieces")
                with ExitStack() as sessions:
                    self._step(_Sessions(self, step, sessions), store, last)
            self._finish(store)

    def _step(self, run: _Sessions, store: Store, last: Mapping[str, int]) -> None:
        step = run.step
        needed = {*step.reference.inputs, *(self._back.get(n, n) for n in step.candidate.inputs)}
        for unit in step.units:
            needed.update(unit.reference.inputs)
        needed -= {n for unit in step.units for n in unit.reference.outputs}
        graph_inputs = set(self.reference.model.index.inputs)
        for sample, feed in self._samples(bool(needed & graph_inputs) or self._whole is not None):
            values: Arrays = {n: feed[n] if n in feed else store.get("reference", sample, n) for n in needed}
            self._run_reference(run, feed, values)
            if self.candidate.runner.opens_pieces:
                self._local(run, sample, values)
            self._cumulative(run, sample, feed, values, store, last)
            self._carry(run, sample, values, last)
            for name in (n for unit in step.units for n in unit.reference.outputs):
                if last.get(name, -1) > step.index:
                    store.put("reference", sample, name, values[name])
            gone = [n for n in needed if last.get(n, -1) <= step.index]
            store.drop("reference", sample, gone)
            store.drop("candidate", sample, gone)

    def _samples(self, with_feed: bool) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        if with_feed:
            yield from enumerate(self.context.samples)
        else:
            yield from ((i, {}) for i in range(len(self.context.samples)))

    def _last_use(self) -> dict[str, int]:
        """The last step that reads each tensor; outputs are kept to the end."""
        last: dict[str, int] = {}
        for step in self.layout.steps:
            for name in step.reference.inputs:
                last[name] = step.index
            for name in step.candidate.inputs:
                last[self._back.get(name, name)] = step.index
            for unit in step.units:
                for name in (*unit.reference.inputs, *(self._back.get(n, n) for n in unit.candidate.inputs)):
                    last[name] = step.index
        for name in self.reference.model.index.outputs:
            last[name] = len(self.layout.steps)
        return last

    # -- reference ----------------------------------------------------------------------------------------------

    def _open_whole(self) -> Session:
        names = [n for unit in self.layout.units for n in unit.reference.outputs]
        return self.reference.runner.open(self.reference.model, fetch=names, workload=self.context.workload)

    def _run_reference(self, run: _Sessions, feed: Mapping[str, np.ndarray], values: Arrays) -> None:
        outputs = run.step.reference.outputs
        self.inferences += 1
        if self._whole is not None:
            values.update(self._whole.infer(feed, outputs))
            return
        session = run.reference(values)
        values.update(session.infer({n: values[n] for n in run.step.reference.inputs}, outputs))

    # -- local error --------------------------------------------------------------------------------------------

    def _local(self, run: _Sessions, sample: int, values: Arrays) -> None:
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
                if seen.full is not None and name == unit.reference.outputs[0]:
                    seen.full.update(values[name], array, sample=sample)
            if unit.number in self.forced:
                self._start(run, unit, sample, made[unit.number], values)
            if self.examiner is not None and self._worth_judging(seen, relative, sample, values):
                doubtful.append(unit)
        if doubtful:
            self._judge(run, doubtful, sample, values, made)

    def _groups(self, run: _Sessions, units: list[Unit]) -> list[list[Unit]]:
        return [[unit] for unit in units] if run.apart else [units]

    def _run_exploded(self, run: _Sessions, units: list[Unit], values: Arrays) -> dict[int, Arrays]:
        units = [unit for unit in units if self.seen[unit.number].failure is None]
        if not units:
            return {}
        feed = self._feed_of(units, values)
        self.inferences += 1
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

    def _feed_of(self, units: list[Unit], values: Arrays) -> Arrays:
        specs = self.candidate.model.index.specs
        feed: Arrays = {}
        for name in dict.fromkeys(n for unit in units for n in unit.candidate.inputs):
            feed[name] = _cast(values[self._back.get(name, name)], specs.get(name))
        return feed

    def _worth_judging(self, seen: Seen, relative: float, sample: int, values: Arrays) -> bool:
        """Whether a layer has to be held against its expected noise: not where plain rounding explains it."""
        if not math.isfinite(relative):
            return seen.judgement is None or not seen.judgement.beyond
        if seen.judgement is not None and relative <= 2 * seen.judgement.relative:
            return False
        plain = plain_noise(self.rounding_of(seen.unit), self._terms(seen.unit, values))
        if relative > plain:
            return True
        seen.judgement = Judgement(False, relative / plain, None, None, 0.0, None, relative, plain, None, sample)
        return False

    def _terms(self, unit: Unit, values: Arrays) -> float:
        """The longest sum in a layer."""
        index = self.reference.model.index

        def shape(name: str) -> tuple[int, ...] | None:
            if name in values:
                return values[name].shape
            weight = index.initializers.get(name)
            return tuple(weight.dims) if weight is not None else None

        if unit.number not in self._sums:
            self._sums[unit.number] = max(terms(index.nodes[p], shape) for p in unit.reference.nodes)
        return self._sums[unit.number]

    def _judge(
        self, run: _Sessions, units: list[Unit], sample: int, values: Arrays, made: Mapping[int, Arrays]
    ) -> None:
        index = self.reference.model.index
        noise = self.probe(
            [u for u in units if known(index, u.reference) and comparable(u, values, made[u.number])], values
        )
        for unit in units:
            seen = self.seen[unit.number]
            worst = seen.judgement
            for name, other in zip(unit.reference.outputs, unit.candidate.outputs, strict=True):
                verdict = judge(
                    values[name],
                    made[unit.number][other],
                    noise.get(unit.number, {}).get(name),
                    self.rounding_of(unit),
                    sample=sample,
                    known=known(index, unit.reference),
                    result_step=self._step_of(values[name]),
                )
                if worst is None or (verdict.beyond, verdict.relative) > (worst.beyond, worst.relative):
                    worst = verdict
            assert worst is not None
            seen.judgement = worst
            if worst.beyond and worst.sample == sample and self.examiner is not None:
                first, other = unit.reference.outputs[0], unit.candidate.outputs[0]
                seen.full = Statistics().update(values[first], made[unit.number][other], sample=sample)
                seen.diagnosis = self.examiner.examine(
                    unit, worst, values, made[unit.number], noise.get(unit.number, {})
                )
                if seen.diagnosis.producer is None:
                    self._start(run, unit, sample, made[unit.number], values)

    def _step_of(self, values: np.ndarray) -> float:
        if not self.rounding.steps or not is_float(values.dtype) or not values.size:
            return 0.0
        return step_deviation(values)

    def rounding_of(self, unit: Unit) -> Roundings:
        """What rounding is expected of one layer: more where the candidate's graph itself holds narrow types there."""
        if self.rounding.operand or self.rounding.steps:
            return self.rounding
        specs = self.candidate.model.index.specs
        for name in (*unit.candidate.inputs, *unit.candidate.outputs):
            spec = specs.get(name)
            fmt = BY_DTYPE.get(spec.dtype.name) if spec is not None else None
            if fmt is not None and fmt.u > FP32.u:
                return roundings(self.reference.runner.arithmetic, fmt)
        return self.rounding

    def probe(self, units: list[Unit], values: Arrays) -> dict[int, Arrays]:
        """The expected noise of layers, as enlarged by the gain of their roundings: by layer and output tensor."""
        kinds: list[tuple[Roundings, list[Unit]]] = []
        for unit in units:
            rounding = self.rounding_of(unit)
            for known_rounding, members in kinds:
                if known_rounding == rounding:
                    members.append(unit)
                    break
            else:
                kinds.append((rounding, [unit]))
        result: dict[int, Arrays] = {}
        for rounding, members in kinds:
            result.update(self._probe(members, values, self._with_steps(rounding, members, values)))
        return result

    def _probe(self, units: list[Unit], values: Arrays, rounding: Roundings) -> dict[int, Arrays]:
        parts = [(u.number, u.reference) for u in units]
        feed = {n: values[n] for u in units for n in u.reference.inputs}
        self.inferences += 1
        try:
            model = probe(self.reference.model, parts, specs_of(feed, fixed=True), rounding)
            with self.judging_runner.open(model) as session:
                flat = session.infer(feed)
        except LayerdiffError as error:
            if len(units) > 1:
                result: dict[int, Arrays] = {}
                for unit in units:
                    result.update(self._probe([unit], values, rounding))
                return result
            log.debug("no expected noise for %s: %s", units[0].reference.outputs, error)
            return {}
        return {
            u.number: {
                n: np.subtract(flat[exploded_name(n, u.number)], values[n])
                for n in u.reference.outputs
                if is_float(values[n].dtype) and flat[exploded_name(n, u.number)].shape == values[n].shape
            }
            for u in units
        }

    def _with_steps(self, rounding: Roundings, units: list[Unit], values: Arrays) -> Roundings:
        if not rounding.steps:
            return rounding
        index = self.reference.model.index
        steps = dict(rounding.steps)
        for unit in units:
            for name in unit.reference.inputs:
                if is_float(values[name].dtype) and values[name].size:
                    steps[name] = step_deviation(values[name])
            for name in (n for p in unit.reference.nodes for n in index.reads[p] if n in index.initializers):
                weight = index.weight(name)
                if weight is not None and is_float(weight.dtype) and weight.ndim > 1:
                    steps[name] = step_deviation(weight)
        return replace(rounding, steps=steps)

    @property
    def judging_runner(self) -> Runner:
        """Runs probes: the reference's runner where it opens pieces, else ONNX Runtime."""
        if self._judging_runner is None:
            if self.reference.runner.opens_pieces:
                self._judging_runner = self.reference.runner
            else:
                from ...runners.onnxrt import OnnxrtRunner

                self._judging_runner = OnnxrtRunner()
        return self._judging_runner

    # -- cumulative error ---------------------------------------------------------------------------------------

    def _cumulative(
        self,
        run: _Sessions,
        sample: int,
        feed: Mapping[str, np.ndarray],
        values: Arrays,
        store: Store,
        last: Mapping[str, int],
    ) -> None:
        step = run.step
        if not self._free or not step.candidate.outputs:
            return
        specs = self.candidate.model.index.specs
        own: Arrays = {}
        random = {n for unit in self.layout.units if unit.random for n in unit.reference.outputs}
        for name in step.candidate.inputs:
            source = self._back.get(name, name)
            if source in feed:
                own[name] = _cast(feed[source], specs.get(name))
            elif source in random:
                own[name] = values[source] if source in values else store.get("reference", sample, source)
            else:
                own[name] = store.get("candidate", sample, source)
        self.inferences += 1
        try:
            made = run.candidate(own).infer(own, step.candidate.outputs)
        except (RunnerError, ModelError) as error:
            self._free = False
            self.notes.append(f"{self.candidate.name} stopped at piece {step.index} on its own values: {error}")
            return
        for unit in step.units:
            if unit.random:
                continue
            seen = self.seen[unit.number]
            for name, other in zip(unit.reference.outputs, unit.candidate.outputs, strict=True):
                statistics = seen.cumulative.setdefault(name, Statistics(full=False))
                statistics.update(values[name], made[other], sample=sample)
                if last.get(name, -1) > step.index:
                    store.put("candidate", sample, name, made[other])

    # -- contribution -------------------------------------------------------------------------------------------

    def _start(self, run: _Sessions, unit: Unit, sample: int, made: Arrays, values: Arrays) -> None:
        """Begins a stream in which this layer's output is the candidate's, and takes it to the end of the piece."""
        if len(self._streams) >= SUSPECTS or any(s.number == unit.number for s in self._streams):
            return
        taken = {
            name: _cast(made[other], TensorSpec(name, values[name].dtype, None))
            for name, other in zip(unit.reference.outputs, unit.candidate.outputs, strict=True)
            if made[other].shape == values[name].shape
        }
        stream = _Stream(unit.number, sample, dict(taken))
        self._streams.append(stream)
        if self._whole is not None:
            return
        index = self.reference.model.index
        step = run.step
        after = _downstream(taken, step)
        if not after:
            return
        available = {*step.reference.inputs, *(n for u in step.units for n in u.reference.outputs)}
        given = (available - set(after)) | set(taken)
        part = backward(index, after, given)
        source = {**values, **taken}
        if any(n not in source for n in part.inputs):
            return
        feed = {n: source[n] for n in part.inputs}
        self.inferences += 1
        try:
            with self.reference.runner.open(slice_model(self.reference.model, part, specs_of(feed))) as session:
                stream.values.update(session.infer(feed, after))
        except LayerdiffError as error:
            log.debug("no contribution for layer %d: %s", unit.number, error)

    def _carry(self, run: _Sessions, sample: int, values: Arrays, last: Mapping[str, int]) -> None:
        """Takes the streams of earlier pieces through this one."""
        step = run.step
        if self._whole is not None:
            return
        mine = {u.number for u in step.units}
        wanted = [n for n in step.reference.outputs if last.get(n, -1) > step.index]
        for stream in self._streams:
            if stream.sample != sample:
                continue
            moved = stream.number not in mine and any(n in stream.values for n in step.reference.inputs)
            if moved and wanted:
                self._advance(run, stream, values, wanted)
            for name in [n for n in stream.values if last.get(n, -1) <= step.index]:
                del stream.values[name]

    def _advance(self, run: _Sessions, stream: _Stream, values: Arrays, wanted: list[str]) -> None:
        step = run.step
        source = {**values, **stream.values}
        self.inferences += 1
        try:
            made = run.reference(values).infer({n: source[n] for n in step.reference.inputs}, wanted)
        except LayerdiffError as error:
            log.debug("contribution of layer %d stops: %s", stream.number, error)
            return
        for name, array in made.items():
            if array.shape != values[name].shape or not np.array_equal(array, values[name]):
                stream.values[name] = array

    def _finish(self, store: Store) -> None:
        index = self.reference.model.index
        outputs = [n for n in index.outputs if n in self.layout.tensors and n in index.producer]
        for name in outputs:
            number = next((s for s in self.seen if name in s.cumulative), None)
            if number is not None:
                self.outputs[name] = number.cumulative[name]
        for stream in self._streams:
            if self._whole is not None and not self._feed_whole(stream):
                continue
            alone, whole = 0.0, 0.0
            for name in outputs:
                if not store.has("reference", stream.sample, name) or not store.has("candidate", stream.sample, name):
                    continue
                expected = store.get("reference", stream.sample, name)
                if not is_float(expected.dtype):
                    continue
                alone += _squared(expected, stream.values.get(name, expected))
                whole += _squared(expected, store.get("candidate", stream.sample, name))
            if whole > 0:
                share = math.sqrt(alone / whole) if math.isfinite(whole) else float(not math.isfinite(alone))
                self.seen[stream.number].contribution = share if math.isfinite(share) else None

    def _feed_whole(self, stream: _Stream) -> bool:
        """Contribution through a reference that takes inner tensors as inputs."""
        if self._whole is None or not self.reference.runner.feeds_any:
            return False
        names = [n for n in self.reference.model.index.outputs if n in self.layout.tensors]
        for sample, feed in enumerate(self.context.samples):
            if sample == stream.sample:
                self.inferences += 1
                try:
                    stream.values.update(self._whole.infer({**feed, **stream.values}, names))
                except LayerdiffError as error:
                    log.debug("no contribution for layer %d: %s", stream.number, error)
                    return False
                return True
        return False


class _Sessions:
    """The sessions of one step, opened when the first sample shows the types of their inputs."""

    def __init__(self, walk: Walk, step: Step, stack: ExitStack) -> None:
        self.walk = walk
        self.step = step
        self.stack = stack
        self.apart = False
        self._reference: Session | None = None
        self._candidate: Session | None = None
        self._exploded: dict[tuple[int, ...], Session] = {}

    def reference(self, values: Arrays) -> Session:
        if self._reference is None:
            party = self.walk.reference
            self._reference = self._open(party, self.step.reference, {n: values[n] for n in self.step.reference.inputs})
        return self._reference

    def candidate(self, own: Arrays) -> Session:
        if self._candidate is None:
            self._candidate = self._open(self.walk.candidate, self.step.candidate, own)
        return self._candidate

    def exploded(self, units: list[Unit], feed: Arrays) -> Session:
        key = tuple(u.number for u in units)
        if key not in self._exploded:
            party = self.walk.candidate
            parts = [(u.number, u.candidate) for u in units]
            model = explode(party.model, parts, specs_of(feed))
            self._exploded[key] = self.stack.enter_context(party.runner.open(model, workload=_workload(feed)))
        return self._exploded[key]

    def _open(self, party: Party, part: Slice, feed: Arrays) -> Session:
        model: Model = slice_model(party.model, part, specs_of(feed))
        return self.stack.enter_context(party.runner.open(model, workload=_workload(feed)))


def _workload(feed: Arrays) -> Workload:
    return Workload(samples=lambda: iter([feed]))


def _downstream(taken: Collection[str], step: Step) -> list[str]:
    """The observed tensors of a step that depend on the tensors that were taken."""
    reached = set(taken)
    result: list[str] = []
    for unit in step.units:
        if any(n in reached for n in unit.reference.inputs):
            reached.update(unit.reference.outputs)
            result.extend(n for n in unit.reference.outputs if n not in taken)
    return result


def specs_of(feed: Mapping[str, np.ndarray], fixed: bool = False) -> dict[str, TensorSpec]:
    """Types of arrays; their shapes are left open unless ``fixed``."""
    return {n: TensorSpec(n, a.dtype, a.shape if fixed else (None,) * a.ndim) for n, a in feed.items()}


def comparable(unit: Unit, values: Arrays, made: Arrays) -> bool:
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


def step_deviation(values: np.ndarray) -> float:
    """Standard deviation of rounding to 255 symmetric steps over the range of some values: step / sqrt(12)."""
    finite = values[np.isfinite(values)] if values.size else values
    return float(np.abs(finite).max(initial=0.0)) / 127 / math.sqrt(12)


def _cast(array: np.ndarray, spec: TensorSpec | None) -> np.ndarray:
    if spec is None or spec.dtype == array.dtype or not (is_float(spec.dtype) and is_float(array.dtype)):
        return array
    with np.errstate(all="ignore"):
        return array.astype(spec.dtype)


def _squared(reference: np.ndarray, other: np.ndarray) -> float:
    """Squared error relative to the reference's power."""
    if reference.shape != other.shape:
        return math.inf
    y = reference.astype(np.float64).reshape(-1)
    with np.errstate(all="ignore"):
        e = other.astype(np.float64).reshape(-1) - y
        value = float(e @ e) / max(float(y @ y), 1e-300)
    return value if not math.isnan(value) else math.inf
