"""A node that reads another tensor than in the first file: inside of If, Loop and Scan, or another part."""

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
    [dead] dead = Tan(x) [big] c = Greater(m, zero) [used] q = Add(a, b)
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
        (BRANCH, "e, a", "e, dead", "v", "Mul"),  # which nothing reads in the first file
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


SPLIT = """g (float[4,24] x) => (float[4,8] y) {{ [split] p, q, r = Split<axis=1>(x, parts) [sin] s = Sin({0})
    [used] u = Sum({2}) [score] t = Mul(s, u) [ctx] v = Mul({1}, t) [y] y = Neg(v) }}"""
LSTM = """g (float[5,4,24] x) => (float[4,8] y, float[1,4,8] n) {{ [lstm] a, h, c = LSTM<hidden_size=8>(x, wx, wh)
    [left] s = Squeeze({0}, zero) [n] n = Exp({1}) [y] y = Tanh(s) }}"""
TOPK = """g (float[4,24] x) => (float[4,3] y) {{ [top] v, i = TopK<axis=1>(x, three) [g] g = Cast<to=1>(i)
    [neg] s = Neg({0}) [y] y = Add(g, s) }}"""
OUTPUT = """g (float[4,24] x) => (float[4,8] mu, float[4,8] y) {{ [split] {0} = Split<axis=1>(x, parts)
    [used] u = Sum(z, w) [y] y = Exp(u) }}"""
COPIED = """g (float[4,24] x) => (float[4,8] mu, float[4,8] y) {{ [split] p, q, r = Split<axis=1>(x, parts)
    [copy] mu = Identity({0}) [y] y = Sum(p, q, r) }}"""
PARTS = {
    "parts": np.array([8, 8, 8], np.int64),
    "zero": np.array([0], np.int64),
    "three": np.array([3], np.int64),
    "wx": normal(1, 32, 24, seed=1) / 4,
    "wh": normal(1, 32, 8, seed=2) / 4,
}


@pytest.mark.parametrize(
    ("text", "read", "instead", "told"),
    [
        (SPLIT, ("p", "q", "r, q"), ("p", "r", "r, q"), {"ctx": ("r", "q")}),
        (SPLIT, ("p", "q", "p, q"), ("p", "r", "p, q"), {"ctx": ("r", "q")}),  # which nobody else reads
        (SPLIT, ("p", "q", "p, r"), ("p", "r", "p, r"), {"ctx": ("r", "q")}),
        (LSTM, ("h", "c"), ("c", "c"), {"left": ("c", "h")}),
        (LSTM, ("h", "h"), ("h", "c"), {"n": ("c", "h")}),
        (TOPK, ("v",), ("g",), {"neg": ("g", "v")}),
    ],
)
def test_another_output_of_a_node_is_the_fault_of_its_reader(text, read, instead, told):
    one, other = (parsed(text.format(*names), **PARTS) for names in (read, instead))
    data = normal(5, 4, 24) if text is LSTM else normal(4, 24)
    report = compare(one, other, [{"x": data}])
    assert {culprit.node: culprit.cause for culprit in report.culprits} == dict.fromkeys(told, "wrong-op")
    for culprit in report.culprits:
        theirs, mine = told[culprit.node]
        assert f"reads the tensor '{theirs}' in the candidate, and '{mine}' in the reference" in culprit.evidence
        assert culprit.remedies[0].text == f"let {culprit.node} read '{mine}' in the second file"


def test_two_parts_that_their_readers_exchange():
    text = SPLIT.replace("[score] t = Mul(s, u)", "[score] t = Sigmoid(u)").replace("Mul({1}, t)", "Sum({1}, t, s)")
    one, other = (parsed(text.format(*names, "p, q, r"), **PARTS) for names in ("pr", "rp"))
    culprits = compare(one, other, [{"x": normal(4, 24)}]).culprits
    told = " ".join(culprit.remedies[0].text for culprit in culprits)
    assert {culprit.cause for culprit in culprits} == {"wrong-op"}
    assert "split" not in {culprit.node for culprit in culprits}
    assert ("sin read 'p'" in told, "ctx read 'r'" in told) == (True, True)


@pytest.mark.parametrize(
    ("text", "read", "instead", "mine", "theirs"),
    [(OUTPUT, "mu, z, w", "z, mu, w", 0, 1), (COPIED, "p", "q", 0, 1), (COPIED, "q", "r", 1, 2)],
)
def test_an_output_that_is_another_part(text, read, instead, mine, theirs):
    one, other = (parsed(text.format(names), **PARTS) for names in (read, instead))
    report = compare(one, other, [{"x": normal(4, 24)}])
    (culprit,) = (c for c in report.culprits if "mu" in c.tensors)
    assert culprit.cause == "wrong-op"
    wired = f"the output 'mu' is output {theirs} of Split split in the candidate, and output {mine} of Split split"
    assert culprit.evidence == f"{wired} in the reference"
    assert culprit.remedies[0].text == f"let the output 'mu' be output {mine} of Split split in the second file"


def test_parts_in_another_order_of_weights_in_that_order_are_no_fault():
    text = """g (float[4,24] x) => (float[4,8] y) {{ [mm] a = MatMul(x, u)
        [split] p, q, r = Split<axis=1>(a, parts) {0} }}"""
    reading = "[s] s = Sin({0}) [m] m = Mul({1}, s) [y] y = Sub(m, {2})"
    weights = np.split(normal(24, 24, seed=3), 3, 1)
    sides = [
        parsed(text.format(reading.format(*names)), u=np.concatenate([weights[i] for i in order], 1), **PARTS)
        for names, order in (("pqr", (0, 1, 2)), ("qrp", (2, 0, 1)))
    ]
    report = compare(*sides, [{"x": normal(4, 24)}])
    assert (report.verdict, report.culprits) == ("pass", ())


def test_columns_that_are_picked_are_told_apart_by_which_they_are_and_not_by_names():
    def tables(*columns, names):
        picked = " ".join(f"[{names[c]}] {names[c]} = Gather<axis = 1>(c, i{c})" for c in range(3))
        looked = " ".join(f"[look{t}] t{t} = Gather(e{t}, {names[c]})" for t, c in enumerate(columns))
        text = f"g (int64[5,3] c) => (float[5,12] y) {{ {picked} {looked} [y] y = Concat<axis = 1>(t0, t1, t2) }}"
        return parsed(
            text, **{f"e{t}": normal(9, 4, seed=t) for t in range(3)}, **{f"i{c}": np.int64(c) for c in range(3)}
        )

    data = [{"c": np.arange(15).reshape(5, 3) % 9}]
    same = compare(tables(0, 1, 2, names="pqr"), tables(0, 1, 2, names="qrp"), data)
    assert (same.verdict, same.culprits) == ("pass", ())
    culprit = only(compare(tables(0, 1, 2, names="pqr"), tables(1, 0, 2, names="qrp"), data))
    assert (culprit.node, culprit.cause) == ("look0", "wrong-op")
    assert culprit.remedies[0].text == "let look0 read 'q' and look1 read 'r' in the second file"
