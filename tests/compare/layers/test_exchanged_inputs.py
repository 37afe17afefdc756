"""What computes shapes, conditions and weights otherwise: inputs in another order, another index."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed

X = [{"x": normal(4, 6, 8), "c": np.arange(192).reshape(4, 6, 8) % 3 == 0}]
TWO = "g (float[4,6,8] x, bool[4,6,8] c) => (float[4,M,8] y) {{ [a] a = Sin(x) [b] b = Cos(x) {0} [y] y = Neg(m) }}"
SHAPES = """g (float[N,M,8] x, bool[N,M,8] c) => (float[K,L,8] y) {{
    [a] a = Sin(x) [s] s = Shape(a) [n] n = Gather(s, zero) [m] m = Gather(s, one) [joined] t = Concat<axis=0>({0})
    [shaped] r = Reshape(a, t) [y] y = Neg(r) }}"""
AXIS = SHAPES.replace("<axis=0>({0})", "<axis={0}>(n, m, rest)")
BRANCH = """g (float[4,6,8] x, bool[4,6,8] c, bool k) => (float[4,6,8] y) {{ [a] a = Sin(x) [b] b = Cos(x)
    [y] y = If(k) <then_branch = t () => (float[4,6,8] v) {{ {0} [v] v = Sub(o, p) }},
                   else_branch = f () => (float[4,6,8] u) {{ [u] u = Exp(a) }}> }}"""
PICKED = """g (float[4,6,8] x, bool[4,6,8] c) => (float[4,6,8] y) {{
    [a] a = Sin(x) [picked] g = Gather{0}(grid, zero) [r] r = Reshape(g, row) [y] y = Mul(a, r) }}"""
CONSTANTS = {"zero": np.array([0], np.int64), "one": np.array([1], np.int64), "rest": np.array([-1], np.int64)}
GRID = {"grid": normal(8, 8, seed=3), "row": np.array([8], np.int64)}


def networks(text: str, first: str, second: str, **weights: object) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return parsed(text.format(first), **weights), parsed(text.format(second), **weights)


@pytest.mark.parametrize(
    ("one", "other", "evidence"),
    [
        ("[m] m = Sub(a, b)", "[m] m = Sub(b, a)", "inputs A and B of Sub exchanged"),
        ("[m] m = Where(c, a, b)", "[m] m = Where(c, b, a)", "inputs X and Y of Where exchanged"),
        ("[m] m = Where(c, a, k)", "[m] m = Where(c, k, a)", "Where reads input X as input Y"),
    ],
)
def test_data_that_is_read_in_another_order(one: str, other: str, evidence: str) -> None:
    report = compare(*networks(TWO, one, other, k=np.float32(0.5)), X)
    culprit = only(report)
    assert report.verdict == "fail"
    assert (culprit.node, culprit.cause) == ("m", "wrong-op")
    assert culprit.evidence.startswith(evidence)
    assert "inputs in the first file's order" in culprit.remedies[0].text


@pytest.mark.parametrize(
    ("one", "other", "read", "instead"),
    [
        ("[m] m = Add(a, b)", "[m] m = Add(a, x)", "b", "x"),
        ("[m] m = Add(a, b)", "[m] m = Add(x, b)", "a", "x"),
        ("[p] p = Exp(a) [m] m = Sub(p, b)", "[p] p = Exp(a) [m] m = Sub(a, b)", "p", "a"),
    ],
)
def test_a_node_that_reads_another_tensor_names_both(one: str, other: str, read: str, instead: str) -> None:
    read_anyway = ", p" if "[p]" in one else ""  # else nothing depends on it in the second file
    text = TWO.replace("[y] y = Neg(m)", f"[q] q = Exp(a) [y] y = Sum(m, b, q, z{read_anyway})")
    text = text.replace("{0}", "{0} [z] z = Exp(m)")
    culprit = only(compare(*networks(text, one, other), X))
    assert (culprit.node, culprit.cause) == ("m", "wrong-op")
    op = one.split("m = ")[1].split("(")[0]
    assert culprit.evidence == (f"{op} reads the tensor '{instead}' in the candidate, and '{read}' in the reference")
    assert culprit.remedies[0].text == f"let m read '{read}' in the second file"


def test_all_readers_of_other_tensors_are_told_what_to_read() -> None:
    """The halves of a gated activation, exchanged: what is gated, and what gates."""
    text = """g (float[4,6,8] x) => (float[4,6,8] y) {{ [a] a = Sin(x) [b] b = Cos(x) [c] c = Exp(a) [k] k = Exp(b)
        [div] d = Div({0}, root) [erf] e = Erf(d) [plus] p = Add(e, root) [gelu] g = Mul({0}, p)
        [gated] m = Mul({1}, g) [y] y = Sum(m, c, k) }}"""
    good, bad = (parsed(text.format(*halves), root=np.float32(1.4)) for halves in ("ba", "ab"))
    culprit = only(compare(good, bad, [{"x": feed["x"]} for feed in X]))
    assert culprit.cause == "wrong-op"
    assert culprit.remedies[0].text == "let gated read 'a' and div and gelu read 'b' in the second file"


def test_two_tensors_that_two_nodes_exchange_are_no_other_layout() -> None:
    """Their values, sorted, are nearly alike: those of two projections of one tensor."""
    text = """g (float[4,64,64] x) => (float[4,64,64] y) {{ [a] a = MatMul(x, u) [b] b = MatMul(x, v)
        [p] p = Reshape({0}, flat) [q] q = Reshape({1}, flat) [s] s = Sigmoid(q)
        [m] m = Mul(p, s) [y] y = Reshape(m, deep) }}"""
    flat, deep = np.array([256, 64], np.int64), np.array([4, 64, 64], np.int64)
    weights = {"u": normal(64, 64, seed=1), "v": normal(64, 64, seed=2), "flat": flat, "deep": deep}
    mine, theirs = (parsed(text.format(*order), **weights) for order in ("ab", "ba"))
    culprit = only(compare(mine, theirs, [{"x": normal(4, 64, 64)}]))
    assert culprit.cause == "wrong-op"
    assert culprit.evidence == "Reshape reads the tensor 'b' in the candidate, and 'a' in the reference"
    assert culprit.remedies[0].text == "let p read 'a' and q read 'b' in the second file"


def test_nodes_that_read_one_tensor_for_another_are_one_fault() -> None:
    """Rows of two tensors, picked one by one."""
    picks = " ".join(f"[g{i}] g{i} = Gather<axis=0>({{0}}, i{i}) [f{i}] f{i} = Exp(g{i})" for i in range(3))
    text = f"""g (float[4,8] x) => (float[8] y) {{{{ [a] a = Tanh(x) [b] b = MatMul(a, w)
        [r] r = Gather<axis=0>({{1}}, i0) {picks} [s] s = Sum(f0, f1, f2) [y] y = Mul(s, r) }}}}"""
    given = {"w": normal(8, 8, seed=1), **{f"i{i}": np.int64(i) for i in range(3)}}
    mine, theirs = (parsed(text.format(*order), **given) for order in ("ab", "ba"))
    culprit = only(compare(mine, theirs, [{"x": normal(4, 8)}]))
    (remedy,) = culprit.remedies
    assert "r read 'b'" in remedy.text
    assert "g0, g1 and g2 read 'a'" in remedy.text


def test_a_shape_that_is_put_together_in_another_order() -> None:
    """Nobody sees the shape's numbers: the node that computes them is named, not the Reshape behind it."""
    report = compare(*networks(SHAPES, "n, m, rest", "m, n, rest", **CONSTANTS), X)
    culprit = only(report)
    assert report.verdict == "fail"
    assert (culprit.node, culprit.cause, culprit.deployed) == ("joined", "wrong-op", None)
    assert culprit.evidence.startswith(
        "inputs 0 and 1 of Concat exchanged; the reference gives 4x6x8, the candidate 6x4x8"
    )


