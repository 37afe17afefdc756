"""A runner that gives FP16 and does not say so is judged as what it says, whoever is the reference, and told why."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest
from layerdiff import Comparator, OnnxrtRunner, Runner
from layerdiff.graph.formats import FP16
from onnx import numpy_helper

X = np.random.default_rng(4).standard_normal((4, 8)).astype(np.float32)
W = np.random.default_rng(3).standard_normal((8, 6)).astype(np.float32)
TEXT = """<ir_version: 9, opset_import: ["" : 17]>
g (float[4,8] x) => (float[4,6] y) { a = MatMul(x, w) b = Relu(a) y = Mul(b, two) }"""


class Half(Runner):
    """Gives FP16, of FP32 arithmetic."""

    def open(self, model):
        session = ort.InferenceSession(model.serialized(), providers=["CPUExecutionProvider"])
        names = [spec.name for spec in model.outputs]
        return lambda feed: dict(
            zip(names, (v.astype(np.float16) for v in session.run(names, dict(feed))), strict=True)
        )


class Declared(Half):
    arithmetic = FP16


class Wrong(Half):
    """Another result, which FP16 does not explain."""

    def open(self, model):
        run = super().open(model)
        return lambda feed: {n: (v * 1.5).astype(np.float16) for n, v in run(feed).items()}


def compared(runner, reference=None, **rules):
    model = onnx.parser.parse_model(TEXT)
    constants = {"w": W, "two": np.full(1, 1.7, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    data = [{"x": X}]
    return Comparator(model, [OnnxrtRunner(), runner], reference=reference, data_loader=data, **rules).compare()


@pytest.mark.parametrize("reference", ["onnxrt", "half"])
def test_the_verdict_does_not_depend_on_who_is_the_reference(reference):
    report = compared(Half(), reference)
    assert [o.verdict for o in report.outputs] == ["fail"]
    (notice,) = (n for n in report.notices if n.code == "other-dtype")
    assert "half counts as FP32: if it computes in FP16, declare `arithmetic`" in notice.text


@pytest.mark.parametrize("reference", ["onnxrt", "declared"])
def test_declared_it_passes_by_what_fp16_explains(reference):
    report = compared(Declared(), reference)
    assert [o.verdict for o in report.outputs] == ["pass"]
    assert not any("counts as" in n.text for n in report.notices)


@pytest.mark.parametrize("layers", ["guilty", "all"])
def test_the_one_culprit_is_what_was_not_declared(layers):
    (culprit,) = compared(Half(), layers=layers).culprits
    assert (culprit.cause.value, culprit.node) == ("undeclared-format", "MatMul_0")
    assert "half gives float16 and counts as FP32" in culprit.evidence
    assert "declare `arithmetic`" in culprit.remedies[0].text


def test_what_the_format_does_not_explain_has_another_cause():
    causes = [c.cause.value for c in compared(Wrong(), layers="guilty").culprits]
    assert causes[0] != "undeclared-format"
