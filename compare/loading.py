"""The models of a comparison: loaded once each, paired with the runners, and held against what is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import onnx

from ..graph.errors import UsageError
from ..graph.load import described, is_engine, load, load_engine
from ..graph.model import Model
from . import notices
from .interfaces import check_inputs, in_the_references_words
from .sides import Sides, choose_sides, one_a_file, other_file

if TYPE_CHECKING:
    from ..runners.contract.runner import Runner
    from .comparison import Rules
    from .progress import Progress
    from .report.model import Notice

ModelSource: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | Model"


@dataclass(frozen=True)
class Loader:
    """Loads what a comparison is about.

    Attributes:
        runners: The runners, in the order they were named.
        rules: What was decided.
        progress: Told what is going on.
    """

    runners: Sequence[Runner]
    rules: Rules
    progress: Progress
    notices: list[Notice] = field(default_factory=list)

    def sides(self, model: ModelSource | None, candidate_model: ModelSource | None) -> Sides:
        """Who is judged against whom, on which models.

        Args:
            model: What every runner opens that has no model of its own.
            candidate_model: A second model. The first is then the reference's alone.

        Raises:
            UsageError: There is no pair, or a model does not fit its runner, the other model or the rules.
        """
        if not self.runners:
            choose_sides((), ())  # refuses, before anything is loaded
        if len(self.runners) == 1 and candidate_model is None:
            choose_sides(self.runners, [None])  # type: ignore[list-item]
        first, second = self._paired(model, candidate_model)
        models = self._load_all(first)
        sides = choose_sides(self.runners, models, None if second is None else self._load(second), self.rules.reference)
        self._check_engines(sides)
        if second is not None:
            self.notices.extend(_same_network(sides))
        sides, told = in_the_references_words(sides, self.rules)
        self.notices.extend(told)
        for side in one_a_file(sides.all):
            if side.model.unfolded:
                self.notices.append(notices.outputs_unfolded(side.model.source, side.model.unfolded))
        for side in one_a_file(sides.candidates):
            ignored = check_inputs(sides.reference.model, side.model, self.rules.transpose_inputs)
            if ignored:
                self.notices.append(notices.input_ignored(side.model.source, ignored))
        check_names(sides, self.rules)
        return sides

    def _load(self, source: ModelSource) -> Model:
        named = isinstance(source, (str, os.PathLike))
        name = source.source if isinstance(source, Model) else str(source) if named else "the model"
        self.progress.stage(f"loading {name}")
        model = load(source, inputs=self.rules.inputs, outputs=self.rules.outputs, external=self._external)
        if model.opaque and not model.outputs:
            reader = next((r for r in self.runners if r.capabilities.reads_engines), None)
            if reader is None:
                assert model.engine is not None
                raise UsageError(f"{model.label}: {model.engine.origin[1]}, and no runner here reads engines (--trt).")
            model = described(model, *reader.engine_io(model))
        if model.signatures:
            self.notices.append(notices.signatures_left_out(model.source, model.signatures))
        return model

    def _paired(
        self, first: ModelSource | None, second: ModelSource | None
    ) -> tuple[ModelSource | None, ModelSource | None]:
        """The two models. An engine beside the model it was built from is one model, if a runner needs the latter."""
        if is_engine(first) == is_engine(second) or first is None or second is None:
            return first, second
        if all(runner.capabilities.reads_engines for runner in self.runners):
            return first, second
        engine, origin = (first, second) if is_engine(first) else (second, first)
        self.progress.stage(f"loading {engine}")
        assert isinstance(engine, (str, os.PathLike))
        inputs, outputs = self.rules.inputs, self.rules.outputs
        return load_engine(engine, origin, inputs=inputs, outputs=outputs, external=self._external), None

    @property
    def _external(self) -> tuple[str, ...]:
        return () if self.rules.allow_external is None else (self.rules.allow_external,)

    def _load_all(self, model: ModelSource | None) -> list[Model]:
        """The model of each runner; a file that several of them name is loaded once."""
        loaded: dict[str, Model] = {}
        given: Model | None = None
        models = []
        for runner in self.runners:
            if runner.model is not None:
                path = os.path.abspath(runner.model)
                if path not in loaded:
                    loaded[path] = self._load(runner.model)
                models.append(loaded[path])
                continue
            if model is None:
                model = self._only_named()
            if model is None:
                raise UsageError(f"{runner.name} has no model: give one to it or to the comparator.")
            if given is None:
                path = os.path.abspath(model) if isinstance(model, (str, os.PathLike)) else ""
                given = loaded.get(path) or self._load(model)
                loaded[path] = given
            models.append(given)
        return models

    def _only_named(self) -> ModelSource | None:
        """The file that all runners name that name one; None where they name none, or several."""
        named = {os.path.abspath(runner.model) for runner in self.runners if runner.model is not None}
        return next(runner.model for runner in self.runners if runner.model is not None) if len(named) == 1 else None

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
                f"Name both: compare {engine} MODEL.onnx {' '.join('--' + r.flag for r in self.runners)}."
            )
        reference = sides.reference
        unread = reference.model.engine is not None and not reference.runner.capabilities.reads_engines
        if unread and all(other_file(p, reference) for p in sides.candidates):
            model = reference.model
            self.notices.append(notices.engine_not_run(model.label, reference.name, model.source))


def _same_network(sides: Sides) -> Iterator[Notice]:
    """What to say of a second model that holds the network of the first."""
    first = sides.reference.model
    for side in one_a_file(sides.candidates):
        if side.model.same_network(first):
            yield notices.same_network(first.label, side.model.label)


def check_names(sides: Sides, rules: Rules) -> None:
    """Makes sure that tensors that the rules name are there.

    Raises:
        UsageError: One is not.
    """
    outputs = {spec.name for side in sides.all for spec in side.model.outputs}
    for name in rules.tolerances:
        if name not in outputs:
            raise UsageError(f"--tolerance {name}: no such output; there are: {', '.join(sorted(outputs))}.")
    inputs = {spec.name for spec in sides.reference.model.inputs}
    for name in {name: None for shapes in rules.shapes for name in shapes}:
        if name not in inputs:
            raise UsageError(f"--shape {name}: no such input; there are: {', '.join(sorted(inputs))}.")
