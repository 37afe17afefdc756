"""A healthy rewriting, whose tensors are others until both files come to the same values again, is no culprit beside a
fault somewhere else."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import normal, parsed

ATTENTION = """g (float[2,16,64] x) => (float[2,16,64] y) {{
    [up] h = MatMul(x, w) [q] q = MatMul(h, wq) [k] k = MatMul(h, wk) [turn] t = Transpose<perm=[0,2,1]>(k)
    [qk] s = MatMul(q, t) {scaled} [soft] p = Softmax({read}) [mix] m = MatMul(p, h) [down] y = MatMul(m, v)
}}"""
FIRST = ATTENTION.format(scaled="[scale] z = Mul(s, c)", read="z")
FOLDED = ATTENTION.format(scaled="", read="s")
C = np.float32(0.125)
WEIGHTS = {"w": normal(64, 64, seed=1) / 8, "wk": normal(64, 64, seed=2) / 8, "v": normal(64, 64, seed=3) / 8}
WQ = normal(64, 64, seed=4) / 8


@pytest.mark.parametrize(("fault", "guilty"), [(1.0, []), (1.01, ["up"])])
def test_a_folded_scale_is_no_culprit(fault, guilty):
    wrong = WEIGHTS["w"].copy()
    wrong[:, 5] *= np.float32(fault)
    first = parsed(FIRST, c=C, wq=WQ, **WEIGHTS)
    second = parsed(FOLDED, wq=WQ * C, **{**WEIGHTS, "w": wrong})
    report = Comparator(
        first, [OnnxrtRunner()], candidate_model=second, data_loader=[{"x": normal(2, 16, 64)}], layers="all"
    ).compare()
    assert report.verdict == ("fail" if guilty else "pass")
    assert [c.node for c in report.culprits] == guilty
