"""Nodes that the candidate has once for two of the reference, since both read the same there."""

from __future__ import annotations

from support.layerwise import compare, only
from support.models import normal, parsed

BLOCK = """g (float[4,16] x) => (float[4,16] y) {{
    [sq1] a = Mul(x, x) [m1] b = ReduceMean<axes=[-1]>(a) [rt1] c = Sqrt(b) [n1] n = Div(x, c) [g1] g = Mul(n, one)
    [at] t = MatMul(g, w) [res] s = Add(x, t) {0} [g2] h = Mul({1}, two) [mlp] k = MatMul(h, v)
    [last] y = Add(s, k) }}"""
OWN = "[sq2] d = Mul({0}, {0}) [m2] e = ReduceMean<axes=[-1]>(d) [rt2] f = Sqrt(e) [n2] o = Div({0}, f)"
WEIGHTS = {
    "one": normal(16, seed=1),
    "two": normal(16, seed=2),
    "w": normal(16, 16, seed=3),
    "v": normal(16, 16, seed=4),
}


def test_a_norm_that_reads_the_input_of_the_block_and_is_one_with_the_first_is_told_so():
    one = parsed(BLOCK.format(OWN.format("s"), "o"), **WEIGHTS)
    other = parsed(BLOCK.format("", "n"), **WEIGHTS)
    culprit = only(compare(one, other, [{"x": normal(4, 16, seed=5)}]))
    assert (culprit.node, culprit.cause) == ("n2", "wrong-op")
    assert "read the tensor 'x' in the candidate, and 's' in the reference" in culprit.evidence
    assert "compute Mul sq2 to Div n2 of 's' in the second file" in culprit.remedies[0].text


def test_two_that_read_the_same_may_be_one():
    one = parsed(BLOCK.format(OWN.format("x"), "o"), **WEIGHTS)
    other = parsed(BLOCK.format("", "n"), **WEIGHTS)
    report = compare(one, other, [{"x": normal(4, 16, seed=5)}])
    assert (report.outputs[0].verdict, report.culprits) == ("pass", ())
