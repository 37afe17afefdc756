"""Two sides compared layer by layer, and what a report says of them."""

from __future__ import annotations

import numpy as np
import onnx
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner

from . import networks

FLOAT, INT64 = networks.FLOAT, networks.INT64
NETWORKS = {f.__name__: f for f in networks.FEEDS}

ORT = OnnxrtRunner(threads=1)
FP16, BF16, INT8 = (EmulateRunner(format=f, threads=1) for f in ("fp16", "bf16", "int8"))
LOOSE = {"rtol": 0.9, "atol": 10.0}
"""A tolerance that everything meets: for formats of which the arithmetic says nothing."""


def data_of(name: str, samples: int = 2) -> list[dict[str, np.ndarray]]:
    return [networks.FEEDS[NETWORKS[name]](np.random.default_rng(i)) for i in range(samples)]


def compare(model, candidate, data, *, layers="guilty", ort=ORT, **options):
    """A report: ``candidate`` is a runner on the same model, or another model on the same runner."""
    if isinstance(candidate, onnx.ModelProto):
        options["candidate_model"], runners = candidate, [ort]
    else:
        runners = [ort, candidate]
    return Comparator(model, runners, data_loader=data, layers=layers, **options).compare()


def verdicts(report) -> dict[str, str]:
    return {layer.tensor: layer.verdict for layer in report.layers}


def only(report):
    """The one culprit."""
    assert len(report.culprits) == 1, [(c.node, c.cause) for c in report.culprits]
    return report.culprits[0]


def mentions(report, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in report.warnings)


def two_products(seed: int = 1) -> networks.Writer:
    """x (N x 16) -> first -> relu -> y (N x 8)."""
    w = networks.Writer(seed)
    w.linear(w.node("Relu", [w.linear("x", "first", (16, 16))], "relu"), "y", (16, 8))
    return w
