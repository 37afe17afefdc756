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
from layerdiff.graph.formats import FP32, NumberFormat
from layerdiff.graph.model import Model
from layerdiff.graph.pairing.differences import Difference

from .models import parsed

RELU = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }")


def layer_case(
    y: np.ndarray,
    c: np.ndarray,
    *,
    model: onnx.ModelProto = RELU,
    candidate: onnx.ModelProto | None = None,
    given: Mapping[str, np.ndarray] | None = None,
    inner: Mapping[str, np.ndarray] | None = None,
    differences: tuple[Difference, ...] = (),
    arithmetic: NumberFormat = FP32,
    narrow: NumberFormat | None = None,
    coarse: bool = False,
    quantized: bool = False,
    result_step: float = 0.0,
    expected: Expected | None = None,
    entry: int = 0,
    **judgement: Any,
) -> LayerCase:
    """A whole model as one layer, which gives ``y`` in the reference and ``c`` in the candidate.

    Args:
        y, c: The output on both sides.
        model, candidate: The graphs; the output is called ``y`` in both.
        given: What the layer is given; nothing looks at it where it is left out.
        inner: Tensors inside the layer.
        differences: Static differences; each belongs to the node that it names.
        arithmetic, narrow, coarse, quantized, result_step: See `CaseFormats`.
        expected: What rounding is expected to do.
        entry: See `LayerCase`.
        judgement: What is not as usual in the `Judgement`.
    """
    graphs = Model(model).index, Model(candidate or model).index
    parts = [backward(index, ["y"], ()) for index in graphs]
    position = next(p for p in reversed(parts[0].nodes))
    verdict = {"exceeds_noise": True, "sample": 0, "relative": 0.1, "rms_z": 100.0, "reason": "noise", "tensor": "y"}
    return LayerCase(
        LayerPair(0, position, parts[0], parts[1]),
        Judgement(**{**verdict, **judgement}),
        {**(given or {}), "y": y},
        {"y": c},
        expected or Expected(),
        CaseFormats(arithmetic, narrow, coarse, quantized, result_step),
        graphs,
        tuple((d.node, d) for d in differences),
        lambda: inner or {},
        entry,
    )


def told(found: Any) -> str:
    """The clauses of a diagnosis."""
    return "; ".join(fact.text for fact in found.facts)
