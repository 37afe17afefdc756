"""The comparator: runs the same samples on every runner and judges the candidates against the reference.

Two ways through the same code. `Comparator.compare` streams: a sample's outputs are judged and dropped, statistics
stay. `Comparator.run` keeps the outputs, for whoever wants to look at them, and `Comparator.compare_accuracy` judges
them afterwards.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import onnx

from ..graph.cutting.dataflow import random_nodes
from ..graph.errors import DataError, LayerdiffError, RunnerError, UsageError
from ..graph.load import described, is_engine, load, load_engine
from ..graph.model import Model
from ..runners.contract.latency import measure
from ..runners.contract.session import Session, SessionInfo
from ..runners.contract.workload import ShapeRange, Workload
from .comparison import Comparison, Rules
from .layers.fidelity import Deployed, Repeat, chance, repeat
from .outputs.decide import decide
from .outputs.emulated_sums import DECIDED_BY, emulate_sums, told
from .outputs.formats_in_play import formats_in_play
from .outputs.judge import Fetch, Judge
from .outputs.metric import Criterion, Meter, criterion
from .progress import SILENT, Progress
from .report.model import DataInfo, ModelInfo, Report, RunnerResult
from .runs.kept_outputs import MEMORY_LIMIT, RunResults
from .runs.piecewise import PiecedSession, in_pieces
from .sides import Side, Sides, choose_sides
from .statistics import device as ondevice

if TYPE_CHECKING:
    from ..dataloaders.base import Sample, Samples, Source
    from ..runners.contract.runner import Runner
    from ..runners.contract.workload import Feed
    from .outputs.metric import Function
    from .report.model import AccuracyResult, OutputResult


ModelSource: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | Model"
Data: TypeAlias = "Source | Iterable[Mapping[str, np.ndarray]]"
Shapes: TypeAlias = "Mapping[str, ShapeRange]"
Labels: TypeAlias = "np.ndarray | Sequence[Any] | str | os.PathLike[str]"
Take: TypeAlias = Callable[[Side, int, "dict[str, Any]", Fetch], None]

log = logging.getLogger("layerdiff")


@dataclass
class Run:
    """Who ran, on what, and how it went: what `Comparator.run` finds beside the outputs.

    Attributes:
        sides: The reference and the candidates that were left when those that failed to open had gone.
        asked: Everybody that was asked for.
        sessions: What each session turned out to be, by name.
        seconds: Time of opening and of all inferences, by name.
        errors: Why a runner failed, by name.
        samples_run: Samples that each runner finished, by name.
        latency: What timing each runner found, by name.
        repeats: What a second run on the same inputs gave, by name.
        memory: Bytes that sessions on whole models may take, and pieces where they do not fit; None: from the machine.
        calibration: What INT8 and FP8 were calibrated on, if not on the samples.
    """

    sides: Sides
    asked: Sides
    samples: Samples
    workload: Workload
    sessions: dict[str, SessionInfo] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    samples_run: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    latency: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    repeats: dict[str, Repeat] = field(default_factory=dict)
    memory: int | None = None
    calibration: Samples | None = None

    def open(self, side: Side, fetch: Sequence[str] = (), progress: Callable[[str], None] | None = None) -> Session:
        """A session on a side's whole model, in pieces where the weights of all sides do not fit in memory."""
        if self.in_pieces(side):
            return PiecedSession(side, self.workload, self.memory)
        return side.runner.open(side.model, fetch=fetch, workload=self.workload, progress=progress)

    def in_pieces(self, side: Side) -> bool:
        """Whether a side's model is run in pieces, since not all weights fit in memory."""
        able = side.runner.opens_pieces and side.model.tf is None and not side.runner.loads(side.model)
        return self._in_pieces and able

    @functools.cached_property
    def _in_pieces(self) -> bool:
        return in_pieces(_parties(self.asked), self.memory)

    def results(self) -> tuple[RunnerResult, ...]:
        """One result for each runner that was asked for, the reference first."""
        reference = self.sides.reference
        others = [p for p in (self.asked.reference, *self.asked.candidates) if p.name != reference.name]
        return tuple(self._result(side) for side in (reference, *others))

    def _result(self, side: Side) -> RunnerResult:
        info = self.sessions.get(side.name, SessionInfo())
        seconds = self.seconds.get(side.name, [])
        return RunnerResult(
            name=side.name,
            options=info.options,
            versions=info.versions,
            open_seconds=seconds[0] if seconds else None,
            infer_seconds=seconds[1] if len(seconds) > 1 else None,
            notes=tuple(info.notes),
            error=self.errors.get(side.name),
            latency=self.latency.get(side.name),
            repeat=self.repeats[side.name].json() if side.name in self.repeats else None,
        )


