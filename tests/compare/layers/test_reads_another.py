"""A node that reads another tensor than in the first file: inside of If, Loop and Scan."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

LOOP = """g (float[4,8] x) => (float[4,8] y) {{
    [loop] h = Loop(count, yes, x) <body = body (int64 i, bool go, float[4,8] s) => (bool on, float[4,8] next) {{
        [on] on = Identity(go) [new] n = Tanh(s) [gate] z = Sigmoid(s) [gated] v = Mul({0}, s) [used] u = Exp(z)
        [sum] w = Add(v, u) [next] next = Sin(w) }}> [y] y = Neg(h) }}"""
SCAN = """g (float[4,8] x) => (float[8] h, float[4,8] y) {{ [start] s0 = ReduceSum<keepdims=0>(x, first)
    [scan] h, y = Scan(s0, x) <num_scan_inputs = 1, body = body (float[8] s, float[8] r) => (float[8] t, float[8] o) {{
        [dt] d = Sigmoid(r) [du] du = Mul(d, r) [tanh] th = Tanh(s) [state] t = Add(th, {0})
        [emit] e = Exp(du) [out] o = Mul(e, d) }}> }}"""
BRANCH = """g (float[4,8] x) => (float[4,8] y) {{ [a] a = Sin(x) [b] b = Cos(x) [m] m = ReduceMax<keepdims=0>(x)
    [big] c = Greater(m, zero) [used] q = Add(a, b)
    [if] r = If(c) <then_branch = t () => (float[4,8] v) {{ [e] e = Exp(a) [s] s = Sigmoid(e) [v] v = Mul({0}) }},
                    else_branch = f () => (float[4,8] u) {{ [u] u = Neg(b) }}>
    [y] y = Add(r, q) }}"""
NESTED = """g (float[4,8] x) => (float[4,8] y) {{
    [loop] y = Loop(count, yes, x) <body = body (int64 i, bool go, float[4,8] h) => (bool on, float[4,8] k) {{
        [on] on = Identity(go) [a] a = Sin(h) [m] m = ReduceMax<keepdims=0>(h) [big] c = Greater(m, zero)
        [if] k = If(c) <then_branch = t () => (float[4,8] v) {{ [p] p = Tanh(a) [v] v = Add(p, {0}) }},
                        else_branch = f () => (float[4,8] u) {{ [u] u = Neg(a) }}> }}> }}"""
GIVEN = {"count": np.int64(3), "yes": np.bool_(True), "zero": np.float32(0), "first": np.array([0], np.int64)}


@pytest.mark.parametrize(
    ("text", "read", "instead", "node", "op"),
    [
        (LOOP, "z", "n", "gated", "Mul"),
        (SCAN, "du", "r", "state", "Add"),
        (BRANCH, "s, e", "e, e", "v", "Mul"),  # nothing reads s there
        (BRANCH, "s, a", "s, b", "v", "Mul"),
        (BRANCH, "e, a", "e, x", "v", "Mul"),  # which the branch of the first file does not read
        (NESTED, "h", "a", "v", "Add"),  # the branch of the second file does not read h
    ],
)
def test_inside_of_control_flow_both_tensors_and_the_reader_are_named(text, read, instead, node, op):
    report = compare(parsed(text.format(read), **GIVEN), parsed(text.format(instead), **GIVEN), [{"x": normal(4, 8)}])
    culprit = only(report)
    (mine, theirs), *_ = [p for p in zip(read.split(", "), instead.split(", "), strict=True) if p[0] != p[1]]
    assert (culprit.node, culprit.cause) == (node, "wrong-op")
    told = f"{op} reads the tensor '{theirs}' in the candidate, and '{mine}' in the reference"
    assert culprit.evidence.startswith(told)
    assert culprit.remedies[0].text == f"let {node} read '{mine}' in the second file"
    assert not [notice for notice in report.notices if "Unexpected" in notice.text]
