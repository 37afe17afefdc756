"""Kinds of faults that people reported: what is named, and with which words."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import EmulateRunner

from support.layerwise import compare, mentions, only
from support.models import parsed

RNG = np.random.default_rng(11)
X = {"x": (40 * RNG.standard_normal((6, 32))).astype(np.float32)}
W = (RNG.standard_normal((32, 32)) / 5).astype(np.float32)
RMS_NORM = """[up] a = MatMul(x, w) [square] q = Mul(a, a) [mean] m = ReduceMean<axes=[1]>(q) [eps] e = Add(m, tiny)
    [root] r = Sqrt(e) [invert] i = Reciprocal(r) [normal] n = Mul(a, i) [down] y = MatMul(n, w)"""
RMS = parsed(f"g (float[6,32] x) => (float[6,32] y) {{ {RMS_NORM} }}", w=W, tiny=np.float32(1e-5))


def test_a_normalization_whose_squares_overflow_is_an_overflow():
    report = compare(RMS, EmulateRunner(format="fp16", every_node=True), [{"x": 20 * X["x"]}])
    assert report.verdict == "fail"
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("square", "overflow")


def test_a_normalization_that_is_right_as_one_kernel_is_said_to_be():
    report = compare(RMS, EmulateRunner(format="fp16"), [{"x": 20 * X["x"]}])
    assert report.verdict == "pass"
    assert not report.culprits
    assert mentions(report, "rests on its being one kernel", "square", "65504", "--emulate=fp16,decomposed")
    small = compare(RMS, EmulateRunner(format="fp16"), [X])
    assert not mentions(small, "one kernel")


@pytest.mark.parametrize("mode", [(0, 1), (1, 0)])
def test_training_mode_is_named(mode):
    def model(training):
        text = f"""g (float[6,8,4] x) => (float[6,8,4] y) {{
            [bn] y{", p, q" if training else ""} = BatchNormalization<training_mode={training}>(x, s, b, m, v) }}"""
        ones = np.ones(8, np.float32)
        return parsed(text, s=2 * ones, b=ones, m=0.5 * ones, v=3 * ones)

    one, other = map(model, mode)
    report = compare(one, other, [{"x": RNG.standard_normal((6, 8, 4)).astype(np.float32)}])
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("bn", "attribute")
    assert culprit.evidence.startswith(f"training_mode {mode[0]} against {mode[1]}")


INTEGERS = {
    "cumsum": ("c = CumSum(i, axis)", "f = Cast<to=1>(i) s = CumSum(f, axis) c = Cast<to=7>(s)", "FP32"),
    "quotient": (
        "c = Div(i, five)",
        "t = Div(i, five) q = Mul(t, five) l = Less(i, q) d = Cast<to=7>(l) c = Sub(t, d)",
        "down",
    ),
}


@pytest.mark.parametrize("reader", ["output", "read on"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_compared_and_never_heal(name, reader):
    good, bad, says = INTEGERS[name]
    values = {"axis": np.array(1), "five": np.array(5)}
    behind = "y = Identity(c)" if reader == "output" else "y = Add(c, c)"
    made = [
        parsed(
            f"g (int64[2,6] i) => (int64[2,6] y) {{ {text} {behind} }}",
            **{n: v for n, v in values.items() if n in text},
        )
        for text in (good, bad)
    ]
    data = [{"i": np.array([[1 << 24, 1, 1, 1, 1, 1], [-3, -7, 4, 0, -11, 2]])}]
    report = compare(*made, data)
    assert report.verdict == "fail"
    assert report.culprits, report.warnings
    if reader == "output":
        assert any(says in c.evidence for c in report.culprits), [c.evidence for c in report.culprits]


def test_a_mask_that_is_half_wrong_is_no_saturation():
    good = parsed("g (float[16] x) => (bool[16] y) { y = Less(x, one) }", one=np.float32(1e9))
    bad = parsed("g (float[16] x) => (bool[16] y) { y = Less(x, one) }", one=np.float32(0))
    report = compare(good, bad, [{"x": np.linspace(-1, 1, 16, dtype=np.float32)}])
    assert report.verdict == "fail"
    assert all(c.cause != "saturation" for c in report.culprits)