class Comparator:
    """Compares runners on a model, or two models on runners."""

    def __init__(
        self,
        model: ModelSource | None = None,
        runners: Sequence[Runner] = (),
        *,
        candidate_model: ModelSource | None = None,
        data_loader: Data | None = None,
        calibration_data: Data | None = None,
        shapes: Shapes | Sequence[Shapes] | None = None,
        reference: str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        tolerances: Mapping[str, tuple[float, float]] | None = None,
        nan_equal: bool = False,
        layers: Literal["guilty", "all"] | None = None,
        memory: int | None = None,
        latency: int = 0,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        labels: Labels | None = None,
        metric: str | Function | None = None,
        metric_output: str | None = None,
        metric_drop: float | None = None,
        progress: Progress = SILENT,
    ) -> None:
        """Takes the rules of the comparison; nothing is loaded yet.

        Args:
            model: What every runner opens that has no model of its own: a path, an ``onnx.ModelProto`` or a `Model`.
            runners: At least two, or one and a ``candidate_model``.
            candidate_model: A second model. The first is then the reference's alone.
            data_loader: Where inputs come from: a `DataLoader`, `open_data`, or any iterable of dicts of arrays.
                Random within the ranges that the graph implies, if not given.
            calibration_data: Inputs that INT8 and FP8 are calibrated on, in the forms of ``data_loader``; those that
                are compared, if not given.
            shapes: Shape ranges of inputs, for runtimes that build for a range; several sets of them for several
                optimization profiles.
            reference: Name of the runner to believe, instead of the most trusted.
            rtol, atol: ``|candidate - reference| <= atol + rtol * |reference|``; both or neither; automatic
                if not given.
            tolerances: ``(rtol, atol)`` of single outputs, by name.
            nan_equal: Whether NaN equals NaN.
            layers: Whether to localize after the outputs were compared.
            memory: Bytes for one piece when localizing.
            latency: Runs to time on each runner after the comparison, with the last sample.
            inputs, outputs: Tensors that are inputs and outputs of a TensorFlow frozen graph.
            labels: The right answers, one for each row of all batches together: an array, or a ``.npy`` or ``.npz``.
            metric: What to measure on them: ``top1``, ``top5``, ``package.module:function`` or a function
                ``(outputs, labels) -> float``, higher is better. It decides outputs that would be undecided.
            metric_output: The output to measure; not needed where only one is float.
            metric_drop: How far a candidate's metric may lie under the reference's; 0.01 if not given.
            progress: Told what is going on.

        Raises:
            UsageError: rtol without atol, or the reverse; a tolerance that is negative or not finite; a metric that
                does not exist or lacks its labels.
        """
        self._criterion = criterion(metric, labels, metric_output, metric_drop)
        self.rules = Rules(rtol, atol, dict(tolerances or {}), nan_equal, memory, layers)
        self._model = model
        self._candidate_model = candidate_model
        self._runners = tuple(runners)
        self._data = data_loader
        self._calibration = calibration_data
        sets = [shapes] if isinstance(shapes, Mapping) else list(shapes or ())
        self._shape_sets: tuple[Shapes, ...] = tuple(dict(one) for one in sets) or ({},)
        self._reference = reference
        self._latency = latency
        self._names = (tuple(inputs), tuple(outputs))
        self._progress = progress
        self._warnings: list[str] = []
        self._calibrating: Samples | None = None
        self.samples: Samples | None = None
        """What was run, once it was: every pass over it gives the same bytes."""

    def compare(self) -> Report:
        """Runs every sample on every runner, keeps statistics alone, and localizes if that was asked for.

        Raises:
            UsageError: The call, the model or the data are wrong. A runner that fails is in the report.
        """
        sides, samples, workload = self._prepare()
        judge: Judge | None = None
        meter: Meter | None = None
        deployed = None if self.rules.layers is None else Deployed()

        def begin(run: Run) -> None:
            nonlocal judge, meter
            judge = _judge(run, self.rules)
            meter = None if self._criterion is None else Meter(self._criterion, run.sides)

        def take(side: Side, sample: int, outputs: dict[str, Any], fetch: Fetch) -> None:
            assert judge is not None
            judge.take(side.name, sample, outputs, fetch)
            if meter is not None:
                meter.take(side.name, sample, outputs)
            if deployed is not None:
                if side is not run.sides.reference:
                    deployed.take(side.name, sample, outputs)
                if sample == 0 and not run.in_pieces(side) and _may_vary(side):
                    run.repeats[side.name] = repeat(outputs, fetch(list(outputs)))

        run = Run(sides, sides, samples, workload, memory=self.rules.memory, calibration=self._calibrating)
        _execute(run, begin, take, self._progress, self._latency, on_device=deployed is None)
        run.warnings[:0] = self._warnings
        report = _report(run, judge, meter, self._progress)
        if self.rules.layers is None or judge is None:
            return report
        report = replace(report, warnings=(*report.warnings, *chance(report)))
        from .layers import localize

        alive = tuple(p for p in run.sides.candidates if p.name not in run.errors)
        if run.sides.reference.name in run.errors or not alive:
            return report
        comparison = Comparison(
            reference=run.sides.reference,
            candidates=alive,
            samples=samples,
            workload=workload,
            formats=judge.formats,
            rules=self.rules,
            progress=self._progress,
            deployed=deployed,
        )
        return localize(comparison, report)

    @staticmethod
    def run(
        runners: Sequence[Runner],
        data_loader: Data | None = None,
        *,
        model: ModelSource | None = None,
        memory: int = MEMORY_LIMIT,
        reference: str | None = None,
        progress: Progress = SILENT,
    ) -> RunResults:
        """Runs every sample on every runner and keeps the outputs.

        Args:
            runners: At least two; those without a model of their own open ``model``.
            data_loader: See `Comparator`.
            model: See `Comparator`.
            memory: Bytes of outputs to hold in memory; what exceeds them is spilled to a temporary file.
            reference: Name of the runner to believe, instead of the most trusted.
            progress: Told what is going on.

        Returns:
            Outputs by runner and sample, for `compare_accuracy`.

        Raises:
            UsageError: The call, the models or the data are wrong.
        """
        comparator = Comparator(model, runners, data_loader=data_loader, reference=reference, progress=progress)
        sides, samples, workload = comparator._prepare()
        results = RunResults(Run(sides, sides, samples, workload))
        results.store.limit = memory

        def take(side: Side, sample: int, outputs: dict[str, np.ndarray], fetch: Fetch) -> None:
            results.add(side.name, outputs)

        _execute(results.run, lambda run: None, take, progress)
        results.run.warnings[:0] = comparator._warnings
        return results

    @staticmethod
    def compare_accuracy(
        run_results: RunResults,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        tolerances: Mapping[str, tuple[float, float]] | None = None,
        nan_equal: bool = False,
        labels: Labels | None = None,
        metric: str | Function | None = None,
        metric_output: str | None = None,
        metric_drop: float | None = None,
    ) -> Report:
        """Judges outputs that `run` kept. The report is true if every candidate agrees with the reference.

        Args:
            run_results: What `run` returned.
            rtol, atol, tolerances, nan_equal: See `Comparator`.
            labels, metric, metric_output, metric_drop: See `Comparator`.

        Raises:
            UsageError: The tolerances, the metric or the labels are wrong.
        """
        measured = criterion(metric, labels, metric_output, metric_drop)
        rules = Rules(rtol, atol, dict(tolerances or {}), nan_equal)
        run = run_results.run
        _check_labels(measured, run.samples)
        judge = _judge(run, rules)
        meter = None if measured is None else Meter(measured, run.sides)
        with _Again(run) as again:
            for sample in range(max(run.samples_run.values(), default=0)):
                for side in _parties(run.sides):
                    outputs = run_results.outputs(side.name, sample)
                    if outputs is not None:
                        judge.take(side.name, sample, outputs, functools.partial(again.fetch, sample))
                        if meter is not None:
                            meter.take(side.name, sample, outputs)
        return _report(run, judge, meter)

    # -- preparing ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Sides, Samples, Workload]:
        """Loads the models, chooses the reference and binds the samples."""
        self._warnings.clear()
        if not self._runners:
            choose_sides((), ())  # refuses, before anything is loaded
        if len(self._runners) == 1 and self._candidate_model is None:
            choose_sides(self._runners, [None])  # type: ignore[list-item]
        model, second = self._paired()
        models = self._load_models(model)
        candidate_model = None
        if second is not None:
            candidate_model = self._load(second)
        sides = choose_sides(self._runners, models, candidate_model, self._reference)
        self._check_engines(sides)
        reference = sides.reference.model
        for model in {id(side.model): side.model for side in sides.candidates}.values():
            ignored = check_inputs(reference, model)
            if ignored:
                self._warnings.append(f"{model.source} does not take {', '.join(map(repr, ignored))}.")
        self._check_names(sides)
        samples = self.samples = _bind(self._data, sides, self._shape_sets)
        _check_labels(self._criterion, samples)
        workload = Workload(
            samples=lambda: map(read_only, samples),
            shapes=self._shape_sets[0],
            profiles=self._shape_sets if self._shape_sets[1:] else (),
        )
        if self._calibration is not None:
            _check_calibrated(sides)
            other = self._calibrating = _bind(self._calibration, sides, self._shape_sets)
            workload = replace(workload, calibration=lambda: map(read_only, other))
        return sides, samples, workload

    def _load(self, source: ModelSource) -> Model:
        name = (
            source.source
            if isinstance(source, Model)
            else str(source)
            if isinstance(source, (str, os.PathLike))
            else "the model"
        )
        self._progress.stage(f"loading {name}")
        inputs, outputs = self._names
        model = load(source, inputs=inputs, outputs=outputs)
        if model.opaque and not model.outputs:
            reader = next((r for r in self._runners if r.reads_engines), None)
            if reader is None:
                assert model.engine is not None
                raise UsageError(f"{model.label}: {model.engine.origin[1]}, and no runner here reads engines (--trt).")
            model = described(model, *reader.describe(model))
        return model

    def _paired(self) -> tuple[ModelSource | None, ModelSource | None]:
        """The two models. An engine beside the model it was built from is one model, if a runner needs the latter."""
        first, second = self._model, self._candidate_model
        if is_engine(first) == is_engine(second) or first is None or second is None:
            return first, second
        if all(runner.reads_engines for runner in self._runners):
            return first, second
        engine, origin = (first, second) if is_engine(first) else (second, first)
        self._progress.stage(f"loading {engine}")
        inputs, outputs = self._names
        assert isinstance(engine, (str, os.PathLike))
        return load_engine(engine, origin, inputs=inputs, outputs=outputs), None

    def _check_engines(self, sides: Sides) -> None:
        """Whether everybody can run what he is given, where that is an engine."""
        for side in _parties(sides):
            engine = side.model.engine
            if engine is None or not side.model.opaque:
                continue
            if side.runner.reads_engines and self.rules.layers is None:
                continue
            who = "--layers needs" if side.runner.reads_engines else f"{side.name} runs"
            raise UsageError(
                f"{who} the ONNX file behind {engine}, but {engine.origin[1]}.\n"
                f"Name both: compare {engine} MODEL.onnx {' '.join('--' + r.flag for r in self._runners)}."
            )
        reference = sides.reference
        unread = reference.model.engine is not None and not reference.runner.reads_engines
        if unread and all(p.model is not reference.model for p in sides.candidates):
            text = f"{reference.model.label} itself was not run: the reference is {reference.name}"
            self._warnings.append(f"{text} on {reference.model.source}. --trt alone compares two engines.")

    def _load_models(self, model: ModelSource | None) -> list[Model]:
        loaded: dict[str, Model] = {}
        given: Model | None = None
        models = []
        for runner in self._runners:
            if runner.model is not None:
                path = os.path.abspath(runner.model)
                if path not in loaded:
                    loaded[path] = self._load(runner.model)
                models.append(loaded[path])
                continue
            if model is None:
                raise UsageError(f"{runner.name} has no model: give one to it or to the comparator.")
            if given is None:
                path = os.path.abspath(model) if isinstance(model, (str, os.PathLike)) else ""
                given = loaded.get(path) or self._load(model)
                loaded[path] = given
            models.append(given)
        return models

    def _check_names(self, sides: Sides) -> None:
        known = {spec.name for p in (sides.reference, *sides.candidates) for spec in p.model.outputs}
        for name in self.rules.tolerances:
            if name not in known:
                raise UsageError(f"--tolerance {name}: no such output; there are: {', '.join(sorted(known))}.")
        if self._criterion is not None:
            self._criterion.bind(sides.reference.model.outputs)
        inputs = {spec.name for spec in sides.reference.model.inputs}
        for name in {name: None for shapes in self._shape_sets for name in shapes}:
            if name not in inputs:
                raise UsageError(f"--shape {name}: no such input; there are: {', '.join(sorted(inputs))}.")


