"""docs/polygraphy.md says what passes with Polygraphy 0.53.6 and not here: each of it is run."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner, UsageError
from layerdiff.compare.cli.command import main

TWO = "g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) { y = Relu(x) z = Exp(x) }"
ONE = "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"
LARGE = "g (float[N, 4] x) => (float[N, 4] y) <float k = {1000}> { r = Relu(x) y = Mul(r, k) }"
CLIPPED = "g (float[N, 4] x) => (float[N, 4] y) <float least = {0}, float most = {5}> { y = Clip(x, least, most) }"
GOOD = np.ones((1, 4), np.float32)


def compared(onnx_file, one, other, data=(GOOD,)):
    paths = onnx_file(one, "one.onnx"), onnx_file(other, "other.onnx")
    samples = [{"x": sample} for sample in data]
    return Comparator(paths[0], [OnnxrtRunner()], candidate_model=paths[1], data_loader=samples).compare()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--onnxrt"], "nothing to be compared with"),
        (["--onnxrt", "--onnxrt", "--samples", "0"], "1 or more"),
    ],
)
def test_what_compares_nothing_is_refused(words, message, onnx_file, capsys):
    assert main([str(onnx_file(ONE)), *words]) == 2
    assert message in capsys.readouterr().err


def test_no_data_are_refused(onnx_file):
    with pytest.raises(UsageError, match="no sample"):
        compared(onnx_file, ONE, ONE, ())


def test_a_missing_output_fails(onnx_file):
    report = compared(onnx_file, TWO, ONE)
    assert report.verdict == "fail"
    assert {o.tensor: o.verdict for o in report.outputs} == {"y": "pass", "z": "missing"}


def test_an_output_that_is_a_thousand_times_too_large_fails(onnx_file):
    report = compared(onnx_file, ONE, LARGE)
    assert report.outputs[0].metrics["cosine"] == pytest.approx(1)
    assert report.verdict == "fail"


def test_one_bad_sample_of_a_hundred_fails(onnx_file):
    data = [GOOD] * 40 + [GOOD * 9] + [GOOD] * 59
    report = compared(onnx_file, ONE, CLIPPED, data)
    assert (report.verdict, report.outputs[0].worst_sample) == ("fail", 40)
