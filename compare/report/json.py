"""The report as JSON: the contract ``layerdiff.report/1``."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from .history import Change
from .inputs import ModelInfo
from .model import SCHEMA, AccuracyResult, Culprit, Fidelity, LayerResult, Notice, Report
from .plain import plain

if TYPE_CHECKING:
    from .model import OutputResult, RunnerResult

LAYER_OPTIONAL = ("candidate_node", "candidate_tensor", "inside", "quantized", "inputs", "origin", "portrait")
ACCURACY_OPTIONAL = ("logits",)
CULPRIT_OPTIONAL = ("candidate_node", "inside", "deployed", "remedies", "origin")
"""Keys that are left out where there is nothing to say."""

FLAG = "--json"
HELP = "write the whole report as JSON"


def to_json(report: Report) -> dict[str, Any]:
    """The whole report as a dict of plain values."""
    return {
        "schema": SCHEMA,
        "layerdiff": report.provenance.version,
        "date": report.provenance.date,
        "command": report.provenance.command,
        "settings": plain(report.provenance.settings),
        "verdict": report.verdict,
        "reference": report.reference,
        "model": _model(report.model),
        "candidate_model": _model(report.candidate_model) if report.candidate_model else None,
        "samples": report.data.samples,
        "seed": report.data.seed,
        "data": report.data.description,
        "data_sha256": report.data.sha256,
        "data_notes": list(report.data.notes),
        "representative": report.data.representative,
        "runners": [_runner(r) for r in report.runners],
        "outputs": [_output(o) for o in report.outputs],
        "accuracy": [_fields(result, *ACCURACY_OPTIONAL) for result in report.accuracy],
        "layers": [_fields(layer, *LAYER_OPTIONAL) for layer in report.layers],
        "culprits": [_culprit(culprit) for culprit in report.culprits],
        "fidelity": [_fields(result) for result in report.fidelity],
        "warnings": [*report.warnings, *report.data.notes],
        "notices": [_fields(notice) for notice in report.notices],
        "saved": list(report.saved),
        "plan": plain(report.plan),
        "changes": [_fields(change) for change in report.changes],
        "baseline": report.baseline,
        "applied": plain(report.applied),
        "shard": plain(report.shard),
    }


def render(report: Report) -> str:
    """The whole report as JSON."""
    return json.dumps(to_json(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _model(model: ModelInfo) -> dict[str, Any]:
    return {"source": model.source, "sha256": model.sha256, "nodes": model.nodes}


def _runner(runner: RunnerResult) -> dict[str, Any]:
    return {
        "name": runner.name,
        "options": plain(runner.options),
        "versions": plain(runner.versions),
        "seconds": {"open": plain(runner.open_seconds), "infer": plain(runner.infer_seconds)},
        "notes": list(runner.notes),
        "error": runner.error,
        "latency": plain(runner.latency),
        "repeat": plain(runner.repeat),
        "format": runner.format,
        "source": runner.source,
    }


def _output(output: OutputResult) -> dict[str, Any]:
    tolerance = output.tolerance
    return {
        "candidate": output.candidate,
        "tensor": output.tensor,
        "verdict": output.verdict,
        "reason": output.reason,
        "decided_by": output.decided_by,
        "holds": output.holds,
        "exchanged": output.exchanged,
        "transposed": plain(output.transposed),
        "tolerance": None if tolerance is None else {"rtol": plain(tolerance.rtol), "atol": plain(tolerance.atol)},
        "expected": plain(output.expected),
        "ties": output.ties,
        "worst_sample": output.worst_sample,
        "use": plain(output.use),
        "metrics": plain(output.metrics),
        "values": plain(output.values),
    }


def _culprit(culprit: Culprit) -> dict[str, Any]:
    """A culprit; of its facts the clauses, which are the evidence."""
    values = _fields(replace(culprit, facts=()), *CULPRIT_OPTIONAL, "facts")
    return {**values, "evidence": culprit.evidence}


def _fields(
    item: LayerResult | Culprit | AccuracyResult | Fidelity | Notice | Change, *only_if_set: str
) -> dict[str, Any]:
    values = {f.name: getattr(item, f.name) for f in fields(item)}
    return {name: plain(value) for name, value in values.items() if value not in (None, ()) or name not in only_if_set}
