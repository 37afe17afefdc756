"""One tensor of the second file that stands for several of the first, or that its layers read in place of another."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import normal, parsed

WEIGHTS = {"w": normal(8, 8, seed=1), "v": normal(8, 8, seed=2), "u": normal(8, 8, seed=3)}
WEIGHTS["zero"] = np.zeros(1, np.float32)
DATA = [{"x": normal(4, 8)}]
# a mask that each layer turns into booleans anew
TEXT = """g (float[4, 8] x) => (float[4, 8] y) {
  o = MatMul(x, u) t = Greater(o, zero) n = Not(t)
  c = Cast<to=9>(n) a = Where(c, zero, x) b = MatMul(a, w) r = Relu(b)
  d = Cast<to=9>(n) e = Where(d, zero, r) f = MatMul(e, v) s = Relu(f)
  h = Cast<to=9>(n) y = Where(h, zero, s)
}"""
ONCE = """g (float[4, 8] x) => (float[4, 8] y) {
  o = MatMul(x, u) t = Greater(o, zero) n = Not(t)
  a = Where(n, zero, x) b = MatMul(a, w) r = Relu(b) e = Where(n, zero, r) f = MatMul(e, v) s = Relu(f)
  y = Where(n, zero, s)
}"""
EXCHANGED = """g (float[4, 8] x) => (float[4, 8] y) {
  o = MatMul(x, u) t = Greater(o, zero)
  a = Where(t, x, zero) b = MatMul(a, w) r = Relu(b) e = Where(t, r, zero) f = MatMul(e, v) s = Relu(f)
  y = Where(t, s, zero)
}"""


@pytest.mark.parametrize("layers", ["guilty", "all"])
@pytest.mark.parametrize("text", [ONCE, EXCHANGED])
def test_the_layers_of_both_are_compared(text, layers):
    changed = {**WEIGHTS, "v": WEIGHTS["v"] * np.where(np.arange(8) == 1, 2, 1).astype(np.float32)}
    for weights, guilty in ((WEIGHTS, []), (changed, ["weights"])):
        candidate, runner = parsed(text, **weights), OnnxrtRunner(optimization="disable")
        report = Comparator(
            parsed(TEXT, **WEIGHTS),
            [runner],
            candidate_model=candidate,
            data_loader=DATA,
            layers=layers,
            memory=1 << 13,
        ).compare()
        assert len(report.layers) > 2
        assert [culprit.cause for culprit in report.culprits] == guilty
        assert {culprit.tensors[0] for culprit in report.culprits} <= {"f", "s"}