@pytest.mark.parametrize(("one", "other"), [("g", "p"), ("p", "g")])
def test_weights_that_are_computed_of_operands_in_another_order(one: str, other: str) -> None:
    text = """g (float[4,6,8] x, bool[4,6,8] c) => (float[4,6,8] y) {{
        [d] d = Sub({0}) [w] w = Sin(d) [y] y = MatMul(x, w) }}"""
    order = {"g": "u, v", "p": "v, u"}
    weights = {"u": normal(8, 8, seed=1), "v": normal(8, 8, seed=2)}
    culprit = only(compare(*networks(text, order[one], order[other], **weights), X))
    assert (culprit.node, culprit.cause) == ("d", "wrong-op")
    assert culprit.evidence == "inputs A and B of Sub exchanged"


@pytest.mark.parametrize(
    ("change", "evidence"),
    [
        (("Gather(s, zero)", "Gather(s, one)"), "value 0 against 1; given the same"),
        (("Gather(s, zero)", "Gather<axis=-1>(s, zero)"), None),
        (("Equal(n, four)", "Equal(n, six)"), "value 4 against 6; given the same"),
    ],
)
def test_what_makes_the_condition_of_an_if_another_one(change: tuple[str, str], evidence: str | None) -> None:
    """The If takes another branch; the node that makes its condition is named."""
    text = """g (float[N,M,8] x, bool[N,M,8] c) => (float[N,M,8] y) {
        [a] a = Sin(x) [s] s = Shape(a) [n] n = Gather(s, zero) [e] e = Equal(n, four) [q] q = Squeeze(e)
        [y] y = If(q) <then_branch = t () => (float[N,M,8] v) { [v] v = Neg(a) },
                       else_branch = f () => (float[N,M,8] u) { [u] u = Exp(a) }> }"""
    weights = {**CONSTANTS, "four": np.array([4], np.int64), "six": np.array([6], np.int64)}
    report = compare(parsed(text, **weights), parsed(text.replace(*change), **weights), X)
    if evidence is None:
        assert report.verdict == "pass"
        assert not report.culprits
        return
    culprit = only(report)
    assert culprit.node == ("n" if "Gather" in change[0] else "e")
    assert (culprit.cause, culprit.evidence[: len(evidence)]) == ("weights", evidence)


