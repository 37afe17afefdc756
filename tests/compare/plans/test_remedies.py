"""The short answer under a culprit: what its cause calls for, and what that gives."""

import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.plans.remedies import remedy_of
from layerdiff.compare.report.json import to_json
from layerdiff.compare.report.model import Cause, Culprit
from layerdiff.compare.sides import Side
from layerdiff.graph.model import Model
from onnx import numpy_helper

from support.models import parsed
from support.plan_networks import overflowing, samples, weights


def test_what_overflows_is_tried_in_fp32_with_who_reads_it():
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    report = Comparator(overflowing(), runners, data_loader=samples(), layers="guilty").compare()
    culprit = report.culprits[0]
    assert (culprit.node, culprit.cause) == ("fc1", Cause.OVERFLOW)
    assert culprit.remedy.keep == ("fc1", "fc2")
    assert culprit.remedy.measured.passed
    text = str(report)
    line = next(line for line in text.splitlines() if line.startswith("  try: "))
    assert line.startswith("  try: keep fc1 and fc2 in FP32 (--emulate=...,keep=fc1,keep=fc2): emulated so, pass at ")
    assert to_json(report)["culprits"][0]["remedy"]["measured"]["outputs"][0]["verdict"] == "pass"


def test_what_was_tried_can_be_asked_for():
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16", keep=("fc1", "fc2"))]
    assert Comparator(overflowing(), runners, data_loader=samples()).compare().verdict == "pass"


def test_a_changed_file_is_put_right_in_the_file():
    other = overflowing()
    weight = next(t for t in other.graph.initializer if t.name == "w3")
    changed = numpy_helper.to_array(weight).copy()
    changed[0, 0] += 1
    weight.CopyFrom(numpy_helper.from_array(changed, "w3"))
    report = Comparator(
        overflowing(), [OnnxrtRunner()], candidate_model=other, data_loader=samples(), layers="guilty"
    ).compare()
    (culprit,) = report.culprits
    assert culprit.cause is Cause.WEIGHTS
    assert culprit.remedy.text == "take the first file's weights, or export the model again"
    assert culprit.remedy.keep == ()


MODEL = Model(
    parsed(
        "g (float[8,16] x) => (float[8,16] y) { [a] m = MatMul(x, w) [b] n = MatMul(x, v) [c] y = Sub(m, n) }",
        w=weights(1),
        v=weights(2),
    )
)


@pytest.mark.parametrize(
    ("cause", "keep"),
    [(Cause.CANCELLATION, ("a", "b", "c")), (Cause.UNDERFLOW, ("c",)), (Cause.UNKNOWN, ("c",)), (Cause.SPREAD, ())],
)
def test_what_is_kept_depends_on_the_cause(cause, keep):
    reference, side = Side("onnxrt", OnnxrtRunner(), MODEL), Side("emulate:fp16", EmulateRunner(), MODEL)
    culprit = Culprit("emulate:fp16", "c", "Sub", ("y",), cause, None, None)
    assert remedy_of(culprit, side, reference).keep == keep


def test_what_is_wrong_in_fp32_is_rewritten():
    reference, side = Side("onnxrt", OnnxrtRunner(), MODEL), Side("mine", OnnxrtRunner(optimization="disable"), MODEL)
    culprit = Culprit("mine", "c", "Sub", ("y",), Cause.WRONG_OP, None, None)
    assert remedy_of(culprit, side, reference).text.startswith("rewrite the operator")
