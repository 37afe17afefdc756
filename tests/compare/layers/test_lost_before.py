"""A floor or an epsilon that is too small for a format: it is told with the tensors that are lost before it."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.causes import underflow
from layerdiff.compare.layers.lost_before import loses
from layerdiff.compare.report.model import Cause
from layerdiff.compare.statistics.portrait import distribution
from layerdiff.graph.formats import BF16, FP16
from layerdiff.graph.index import GraphIndex

from support.models import normal, parsed

PROBABILITIES = """g (float[N,32] x) => (float[N,8] y) {
    [fc] z = MatMul(x, w) [soft] p = Softmax(z) [add] e = Add(p, eps) [log] y = Log(e) }"""
POWERS = """g (float[N,32] x) => (float[N,8] y) {
    [power] p = Mul(x, x) [mel] m = MatMul(p, w) [floor] e = Max(m, eps) [log] y = Log(e) }"""

LOGITS = normal(32, 8)
BANDS = np.zeros((32, 8), np.float32)
BANDS[:8] = np.abs(normal(8, 8))


def compared(text, scale, fmt="fp16", rows=64, **weights):
    model = parsed(text, eps=np.full(1, 1e-9, np.float32), **weights)
    data = [{"x": normal(rows, 32) * np.float32(scale)}]
    return Comparator(model, [OnnxrtRunner(), EmulateRunner(format=fmt)], data_loader=data, layers="guilty").compare()


@pytest.mark.parametrize(
    ("text", "scale", "rows", "w", "node", "before"),
    [
        (PROBABILITIES, 0.8, 16, LOGITS, "add", ("soft",)),  # within its noise, and a Softmax costs most
        (PROBABILITIES, 1.0, 32, LOGITS, "add", ("soft",)),
        (POWERS, 3e-4, 16, BANDS, "floor", ("power", "mel")),
    ],
    ids=["probabilities, within noise", "probabilities", "powers"],
)
def test_a_constant_is_told_with_what_is_lost_before_it(text, scale, rows, w, node, before):
    report = compared(text, scale, rows=rows, w=w)
    (culprit,) = report.culprits
    assert (culprit.node, culprit.cause) == (node, Cause.UNDERFLOW)
    assert culprit.evidence.startswith("the constant 1e-09 is below FP16's smallest number")
    assert all(f"({name})" in culprit.evidence for name in before)
    assert culprit.remedies[0].keep == (*before, node)


def test_what_holds_the_values_has_no_such_culprit():
    assert not compared(PROBABILITIES, 1.0, "bf16", w=LOGITS).culprits


@pytest.mark.parametrize(
    ("values", "fmt", "lost"),
    [
        (np.full(64, 1e-6), FP16, True),
        (np.full(64, 1e-6), BF16, False),
        (np.tile([1e-6, -1e-6], 32), FP16, False),  # both signs
        (np.r_[1e-6, np.ones(999)], FP16, False),  # one of many
    ],
)
def test_what_a_format_loses_values_of(values, fmt, lost):
    array = values.astype(np.float32)
    assert loses(distribution(array, array), fmt) is lost


def test_a_constant_in_front_of_a_logarithm_is_told_by_what_it_is_added_to():
    index = GraphIndex(parsed(PROBABILITIES, eps=np.full(1, 1e-9, np.float32), w=LOGITS))
    found = underflow.of_epsilon(index, ["p"], FP16)
    assert (found.cause, found.node) == (Cause.UNDERFLOW, 2)
    assert underflow.of_epsilon(index, ["z"], FP16) is None
    assert underflow.of_epsilon(index, ["p"], BF16) is None
