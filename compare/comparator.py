"""The comparator: runs the same samples on every runner and judges the candidates against the reference.

Two ways through the same code. `Comparator.compare` streams: a sample's outputs are judged and dropped, statistics
stay. `Comparator.run` keeps the outputs, for whoever wants to look at them, and `Comparator.compare_accuracy` judges
them afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx

from ..graph.errors import UsageError
from ..graph.load import described, is_engine, load, load_engine
from ..graph.model import Model
from ..runners.contract.workload import Workload
from .assemble import assemble, judge_for
from .comparison import Comparison, Rules, with_options
from .layers.fidelity import Deployed
from .outputs.formats_in_play import formats_in_play
from .outputs.judge import Judge
from .outputs.metric import Meter, criterion
from .progress import SILENT, Progress
from .runs.kept_outputs import MEMORY_LIMIT, RunResults
from .runs.repeatability import chance, repeat
from .runs.run import Fetch, Run
from .runs.samples import Data, bind, check_calibrated, check_inputs, check_labels, read_only
from .runs.streaming import execute, may_vary
from .sides import Side, Sides, choose_sides, one_a_file, other_file

if TYPE_CHECKING:
    from ..dataloaders.base import Samples
    from ..runners.contract.runner import Runner
    from .report.model import Report

ModelSource: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | Model"
Labels: TypeAlias = "np.ndarray | Sequence[Any] | str | os.PathLike[str]"


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
        rules: Rules | None = None,
        progress: Progress = SILENT,
        **options: Any,
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
            rules: Tolerances, what to measure, whether to localize, and all else that there is to decide.
            progress: Told what is going on.
            options: Fields of `Rules`: ``Comparator(model, runners, layers="guilty")``. They replace those of
                ``rules``.

        Raises:
            UsageError: An option that `Rules` does not have, or a value that it does not take; a metric that does not
                exist or lacks its labels.
        """
        self.rules = with_options(rules or Rules(), options)
        self._criterion = criterion(self.rules)
        self._model = model
        self._candidate_model = candidate_model
        self._runners = tuple(runners)
        self._data = data_loader
        self._calibration = calibration_data
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
            judge = judge_for(run, self.rules)
            meter = None if self._criterion is None else Meter(self._criterion, run.sides)

        def take(side: Side, sample: int, outputs: dict[str, Any], fetch: Fetch) -> None:
            assert judge is not None
            judge.take(side.name, sample, outputs)
            if meter is not None:
                meter.take(side.name, sample, outputs)
            if deployed is not None:
                if side is not run.sides.reference:
                    deployed.take(side.name, sample, outputs)
                if sample == 0 and not run.in_pieces(side) and may_vary(side):
                    run.repeats[side.name] = repeat(outputs, fetch(list(outputs)))

        run = Run(sides, sides, samples, workload, memory=self.rules.memory, calibration=self._calibrating)
        execute(run, begin, take, self._progress, self.rules.latency or 0, on_device=deployed is None)
        run.warnings[:0] = self._warnings
        report = assemble(run, judge, meter, self._progress)
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
            formats={side.name: formats_in_play(run.sides.reference, side) for side in alive},
            rules=self.rules,
            progress=self._progress,
            sessions=run.sessions,
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

        execute(results.run, lambda run: None, take, progress)
        results.run.warnings[:0] = comparator._warnings
        return results

    @staticmethod
    def compare_accuracy(run_results: RunResults, rules: Rules | None = None, **options: Any) -> Report:
        """Judges outputs that `run` kept. The report is true if every candidate agrees with the reference.

        Args:
            run_results: What `run` returned.
            rules, options: See `Comparator`; those that concern the outputs.

        Raises:
            UsageError: The tolerances, the metric or the labels are wrong.
        """
        rules = with_options(rules or Rules(), options)
        measured = criterion(rules)
        run = run_results.run
        check_labels(measured, run.samples)
        judge = judge_for(run, rules)
        meter = None if measured is None else Meter(measured, run.sides)
        for sample in range(max(run.samples_run.values(), default=0)):
            for side in run.sides.all:
                outputs = run_results.outputs(side.name, sample)
                if outputs is not None:
                    judge.take(side.name, sample, outputs)
                    if meter is not None:
                        meter.take(side.name, sample, outputs)
        return assemble(run, judge, meter)

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
        sides = choose_sides(self._runners, models, candidate_model, self.rules.reference)
        self._check_engines(sides)
        reference = sides.reference.model
        for model in [side.model for side in one_a_file(sides.candidates)]:
            ignored = check_inputs(reference, model)
            if ignored:
                self._warnings.append(f"{model.source} does not take {', '.join(map(repr, ignored))}.")
        self._check_names(sides)
        samples = self.samples = bind(self._data, sides, self.rules.shape_sets)
        check_labels(self._criterion, samples)
        workload = Workload(
            samples=lambda: map(read_only, samples),
            shapes=self.rules.shape_sets[0],
            profiles=self.rules.shape_sets if self.rules.shape_sets[1:] else (),
        )
        if self._calibration is not None:
            check_calibrated(sides)
            other = self._calibrating = bind(self._calibration, sides, self.rules.shape_sets)
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
        inputs, outputs = self.rules.inputs, self.rules.outputs
        model = load(source, inputs=inputs, outputs=outputs)
        if model.opaque and not model.outputs:
            reader = next((r for r in self._runners if r.capabilities.reads_engines), None)
            if reader is None:
                assert model.engine is not None
                raise UsageError(f"{model.label}: {model.engine.origin[1]}, and no runner here reads engines (--trt).")
            model = described(model, *reader.engine_io(model))
        return model

    def _paired(self) -> tuple[ModelSource | None, ModelSource | None]:
        """The two models. An engine beside the model it was built from is one model, if a runner needs the latter."""
        first, second = self._model, self._candidate_model
        if is_engine(first) == is_engine(second) or first is None or second is None:
            return first, second
        if all(runner.capabilities.reads_engines for runner in self._runners):
            return first, second
        engine, origin = (first, second) if is_engine(first) else (second, first)
        self._progress.stage(f"loading {engine}")
        inputs, outputs = self.rules.inputs, self.rules.outputs
        assert isinstance(engine, (str, os.PathLike))
        return load_engine(engine, origin, inputs=inputs, outputs=outputs), None

    def _check_engines(self, sides: Sides) -> None:
        """Whether everybody can run what he is given, where that is an engine."""
        for side in sides.all:
            engine = side.model.engine
            if engine is None or not side.model.opaque:
                continue
            if side.runner.capabilities.reads_engines and self.rules.layers is None:
                continue
            who = "--layers needs" if side.runner.capabilities.reads_engines else f"{side.name} runs"
            raise UsageError(
                f"{who} the ONNX file behind {engine}, but {engine.origin[1]}.\n"
                f"Name both: compare {engine} MODEL.onnx {' '.join('--' + r.flag for r in self._runners)}."
            )
        reference = sides.reference
        unread = reference.model.engine is not None and not reference.runner.capabilities.reads_engines
        if unread and all(other_file(p, reference) for p in sides.candidates):
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
        known = {spec.name for p in sides.all for spec in p.model.outputs}
        for name in self.rules.tolerances:
            if name not in known:
                raise UsageError(f"--tolerance {name}: no such output; there are: {', '.join(sorted(known))}.")
        if self._criterion is not None:
            self._criterion.bind(sides.reference.model.outputs)
        inputs = {spec.name for spec in sides.reference.model.inputs}
        for name in {name: None for shapes in self.rules.shape_sets for name in shapes}:
            if name not in inputs:
                raise UsageError(f"--shape {name}: no such input; there are: {', '.join(sorted(inputs))}.")