def check_inputs(reference: Model, candidate: Model) -> list[str]:
    """Makes sure that samples for the reference's model fit the candidate's.

    Returns:
        Inputs of the reference's model that the candidate's does not take.

    Raises:
        UsageError: It wants an input that the reference's model does not have, or of another dtype or shape.
    """
    known = {spec.name: spec for spec in reference.inputs}
    for spec in candidate.inputs:
        if spec.name not in known:
            raise UsageError(
                f"{candidate.source}: input {spec.name!r} is not an input of {reference.source}, "
                f"which has: {', '.join(known) or 'none'}."
            )
        other = known[spec.name]
        clash = spec.dtype != other.dtype
        if spec.shape is not None and other.shape is not None:
            clash |= len(spec.shape) != len(other.shape)
            clash |= any(
                isinstance(a, int) and isinstance(b, int) and a != b
                for a, b in zip(spec.shape, other.shape, strict=False)
            )
        if clash:
            raise UsageError(f"{candidate.source} takes {spec}, but {reference.source} takes {other}.")
    return [name for name in known if name not in {spec.name for spec in candidate.inputs}]


def read_only(sample: Sample) -> dict[str, np.ndarray]:
    """A sample that no runner can change for the next one."""
    result = {}
    for name, value in sample.items():
        array = np.asarray(value)
        if array.flags.writeable:
            array = array.view()
            array.flags.writeable = False
        result[name] = array
    return result


