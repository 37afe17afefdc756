"""What a graph computes from constants and shapes alone: sizes are exact, weights may be made of integers."""

from __future__ import annotations

import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from onnx import numpy_helper

from support.models import normal, parsed
from support.quantized import quantized

# positions for as many patches as come, which are the square of a size: 49 are 7 by 7
PATCHES = """g (float[1, PATCHES, 8] x) => (float[1, PATCHES, 8] y) {
  s = Shape(x) one = Constant<value = int64[1] {1}>() n = Gather(s, one) f = Cast<to=1>(n)
  r = Sqrt(f) i = Cast<to=7>(r) e = Constant<value = int64[1] {8}>() b = Constant<value = int64[1] {1}>()
  grid = Concat<axis=0>(b, e, i, i) p = Reshape(table, grid) flat = Concat<axis=0>(b, e, n) q = Reshape(p, flat)
  t = Transpose<perm=[0, 2, 1]>(q) h = MatMul(x, w) y = Add(h, t)
}"""


@pytest.mark.parametrize("size", [5, 7, 11])
def test_the_root_of_a_size_is_not_rounded(size):
    table = normal(8, size * size, seed=3)
    model = parsed(PATCHES.replace("PATCHES", str(size * size)), w=normal(8, 8, seed=1), table=table)
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    report = Comparator(model, runners, data_loader=[{"x": normal(1, size * size, 8)}], layers="all").compare()
    assert report.verdict == "pass"
    assert not report.culprits
    assert not [notice.text for notice in report.notices if "noise" in notice.text]


def test_a_table_that_is_computed_of_integers_errs_by_what_8_bits_make():
    weights = {"c": normal(12, 16, seed=1), "w": normal(16, 8, seed=2), "v": normal(8, 8, seed=3)}
    text = "g (float[4, 12] x) => (float[4, 8] y) { t = MatMul(c, w) h = MatMul(x, t) y = MatMul(h, v) }"
    model, data = parsed(text, **weights), [{"x": normal(4, 12, seed=4)}]
    file = quantized(model, "dynamic", data)
    assert "MatMulInteger" in {node.op_type for node in file.graph.node}
    report = Comparator(model, [OnnxrtRunner()], candidate_model=file, data_loader=data, layers="guilty").compare()
    assert not report.culprits
    scale = next(w for w in file.graph.initializer if w.name == "w_scale")
    scale.CopyFrom(numpy_helper.from_array(1.3 * numpy_helper.to_array(scale), scale.name))
    report = Comparator(model, [OnnxrtRunner()], candidate_model=file, data_loader=data, layers="guilty").compare()
    assert report.culprits


def test_a_step_for_one_number_leaves_a_constant_its_rank():
    """A table that is gathered from another one has its step, and not its rank."""
    weights = {"tables": normal(2, 1, 6, 8, seed=1), "w": normal(8, 8, seed=2)}
    text = """g (float[1, 6, 8] x) => (float[1, 6, 8] y) {
      first = Constant<value = int64 {0}>() t = Gather(tables, first) a = Add(x, t) y = MatMul(a, w) }"""
    model, data = parsed(text, **weights), [{"x": normal(1, 6, 8, seed=3)}]
    file = quantized(model, "qdq", data)
    report = Comparator(model, [OnnxrtRunner()], candidate_model=file, data_loader=data, layers="all").compare()
    assert not report.culprits