@pytest.mark.parametrize(
    ("text", "one", "other"),
    [
        (TWO, "[m] m = Add(a, b)", "[m] m = Add(b, a)"),
        (TWO, "[m] m = Sub(a, a)", "[m] m = Sub(a, a)"),
        (TWO, "[m] m = Sub(a, b)", "[i] i = Identity(b) [m] m = Sub(a, i)"),
        (SHAPES, "n, n, rest", "n, n, rest"),
        (SHAPES, "n, m, rest", "n, m, rest"),
        (AXIS, "0", "-1"),
        (BRANCH, "[o] o = Neg(a) [p] p = Neg(b)", "[p] p = Neg(b) [o] o = Neg(a)"),
        (PICKED, "", "<axis=0>"),
    ],
)
def test_an_order_that_is_the_same_or_does_not_matter(text: str, one: str, other: str) -> None:
    sides = map(GraphIndex, networks(text, one, other, **CONSTANTS, **GRID))
    assert not match(*sides).differences


def test_a_concat_of_data_has_the_same_values_in_other_places() -> None:
    report = compare(*networks(TWO, "[m] m = Concat<axis=1>(a, b)", "[m] m = Concat<axis=1>(b, a)"), X)
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("m", "layout")
    assert culprit.evidence.startswith("inputs 0 and 1 of Concat exchanged; ")


def test_an_attribute_beside_constants_that_one_file_leaves_at_its_default() -> None:
    found = match(*map(GraphIndex, networks(PICKED, "", "<axis=1>", **CONSTANTS, **GRID))).differences
    assert [str(d.change) for d in found if d.name == "axis"] == ["axis 0 against 1"]


def test_stored_weights_of_a_quantized_file_are_those_of_the_product_that_reads_them() -> None:
    text = "g (float[2,4] x) => (float[2,4] y) { [d] w = DequantizeLinear(q, s) [m] y = MatMul(x, w) }"
    stored = [np.arange(16, dtype=np.int8).reshape(4, 4) + np.int8(more) for more in (0, 3)]
    sides = [GraphIndex(parsed(text, q=q, s=np.float32(0.1))) for q in stored]
    assert {sides[0].names[d.node] for d in match(*sides).differences} == {"m"}
