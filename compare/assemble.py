"""From what a run left and what was judged to the report."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from ..graph.model import Model
from .outputs.decide import decide
from .outputs.expectation import measure, told
from .outputs.judge import Judge
from .progress import SILENT, Progress
from .report.model import DataInfo, ModelInfo, Report
from .runs.samples import numbered
from .sides import other_file

if TYPE_CHECKING:
    from .comparison import Rules
    from .outputs.metric import Meter
    from .report.model import AccuracyResult, OutputResult
    from .runs.run import Run


def judge_for(run: Run, rules: Rules) -> Judge:
    """What compares the outputs of those that opened."""
    return Judge(run.sides, rules)


def assemble(run: Run, judge: Judge | None, meter: Meter | None = None, progress: Progress = SILENT) -> Report:
    """The report on a run; without layers, which localizing adds."""
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
        evidence = measure(run, evidence, judge.kept, functools.partial(numbered, run.samples), progress)
        if meter is not None:
            evidence = tuple(replace(e, metric=meter.loss(e.candidate, e.tensor)) for e in evidence)
        outputs = tuple(map(decide, evidence))
        warnings += [text for e in evidence if (text := told(e)) is not None]
    accuracy: tuple[AccuracyResult, ...] = ()
    if meter is not None:
        if done == len(run.samples):
            meter.finish()
        accuracy = meter.results()
        warnings += meter.warnings(outputs)
    data_notes = list(run.samples.notes)
    if run.calibration is not None:
        data_notes.append(f"INT8 and FP8 were calibrated on {run.calibration.description}.")
    second = next((p.model for p in run.asked.candidates if other_file(p, reference)), None)
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
