"""One layer on one sample, as causes are given it, without a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from layerdiff.compare.causes.case import CaseFormats, LayerCase
from layerdiff.compare.causes.expected_noise import Expected
from layerdiff.compare.causes.judgement import Judgement
from layerdiff.compare.lockstep.plan import LayerPair
from layerdiff.graph.cutting.slices import backward
from layerdiff.graph.formats import FP32
from layerdiff.graph.model import Model
from layerdiff.graph.pairing.differences import Difference

from .models import parsed

RELU = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }")


USUAL = {"exceeds_noise": True, "sample": 0, "relative": 0.1, "rms_z": 100.0, "reason": "noise", "tensor": "y"}
FORMATS = {"arithmetic": FP32, "narrow": None, "coarse": False, "quantized": False, "result_step": 0.0}


def layer_case(
    y: np.ndarray,
    c: np.ndarray,
    *,
    model: onnx.ModelProto = RELU,
    candidate: onnx.ModelProto | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    differences: tuple[Difference, ...] = (),
    expected: Expected | None = None,
    entry: int = 0,
    **more: Any,
) -> LayerCase:
    """A whole model as one layer, which gives ``y`` in the reference and ``c`` in the candidate.

    Args:
        y, c: The output on both sides.
        model, candidate: The graphs; the output is called ``y`` in both.
        tensors: Others that the reference has: what the layer is given, and what is inside.
        differences: Static differences; each belongs to the node that it names.
        expected: What rounding is expected to do.
        entry: See `LayerCase`.
        more: ``operands``, the two arrays; what is not as in `FORMATS` or `USUAL`: of the number formats, or of the
            judgement.
    """
    graphs = Model(model).index, Model(candidate or model).index
    mine, theirs = (backward(index, ["y"], ()) for index in graphs)
    known = tensors or {}
    operands = more.pop("operands", None)
    grids = more.pop("grids", {})
    formats = {name: more.pop(name, usual) for name, usual in FORMATS.items()}
    return LayerCase(
        LayerPair(0, mine.nodes[-1], mine, theirs),
        Judgement(**{**USUAL, **more}),
        {**{n: a for n, a in known.items() if n in mine.inputs}, "y": y},
        {"y": c},
        expected or Expected(),
        CaseFormats(*formats.values()),
        graphs,
        tuple((d.node, d) for d in differences),
        lambda: {n: a for n, a in known.items() if n not in mine.inputs},
        lambda: operands,
        entry,
        grids,
    )


def told(found: Any) -> str:
    """The clauses of a diagnosis."""
    return "; ".join(fact.text for fact in found.facts)
