"""What the charts of the page are made of: plain values, short enough for thousands of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....graph.formats import FORMATS
from ....graph.printable import counted

if TYPE_CHECKING:
    from ..model import LayerResult, Metrics, OutputResult, Report

HOST = ("median", "p99")


def charts(report: Report) -> dict[str, Any]:
    """The data of all charts; every number that is not finite is None."""
    candidates = [runner.name for runner in report.candidates]
    return {
        "reference": report.reference,
        "candidates": candidates,
        "formats": {runner.name: _format(runner.format) for runner in report.runners},
        "layers": [_layer(layer) for layer in report.layers],
        "outputs": [_output(output) for output in report.outputs],
        "latency": [
            {"runner": runner.name, **{which: (runner.latency["host"] or {}).get(which) for which in HOST}}
            for runner in report.runners
            if runner.latency
        ],
        "culprits": [{"candidate": c.candidate, "tensors": c.tensors, "cause": str(c.cause)} for c in report.culprits],
    }


def _format(name: str | None) -> dict[str, Any] | None:
    fmt = FORMATS.get(name or "")
    if fmt is None or fmt.is_integer:
        return None
    return {"name": str(fmt), "max": fmt.max, "normal": fmt.smallest_normal, "least": fmt.smallest_subnormal}


def _layer(layer: LayerResult) -> dict[str, Any]:
    found = {
        "candidate": layer.candidate,
        "node": layer.path,
        "op": layer.op,
        "tensor": layer.tensor,
        "inside": bool(layer.inside),
        "nodes": layer.nodes if len(layer.nodes) > 1 else (),
        "verdict": layer.verdict,
        "cause": None if layer.cause is None else str(layer.cause),
        "local": _short(layer.local),
        "cumulative": _short(layer.cumulative),
        "z": _digits((layer.expected or {}).get("rms_z")),
        "contribution": _digits(layer.contribution),
        "inputs": layer.inputs,
        "origin": layer.origin,
        "portrait": layer.portrait,
        "other": layer.candidate_node,
    }
    return {key: value for key, value in found.items() if value not in (None, (), False)}


def _short(metrics: Metrics | None) -> Mapping[str, Any] | None:
    if metrics is None:
        return None
    return {key: _digits(metrics.get(key)) for key in ("rel_l2", "max_abs", "snr_db")}


def _output(output: OutputResult) -> dict[str, Any]:
    return {
        "candidate": output.candidate,
        "tensor": output.tensor,
        "verdict": output.verdict,
        "rel_l2": _digits((output.metrics or {}).get("rel_l2")),
        "histogram": output.values.get("histogram"),
    }


def _digits(value: Any) -> Any:
    """Four digits: more are not seen in a chart, and cost space at thousands of layers."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def not_compared(report: Report) -> Sequence[tuple[str, str]]:
    """What nobody compared: what, and why."""
    found = [(f"runner {runner.name}", runner.failure) for runner in report.runners if runner.error]
    found += [(f"output {o.tensor} of {o.candidate}", o.reason or o.verdict) for o in report.outputs if not o.compared]
    for candidate in dict.fromkeys(layer.candidate for layer in report.layers):
        for verdict, why in (("unmatched", "no counterpart in the candidate's graph"), ("unknown", "not judged")):
            names = [x.tensor for x in report.layers if x.candidate == candidate and x.verdict == verdict]
            if names:
                some = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
                found.append((f"{counted(len(names), 'tensor')} of layers on {candidate}", f"{why}: {some}"))
    if not report.outputs and not found:
        found.append(("everything", "no output was compared"))
    return found
