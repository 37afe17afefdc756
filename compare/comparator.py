"""The comparator: runs the same samples on every runner and judges the candidates against the reference.

Two ways through the same code. `Comparator.compare` streams: a sample's outputs are judged and dropped, statistics
stay. `Comparator.run` keeps the outputs, for whoever wants to look at them, and `Comparator.compare_accuracy` judges
them afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..graph.errors import UsageError
from ..graph.options import options as declared
from ..runners.contract.declared import as_declared
from ..runners.contract.runner import Runner
from ..runners.contract.workload import Workload
from .assemble import assemble
from .collect import Collector
from .comparison import JUDGED, RUN, Comparison, Rules, changed, with_options
from .distributed import compare
from .loading import Loader, ModelSource
from .notices import shapes_not_run
from .outputs.metric import criterion
from .plans.apply import applied
from .progress import SILENT, Progress
from .runs.kept_outputs import MEMORY_LIMIT, RunResults
from .runs.resized import resized
from .runs.samples import Data, bind, calibrating, check_calibrated, check_labels, check_shapes, checked
from .runs.streaming import execute
from .runs.workers.isolation import isolated

if TYPE_CHECKING:
    import numpy as np

    from ..dataloaders.base import Samples
    from .report.model import Notice, Report
    from .sides import Side


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
        self._runners = as_declared(_runners(runners))
        self._data = data_loader
        self._calibration = calibration_data
        self._progress = progress
        self.samples: Samples | None = None
        """What was run, once it was: every pass over it gives the same bytes."""

    def compare(self) -> Report:
        """Runs every sample on every runner, keeps statistics alone, and localizes if that was asked for.

        Raises:
            UsageError: The call, the model or the data are wrong. A runner that fails is in the report.
        """
        return compare(self.prepare(), self._progress, self.ran_on)

    def ran_on(self, samples: Samples) -> None:
        """Notes that other samples were run than were bound: see `stages.compare`."""
        self.samples = samples

    def prepare(self) -> Comparison:
        """The comparison as data, with its models loaded and its samples bound; `stages.compare` runs it.

        Raises:
            UsageError: The call, the model or the data are wrong.
        """
        loader = Loader(self._runners, self.rules, self._progress)
        sides = loader.sides(self._model, self._candidate_model)
        told: tuple[Notice, ...] = ()
        if self.rules.plan is not None:
            sides, told = applied(sides, self.rules.plan)
        if self._criterion is not None:
            self._criterion.bind(sides.reference.model.outputs)
        sets = self.rules.shape_sets
        samples = self.samples = bind(self._data, sides, sets)
        check_shapes(samples, self.rules.shapes)
        not_run = tuple(shapes_not_run(samples.shapes_not_run))
        if self.rules.labels is not None:
            check_labels(samples)
        workload = Workload(
            samples=functools.partial(checked, samples), shapes=sets[0], profiles=sets if sets[1:] else ()
        )
        calibration = None
        if self._calibration is not None:
            check_calibrated(sides)
            calibration = bind(self._calibration, sides, sets)
            workload = replace(workload, calibration=functools.partial(calibrating, calibration))
        return Comparison(sides, samples, workload, self.rules, calibration, (*loader.notices, *told, *not_run))

    @staticmethod
    def run(
        runners: Sequence[Runner],
        data_loader: Data | None = None,
        *,
        model: ModelSource | None = None,
        memory: int = MEMORY_LIMIT,
        progress: Progress = SILENT,
        **options: Any,
    ) -> RunResults:
        """Runs every sample on every runner and keeps the outputs.

        Args:
            runners: At least two; those without a model of their own open ``model``.
            data_loader: See `Comparator`.
            model: See `Comparator`.
            memory: Bytes of outputs to hold in memory; what exceeds them is spilled to a temporary file.
            progress: Told what is going on.
            options: Fields of `Rules` that concern what is run: ``reference``, ``map_inputs``, ``shapes``, ...

        Returns:
            Outputs by runner and sample, for `compare_accuracy`.

        Raises:
            UsageError: The call, the models or the data are wrong; an option says how outputs are judged, or asks for
                more than outputs.
        """
        _check_concern("run", options, RUN)
        comparator = Comparator(model, runners, data_loader=data_loader, progress=progress, **options)
        prepared = comparator.prepare()
        with isolated(prepared) as comparison:
            results = _kept(comparison, memory, progress)
            other = resized(comparison, results.log, progress)
            if other is not None:
                prepared = replace(prepared, samples=other.samples, workload=other.workload, notices=other.notices)
                results = _kept(other, memory, progress)
        results.comparison = prepared
        return results

    @staticmethod
    def compare_accuracy(run_results: RunResults, rules: Rules | None = None, **options: Any) -> Report:
        """Judges outputs that `run` kept. The report is true if every candidate agrees with the reference.

        Args:
            run_results: What `run` returned.
            rules, options: See `Comparator`; those that say how outputs are judged: ``rtol``, ``tolerances``,
                ``metric``, ...

        Raises:
            UsageError: The tolerances, the metric or the labels are wrong; an option says what is run, or asks for more
                than outputs.
        """
        if not isinstance(run_results, RunResults):
            raise UsageError(
                f"compare_accuracy judges what Comparator.run returned, not a {type(run_results).__name__}; outputs "
                "that were recorded elsewhere are a runner: RecordedRunner."
            )
        judged = with_options(rules or Rules(), options)
        _check_concern("compare_accuracy", changed(judged), JUDGED)
        comparison = replace(run_results.comparison, rules=judged)
        log = run_results.log
        collector = Collector(comparison)
        if comparison.rules.labels is not None:
            check_labels(comparison.samples)
        if not log.candidates:
            return assemble(comparison, log, collector.evidence(comparison, log))
        sides = comparison.sides.chosen(log.reference, log.candidates)
        take = collector.begin(sides)
        for sample in range(max(log.finished.values())):
            for side in sides.all:
                outputs = run_results.outputs(side.name, sample)
                if outputs is not None:
                    take(side, sample, outputs)
        return assemble(comparison, log, collector.evidence(comparison, log))


def _check_concern(method: str, given: Iterable[str], known: frozenset[str]) -> None:
    """Makes sure that a method is given no option that it takes no notice of.

    Raises:
        UsageError: It is.
    """
    rules = [f.name for f in declared(Rules)]  # what is no option at all is told with those that there are
    for name in (name for name in given if name in rules and name not in known):
        named = [other for other, its in (("run", RUN), ("compare_accuracy", JUDGED)) if name in its]
        there = f"Comparator.{named[0]}" if named else "Comparator(model, runners, ...).compare()"
        raise UsageError(f"Comparator.{method} takes no {name}: it is an option of {there}.")


def _runners(given: object) -> tuple[Runner, ...]:
    """The runners that somebody gave.

    Raises:
        UsageError: They are something else.
    """
    several = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    for one in several:
        if not isinstance(one, Runner):
            plain = callable(one) and not isinstance(one, type)
            what = "FunctionRunner(function=f)" if plain else "a list of them, [OnnxrtRunner(), ...]"
            raise UsageError(f"runners: {one!r} is no runner: give {what}.")
    return several


def _kept(comparison: Comparison, memory: int, progress: Progress) -> RunResults:
    """Every output of every runner."""
    results = RunResults(comparison, memory)

    def take(side: Side, sample: int, outputs: dict[str, np.ndarray]) -> None:
        results.add(side.name, outputs)

    results.log = execute(comparison, lambda sides: take, progress)
    return results
