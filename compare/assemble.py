"""From what a run left and the evidence on its outputs to the report. Nothing is run or compared here."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ..graph.digest import hash_arrays
from ..graph.model import Model
from ..graph.weights import every_external_file
from . import notices
from .comparison import changed
from .interfaces import in_words, map_outputs
from .outputs.decide import decide
from .outputs.metric import allowed_drop
from .report.history import Provenance
from .report.inputs import DataInfo, ModelInfo
from .report.model import Report, RunnerResult
from .sides import other_file

if TYPE_CHECKING:
    from ..dataloaders.base import Samples
    from .collect import Evidence
    from .comparison import Comparison, Rules
    from .report.model import Notice, OutputResult
    from .runs.run import RunLog, RunnerLog
    from .sides import Side


def assemble(comparison: Comparison, log: RunLog, evidence: Evidence) -> Report:
    """The report on a run; without layers, which localizing adds."""
    outputs = tuple(map(decide, evidence.outputs))
    drop = allowed_drop(comparison.rules)
    reference = comparison.sides.chosen(log.reference, ()).reference
    second = next((side.model for side in comparison.candidates if other_file(side, reference)), None)
    runners = sorted(log.runners, key=lambda runner: runner.name != log.reference)
    sides = {side.name: side for side in comparison.sides.all}
    return Report(
        reference=log.reference,
        model=_model_info(reference.model),
        candidate_model=None if second is None else _model_info(second),
        data=_data_info(comparison, log),
        runners=tuple(
            _runner_result(runner, evidence.devices.get(runner.name), sides.get(runner.name)) for runner in runners
        ),
        outputs=outputs,
        notices=(
            *comparison.notices,
            *_of_run(log, outputs),
            *evidence.notices,
            *(
                notices.judged_by_formula(known.candidate, known.tensor, known.by_formula.why)
                for known in evidence.outputs
                if known.by_formula is not None
            ),
            *_exchanged(comparison, outputs),
            *notices.metric_fell(evidence.accuracy, drop, outputs),
        ),
        accuracy=evidence.accuracy,
        provenance=Provenance(settings=_settings(comparison.rules)),
    )


def _of_run(log: RunLog, outputs: Sequence[OutputResult]) -> Iterator[Notice]:
    """What to say of a run. That a mask holds negative infinities is nothing to be said where no output has any."""
    counts = [(output.metrics or {}).get(kind) for output in outputs for kind in ("nan", "inf")]
    finite = all(output.metrics is not None for output in outputs) and not any(any(c) for c in counts if c is not None)
    for notice in log.notices:
        mask = notice.code == notices.INPUT_NOT_FINITE and notice.subject in log.masks
        if not (mask and finite and outputs):
            yield notice


def _exchanged(comparison: Comparison, outputs: Sequence[OutputResult]) -> Iterator[Notice]:
    """What to say of candidates whose outputs are exchanged, with the options where the files are two."""
    for side in comparison.candidates:
        found = {o.tensor: o.holds for o in outputs if o.candidate == side.name and o.exchanged and o.holds}
        if found:
            files = other_file(side, comparison.reference)
            yield notices.outputs_exchanged(side.name, found, map_outputs(found) if files else "")


def _runner_result(runner: RunnerLog, device: str | None, side: Side | None) -> RunnerResult:
    options = runner.info.options if device is None else {**runner.info.options, "statistics_on": device}
    return RunnerResult(
        name=runner.name,
        options=options,
        versions=runner.info.versions,
        open_seconds=runner.open_seconds,
        infer_seconds=runner.infer_seconds,
        notes=tuple(runner.info.notes),
        error=runner.error,
        latency=runner.latency,
        repeat=None if runner.repeat is None else runner.repeat.json(),
        format=None if side is None else side.runner.arithmetic.name,
        source=None if side is None else side.runner.runs(side.model),
    )


def _data_info(comparison: Comparison, log: RunLog) -> DataInfo:
    samples = comparison.samples
    notes = [*samples.notes, *in_words(comparison.rules)]
    external = comparison.rules.allow_external
    if external is not None and not any(every_external_file(side.model.proto) for side in comparison.sides.all):
        notes.append(f"--allow-external {external} changes nothing: no model has external weights.")
    if comparison.calibration is not None:
        notes.append(f"INT8 and FP8 were calibrated on {comparison.calibration.description}.")
    digest = functools.partial(data_digest, samples)
    reference, total, description = log.of(log.reference).samples, len(samples), samples.description
    done = max((min(reference, log.of(name).samples) for name in log.candidates), default=0)
    if 0 < done < total and comparison.rules.shard is None:
        description = f"{done} of {description}"
    return DataInfo(log.samples, samples.seed, description, samples.representative, tuple(notes), digest)


def data_digest(samples: Samples) -> str | None:
    """One hash for all samples: names, dtypes, shapes and bytes, in the order in which they are run; None where they
    are gone."""
    hashed = hashlib.sha256()
    try:
        for sample in samples:
            hash_arrays(hashed.update, sample)
    except OSError:  # files that were there during the run
        return None
    return hashed.hexdigest()


def _settings(rules: Rules) -> dict[str, Any]:
    """The rules that are not at their defaults, but for where it was run; of arrays, what they are."""
    return {
        name: f"array of {value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else value
        for name, value in changed(rules).items()
        if name != "ray"
    }


def _model_info(model: Model) -> ModelInfo:
    # A report outlives the run; it must not hold the model's weights.
    light = Model(onnx.ModelProto(), source=model.source) if os.path.isfile(model.source) else model
    return ModelInfo(model.source, len(model.proto.graph.node), functools.partial(getattr, light, "sha256"))