def _bind(data: Data | None, sides: Sides, shape_sets: Sequence[Shapes]) -> Samples:
    from ..dataloaders import DataLoader, as_source
    from ..dataloaders.base import Source

    model = sides.reference.model
    if data is None:
        usual = DataLoader()
        first, *more = [{name: shape.opt for name, shape in shapes.items()} for shapes in shape_sets]
        data = replace(usual, shapes=first, more_shapes=tuple(more), samples=max(usual.samples, 1 + len(more)))
    if isinstance(data, DataLoader):
        built = {} if data.more_shapes else _built_for(sides)
        data = replace(data, shapes={**built, **_fixed_by_candidates(sides), **data.shapes})
    source = data if isinstance(data, Source) else as_source(data)
    samples = source.bind(model)
    if not len(samples):
        raise DataError("the data hold no sample: nothing can be compared.")
    return samples


def _built_for(sides: Sides) -> dict[str, tuple[int, ...]]:
    """The shapes that the first engine among the sides was made fastest for."""
    for side in _parties(sides):
        for shapes in side.runner.built_for(side.model)[:1]:
            return {name: shape.opt for name, shape in shapes.items()}
    return {}


def _check_labels(measured: Criterion | None, samples: Samples) -> None:
    """Refuses labels of random data, which have none."""
    if measured is not None and measured.labels is not None and not samples.representative:
        raise UsageError(f"labels belong to real inputs, not to {samples.description}: name those with --data.")


