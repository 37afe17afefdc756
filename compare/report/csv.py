"""The layers of a report as CSV: one row for each tensor of each candidate, in the order of the graph."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import LayerResult, Report

FLAG = "--csv"
HELP = "write the layers as CSV (with --layers)"
LAYERS = True

METRICS = ("count", "max_abs", "rmse", "rel_l2", "snr_db", "cosine", "bias")
EXPECTED = ("rms_z", "gain_sigma", "bound_use")
COLUMNS = (
    *("candidate", "index", "inside", "node", "op", "tensor", "candidate_node", "nodes", "piece"),
    *("verdict", "cause", "contribution"),
    *(f"local_{name}" for name in METRICS),
    *(f"cumulative_{name}" for name in METRICS),
    *EXPECTED,
)
"""The header. An empty cell is a number that is not finite or was not measured."""


def render(report: Report) -> str:
    """The layers as CSV, by RFC 4180 but for lines that end as this system's do."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(layer) for layer in report.layers)
    return file.getvalue()


def _row(layer: LayerResult) -> list[Any]:
    local, cumulative, expected = layer.local or {}, layer.cumulative or {}, layer.expected or {}
    return [
        layer.candidate,
        layer.index,
        "/".join(enclosing.node for enclosing in layer.inside),
        layer.node,
        layer.op,
        layer.tensor,
        layer.candidate_node,
        " ".join(layer.nodes),
        layer.piece,
        layer.verdict,
        layer.cause,
        layer.contribution,
        *(local.get(name) for name in METRICS),
        *(cumulative.get(name) for name in METRICS),
        *(expected.get(name) for name in EXPECTED),
    ]
