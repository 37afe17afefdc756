"""A node that reads one tensor twice, where its counterpart reads two."""

from __future__ import annotations

import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.changes import ReadTwice
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = {"w": normal(8, 8, seed=1) / 3, "u": normal(8, 8, seed=2) / 3, "v": normal(8, 8, seed=3) / 3}
DATA = [{"x": normal(4, 8, seed=50)}]
HEAD = "g (float[4,8] x) => (float[4,{n}] y) "
BLOCK = "[one] a = MatMul(x, w) [act] b = Tanh(a) [side] c = MatMul(b, u) [gate] d = Sigmoid(c) "
END = "[join] e = {} [end] y = Relu(e)"
LONE = "[one] a = MatMul(x, w) [act] b = Tanh(a) "


def network(text: str, n: int = 8):
    return parsed(HEAD.format(n=n) + f"{{ {text} }}", **{k: v for k, v in WEIGHTS.items() if f", {k})" in text})


@pytest.mark.parametrize(
    ("op", "n"), [("Add(b, {})", 8), ("Mul(b, {})", 8), ("Add({}, b)", 8), ("Concat <axis = 1> (b, {})", 16)]
)
@pytest.mark.parametrize("dead", [False, True])
def test_what_it_is_to_read_beside_is_told(op: str, n: int, dead: bool) -> None:
    whole = network(BLOCK + END.format(op.format("d")), n)
    wrong = network((BLOCK if dead else LONE) + END.format(op.format("b")), n)
    culprit = only(compare(whole, wrong, DATA))
    assert (culprit.node, culprit.cause) == ("join", "wrong-op")
    assert "reads the tensor 'b' twice in the candidate, and 'd' beside it in the reference" in culprit.evidence
    assert "MatMul side and Sigmoid gate, which make that" in culprit.evidence
    made = "the first file's operators from MatMul side to Sigmoid gate make"
    text = f"let {op.replace('<', '(').split('(')[0].strip()} join read what {made}, in place of one 'b'"
    assert culprit.remedies[0].text == text


def test_what_a_simplifier_computes_once_for_two_is_no_fault() -> None:
    twice = network("[one] a = MatMul(x, w) [two] b = Tanh(a) [too] c = Tanh(a) [join] e = Add(b, c) [end] y = Relu(e)")
    once = network("[one] a = MatMul(x, w) [two] b = Tanh(a) [join] e = Add(b, b) [end] y = Relu(e)")
    for files in ((twice, once), (once, twice)):
        assert not any(isinstance(d.change, ReadTwice) for d in match(*map(GraphIndex, files)).differences)
        assert compare(*files, DATA).verdict == "pass"