def _check_calibrated(sides: Sides) -> None:
    """Refuses calibration data where nobody would read them."""
    if not any(p.runner.arithmetic.is_integer or p.runner.arithmetic.name == "e4m3" for p in _parties(sides)):
        raise UsageError("calibration data are for INT8 and FP8, and no runner computes in either.")


def _fixed_by_candidates(sides: Sides) -> dict[str, tuple[int | None, ...]]:
    """Dimensions that the reference's model leaves open and a candidate's does not."""
    found: dict[str, list[int | None]] = {}
    open_in_reference = {
        spec.name: [not isinstance(d, int) for d in spec.shape]
        for spec in sides.reference.model.inputs
        if spec.shape is not None
    }
    for side in sides.candidates:
        if side.model is sides.reference.model:
            continue
        for spec in side.model.inputs:
            for axis, dim in enumerate(spec.shape or ()):
                if isinstance(dim, int) and open_in_reference.get(spec.name, [])[axis : axis + 1] == [True]:
                    found.setdefault(spec.name, [None] * len(spec.shape or ()))[axis] = dim
    return {name: tuple(dims) for name, dims in found.items()}


# -- running ----------------------------------------------------------------------------------------------------------


def _may_vary(side: Side) -> bool:
    """Whether the same inputs may give other bits the next time."""
    return not side.runner.repeatable or bool(random_nodes(side.model.index))


def _execute(
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
        remaining = sides.without([p for p in _parties(sides) if p.name in run.errors])
        if remaining is None:
            return
        if remaining.reference is not sides.reference:
            run.warnings.append(f"{sides.reference.name} failed; {remaining.reference.name} is the reference instead.")
        run.sides = remaining
        begin(run)
        progress.stage(f"running {len(samples)} sample{'s'[: len(samples) != 1]} on {len(sessions)} runners")
        sample: dict[str, np.ndarray] = {}
        staying = _staying(remaining, sessions) if on_device else set()
        uploads = ondevice.Uploads(sessions[remaining.reference.name].device)
        stack.callback(ondevice.release)
        infer = {n: _inferences(s, samples, uploads if n in staying else None) for n, s in sessions.items()}
        for number, sample in enumerate(_checked(samples)):
            _run_sample(run, sessions, infer, number, sample, take)
            if remaining.reference.name in run.errors or all(p.name in run.errors for p in remaining.candidates):
                break
            progress.advance(number + 1, len(samples))
        if latency:
            _measure(run, sessions, sample, latency, progress)
        for name, session in sessions.items():  # it may have learned something on the way
            run.sessions[name] = session.info


def _parties(sides: Sides) -> tuple[Side, ...]:
    return (sides.reference, *sides.candidates)


def _open_all(run: Run, stack: ExitStack, progress: Progress) -> dict[str, Session]:
    sessions: dict[str, Session] = {}
    refused: dict[Side, LayerdiffError] = {}
    for side in _parties(run.asked):
        start = time.perf_counter()
        try:
            session = run.open(
                side,
                progress=lambda text, name=side.name: progress.stage(f"{name}: {text}"),  # type: ignore[misc]
            )
        except Exception as error:
            if isinstance(error, UsageError) and side.model is not run.asked.reference.model:
                refused[side] = error
                continue
            run.errors[side.name] = _reason(error)
            continue
        sessions[side.name] = stack.enter_context(session)
        run.seconds[side.name] = [time.perf_counter() - start, 0.0]
        run.sessions[side.name] = session.info
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
    for side in _parties(run.sides):
        if side.name in run.errors:
            continue
        session = sessions[side.name]
        feed = _feed(session, sample)
        start = time.perf_counter()
        try:
            outputs = infer[side.name](feed)
        except Exception as error:
            run.errors[side.name] = f"sample {number}: {_reason(error)}"
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


def _inferences(session: Session, samples: Samples, uploads: ondevice.Uploads | None) -> Callable[[Feed], Any]:
    """Gives the outputs of one sample after the other; with ``uploads``, on the device."""
    if not isinstance(session, PiecedSession):
        return session.infer if uploads is None else lambda feed: session.infer_on_device(uploads(feed))
    results = session.infer_all(lambda: (_feed(session, sample) for sample in _checked(samples)))
    return lambda feed: next(results)


def _measure(run: Run, sessions: Mapping[str, Session], sample: Feed, runs: int, progress: Progress) -> None:
    """Times each runner alone, one after the other."""
    for side in _parties(run.sides):
        if side.name in run.errors:
            continue
        progress.stage(f"{side.name}: timing {runs} runs")
        session = sessions[side.name]
        if isinstance(session, PiecedSession):
            run.warnings.append(f"{side.name} was not timed: its weights do not fit in memory.")
            continue
        try:
            run.latency[side.name] = measure(session, _feed(session, sample), runs).as_dict()
        except Exception as error:
            run.errors[side.name] = f"latency: {_reason(error)}"


def _feed(session: Session, sample: Feed) -> dict[str, np.ndarray]:
    """The part of a sample that a session takes."""
    wanted = {spec.name for spec in session.inputs}
    return {name: array for name, array in sample.items() if name in wanted}


class _Again:
    """The reference once more, for inner tensors that nobody kept; opened when the first one is asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stack = ExitStack()
        self._session: Session | None = None
        self._samples: Iterator[tuple[int, dict[str, np.ndarray]]] = iter(())
        self._at: tuple[int, dict[str, np.ndarray]] = (-1, {})

    def __enter__(self) -> _Again:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def fetch(self, sample: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Tensors of the reference for one sample; samples may only be asked for in ascending order."""
        if self._session is None:
            side = self._run.sides.reference
            self._session = self._stack.enter_context(self._run.open(side, fetch=names))
            self._samples = enumerate(_checked(self._run.samples))
        while self._at[0] < sample:
            self._at = next(self._samples)
        return self._session.infer(_feed(self._session, self._at[1]), fetch=names)


def _checked(samples: Samples) -> Iterator[dict[str, np.ndarray]]:
    for sample in samples:
        yield read_only(sample)


def _numbered(samples: Samples, wanted: Collection[int]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Some samples, with their numbers."""
    for number, sample in enumerate(_checked(samples)):
        if number > max(wanted):
            return
        if number in wanted:
            yield number, sample


def _reason(error: Exception) -> str:
    """Why a runner failed, in at most two lines. Wrong usage is not a failure and goes on up."""
    log.debug("a runner failed", exc_info=error)
    if isinstance(error, LayerdiffError) and not isinstance(error, RunnerError):
        raise error
    text = "\n".join(str(error).strip().splitlines()[:2])
    return (
        text if isinstance(error, RunnerError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
    )


# -- reporting --------------------------------------------------------------------------------------------------------


def _judge(run: Run, rules: Rules) -> Judge:
    reference = run.sides.reference
    formats = {p.name: formats_in_play(reference, p) for p in run.sides.candidates}
    own = {name: info.narrow_sums for name, info in run.sessions.items()}
    theirs = own.get(reference.name, frozenset())
    narrow = {p.name: theirs | own.get(p.name, frozenset()) for p in run.sides.candidates}
    return Judge(run.sides, formats, rules, narrow)


def _report(run: Run, judge: Judge | None, meter: Meter | None = None, progress: Progress = SILENT) -> Report:
    reference = run.sides.reference
    done = run.samples_run.get(reference.name, 0)
    outputs: tuple[OutputResult, ...] = ()
    warnings = list(run.warnings)
    if judge is not None:
        evidence = judge.evidence(total=len(run.samples), run=run.samples_run)
        for name, device in judge.devices().items():
            info = run.sessions[name]
            run.sessions[name] = replace(info, options={**info.options, "statistics_on": device})
        warnings += judge.warnings
        evidence = emulate_sums(run, judge, evidence, functools.partial(_numbered, run.samples), progress)
        if meter is not None:
            evidence = tuple(replace(e, measured=meter.measured(e.candidate, e.tensor)) for e in evidence)
        outputs = tuple(map(decide, evidence))
        warnings += [told(e) for e, o in zip(evidence, outputs, strict=True) if o.decided_by == DECIDED_BY]
    accuracy: tuple[AccuracyResult, ...] = ()
    if meter is not None:
        if done == len(run.samples):
            meter.finish()
        accuracy = meter.results()
        warnings += meter.warnings(outputs)
    data_notes = list(run.samples.notes)
    if run.calibration is not None:
        data_notes.append(f"INT8 and FP8 were calibrated on {run.calibration.description}.")
    second = next((p.model for p in run.asked.candidates if p.model is not reference.model), None)
    return Report(
        reference=reference.name,
        model=_model_info(reference.model),
        candidate_model=None if second is None else _model_info(second),
        data=DataInfo(done, run.samples.seed, run.samples.description, run.samples.representative, tuple(data_notes)),
        runners=run.results(),
        outputs=outputs,
        warnings=tuple(warnings),
        accuracy=accuracy,
    )


def _model_info(model: Model) -> ModelInfo:
    # A report outlives the run; it must not hold the model's weights.
    light = Model(onnx.ModelProto(), source=model.source) if os.path.isfile(model.source) else model
    return ModelInfo(model.source, len(model.proto.graph.node), lambda: light.sha256)
