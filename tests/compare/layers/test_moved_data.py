"""Nodes that move data: one file has more of them, or has them otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed
from support.rewrites import renamed

WEIGHTS = {"w": normal(8, 16), "v": normal(16, 4, seed=1)}
DATA = [{"x": normal(2, 6, 8, seed=2)}]
PLACES = {"last": np.array([-1]), "before": np.array([-(1 << 62)]), "second": np.array([1])}
FLIP = "[flip] b = Slice(a, last, before, second, last)"


def flipped(*steps: str, read: str = "a", behind: str = "MatMul"):
    text = f"""g (float[2,6,8] x) => (float[2,6,4] y) {{
        [first] a = {behind}(x, w) {" ".join(steps)} [second] y = MatMul({read}, v) }}"""
    return parsed(text, **WEIGHTS, **{n: v for n, v in PLACES.items() if steps})


@pytest.mark.parametrize("missing", [False, True], ids=["inserted", "missing"])
def test_a_flip_that_one_file_alone_has_is_told_as_a_node_and_not_as_a_layout(missing):
    pair = flipped(), flipped(FLIP, read="b")
    culprit = only(compare(*(pair[::-1] if missing else pair), DATA))
    assert (culprit.node, culprit.cause) == ("flip", "wrong-op")
    assert culprit.evidence.count("Slice flip") == 1
    if missing:
        assert culprit.remedies[0].text == "put the first file's Slice flip behind MatMul first in the second file"
    else:
        assert culprit.remedies[0].text == "leave Slice flip out of the second file"


HALVES = "[parts] p, q = Split<axis=2>(a) [turned] b = Concat<axis=2>(q, p)"


def test_halves_that_are_exchanged_are_told_by_the_operators_of_the_file():
    culprit = only(compare(flipped(), flipped(HALVES, read="b"), DATA))
    assert (culprit.node, culprit.cause) == ("turned", "layout")
    assert culprit.evidence.startswith(
        "Split parts and Concat turned are in the candidate alone; MatMul first before that"
    )
    assert culprit.remedies[0].text == "leave Split parts and Concat turned out of the second file"


WINDOW = """g (float[2,6,8] x) => (float[2,4,6] y) {{
    [first] a = MatMul(x, w) {roll}
    [parts] r = Reshape({read}, to) {keys} [act] y = Tanh(k) }}"""
ROLL = """[s0] p = Slice(a, two, end, second) [s1] q = Slice(a, zero, two, second) [c] b = Concat<axis=1>(p, q)"""
KEYS = {
    "apart": "[t0] t = Transpose<perm=[2,0,1,3]>(r) [g] g = Gather(t, one) [t1] k = Transpose<perm=[0,2,1]>(g)",
    "merged": "[g] g = Gather<axis=2>(r, one) [t1] k = Transpose<perm=[0,2,1]>(g)",
}


def window(roll: str, keys: str):
    places = {"two": np.array([2]), "zero": np.array([0]), "end": np.array([1 << 40]), "second": np.array([1])}
    text = WINDOW.format(roll=roll, keys=KEYS[keys], read="b" if roll else "a")
    constants = {"to": np.array([2, 6, 4, 4]), "one": np.array(1), **(places if roll else {})}
    return parsed(text, w=WEIGHTS["w"], **constants)


@pytest.mark.parametrize("turned", [False, True])
def test_transposes_that_an_optimizer_moves_past_a_gather_are_no_difference_beside_a_missing_roll(turned):
    keys = ("merged", "apart") if turned else ("apart", "merged")
    assert compare(window(ROLL, keys[0]), window(ROLL, keys[1]), DATA).verdict == "pass"
    culprit = only(compare(window(ROLL, keys[0]), window("", keys[1]), DATA))
    assert "perm" not in culprit.evidence
    assert (culprit.node, culprit.cause) == ("c", "wrong-op")
    assert "Slice s0, Slice s1 and Concat c" in culprit.remedies[0].text


def test_a_transpose_that_gives_another_shape_is_told_by_its_axes():
    def network(perm: str, name: str):
        text = f"""g (float[2,6,8] x) => (float[2,6,4] y) {{ [first] a = MatMul(x, w) [heads] h = Reshape(a, to)
            [{name}] {name} = Transpose<perm={perm}>(h) [flat] f = Reshape({name}, back) [second] y = MatMul(f, v) }}"""
        return parsed(text, **WEIGHTS, to=np.array([2, 6, 8, 2]), back=np.array([2, 6, 16]))

    files = network("[0,1,2,3]", "turn"), network("[0,1,3,2]", "other")
    assert [d.detail for d in match(*map(GraphIndex, files)).differences] == ["perm [0, 1, 2, 3] against [0, 1, 3, 2]"]
    culprit = only(compare(*files, DATA))
    assert (culprit.node, culprit.cause) == ("turn", "attribute")
    assert culprit.evidence.startswith("perm [0, 1, 2, 3] against [0, 1, 3, 2]")


def test_a_reshape_in_place_of_a_transpose_is_told_where_both_compute_otherwise_before_it():
    def network(gate: str, move: str):
        text = f"""g (float[2,6,8] x) => (float[2,16,4] y) {{ [first] a = MatMul(x, w) {gate} {move}
            [second] y = MatMul(m, v) }}"""
        to = {"to": np.array([2, 16, 6])} if "to" in move else {}
        return parsed(text, w=WEIGHTS["w"], v=normal(6, 4, seed=1), **to)

    one = "[relu] r = Relu(a) [again] s = Mul(r, r)", "[turn] m = Transpose<perm=[0,2,1]>(s)"
    other = "[both] b = Mul(a, a) [sign] z = Relu(a) [some] s = Mul(z, a)", "[shape] m = Reshape(s, to)"
    culprit = only(compare(network(*one), network(*other), DATA))
    assert (culprit.node, culprit.cause) == ("turn", "layout")
    assert culprit.evidence.startswith("Transpose turn against Reshape shape")


# -- one fault in several places

ATTENTION = """g (float[2,6,8] x) => (float[2,6,8] y) {{
    [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv)
    [qh] q1 = Reshape(q, heads) [kh] k1 = Reshape(k, heads) [vh] v1 = Reshape(v, heads)
    [qt] q2 = Transpose<perm=[0,2,1,3]>(q1) [kt] k2 = Transpose<perm=[0,2,3,1]>(k1)
    [vt] v2 = Transpose<perm=[0,2,1,3]>(v1) [qs] q3 = Mul(q2, scale)
    [s] s = MatMul(q3, k2) [p] p = Softmax(s) [o] o1 = MatMul(p, v2)
    [ot] o2 = Transpose<perm=[0,2,1,3]>(o1) [flat] y = Reshape(o2, whole) }}"""


def attention(heads: int, *, scale: float | None = None):
    size = 8 // heads
    weights = {f"w{name}": normal(8, 8, seed=n) for n, name in enumerate("qkv")}
    shapes = {"heads": np.array([2, 6, heads, size]), "whole": np.array([2, 6, 8])}
    return parsed(ATTENTION.format(), **weights, **shapes, scale=np.array([scale or size**-0.5], np.float32))


def test_another_number_of_heads_is_one_fault_with_the_scale_that_follows_from_it():
    culprit = only(compare(attention(2), attention(4), DATA))
    assert (culprit.node, culprit.cause) == ("qh", "attribute")
    assert "the same at Reshape kh, Reshape vh" in culprit.evidence
    assert "2 heads of size 4 in the reference, 4 of size 2 in the candidate" in culprit.evidence
    assert "0.5 against 0.707107 at Mul qs goes with it: 4^-0.5 and 2^-0.5" in culprit.evidence
    assert culprit.remedies[0].text == (
        "set output shape to [2, 6, 2, 4] at qh, kh and vh, and the factor of Mul qs to 0.5, as in the first file, or "
        "export the model again"
    )


FUSED = """g (float[2,6,8] x) => (float[2,6,8] y) {
    [all] a = MatMul(x, w) [split] q, k, v = Split<axis=-1,num_outputs=3>(a)
    [qh] q1 = Reshape(q, heads) [kh] k1 = Reshape(k, heads) [vh] v1 = Reshape(v, heads)
    [qt] q2 = Transpose<perm=[0,2,1,3]>(q1) [kt] k2 = Transpose<perm=[0,2,1,3]>(k1)
    [vt] v2 = Transpose<perm=[0,2,1,3]>(v1) [s] s = com.microsoft.FusedMatMul<alpha=ALPHA,transB=1>(q2, k2)
    [p] p = Softmax(s) [o] o1 = MatMul(p, v2) [ot] o2 = Transpose<perm=[0,2,1,3]>(o1) [flat] y = Reshape(o2, whole) }"""


@pytest.mark.parametrize("alter", [lambda proto: proto, renamed], ids=["names", "other names"])
def test_another_number_of_heads_is_told_where_other_operators_compute_the_attention(alter):
    weights = [normal(8, 8, seed=n) for n, name in enumerate("qkv")]
    shapes = {"heads": np.array([2, 6, 4, 2]), "whole": np.array([2, 6, 8])}
    text = FUSED.replace("ALPHA", str(2**-0.5))
    fused = parsed(text, opset=18, domains=["com.microsoft"], w=np.concatenate(weights, axis=1), **shapes)
    culprit = only(compare(attention(2), alter(fused), DATA))
    assert culprit.evidence.startswith("2 heads of size 4 in the reference, 4 of size 2 in the candidate")
    assert culprit.remedies[0].text == "compute with 2 heads of size 4 in the second file, as the first one does"


def test_a_scale_that_does_not_follow_from_the_heads_is_a_fault_of_its_own():
    report = compare(attention(2), attention(4, scale=0.9), DATA)
    assert {"qh", "qs"} <= {culprit.node for culprit in report.culprits}


REPEATED = """g (float[2,6,8] x) => (float[2,4,6,4] y, float[2,4,6,4] z) {
    [k] k = MatMul(x, w) [kh] k1 = Reshape(k, heads) [kt] k2 = Transpose<perm=[0,2,1,3]>(k1)
    [ku] k3 = Unsqueeze(k2, axis) [ke] k4 = Expand(k3, more) [kr] k5 = Reshape(k4, whole) [ky] y = Tanh(k5)
    [v] v = MatMul(x, u) [vh] v1 = Reshape(v, heads) [vt] v2 = Transpose<perm=[0,2,1,3]>(v1)
    [vu] v3 = Unsqueeze(v2, axis) [ve] v4 = Expand(v3, more) [vr] v5 = Reshape(v4, whole) [vy] z = Tanh(v5) }"""


def repeated(axis: int, more: list[int]):
    shapes = {"heads": [2, 6, 2, 4], "axis": [axis], "more": more, "whole": [2, 4, 6, 4]}
    arrays = {name: np.array(value) for name, value in shapes.items()}
    return parsed(REPEATED, w=normal(8, 8), u=normal(8, 8, seed=1), **arrays)


def test_heads_that_are_tiled_in_place_of_repeated_are_one_fault():
    culprit = only(compare(repeated(2, [2, 2, 2, 6, 4]), repeated(1, [2, 2, 2, 6, 4]), DATA))
    assert (culprit.node, culprit.cause) == ("ku", "attribute")
    assert culprit.evidence.startswith("axes [2] against [1]")
    assert "the same at Unsqueeze vu" in culprit.evidence


# -- what is joined, and in which order

ROTARY = """g (float[2,6,8] x) => (float[2,6,8] y) {{ [first] a = MatMul(x, w)
    [low] l = Slice(a, zero, four, last) [high] h = Slice(a, four, end, last)
    [neg] n = Neg({0}) [join] j = Concat<axis=2>({1}) [second] y = MatMul(j, v) }}"""


def rotary(negated: str, joined: str):
    places = {"zero": np.array([0]), "four": np.array([4]), "end": np.array([8]), "last": np.array([2])}
    return parsed(ROTARY.format(negated, joined), w=normal(8, 8), v=normal(8, 8, seed=1), **places)


def test_the_other_half_that_is_negated_is_one_fault_with_the_order_in_which_both_are_joined():
    culprit = only(compare(rotary("h", "n, l"), rotary("l", "h, n"), DATA))
    assert (culprit.node, culprit.cause) == ("neg", "wrong-op")
    assert culprit.remedies[0].text == (
        "let neg read 'h' in the second file, and let Concat join read 'n' and 'l' in the second file, in this order"
    )


def test_a_constant_that_is_joined_on_the_other_side_is_exchanged_with_what_it_is_joined_to():
    def network(order: str):
        text = f"""g (float[2,6,8] x) => (float[2,7,4] y) {{ [first] a = MatMul(x, w)
            [join] j = Concat<axis=1>({order}) [second] y = MatMul(j, v) }}"""
        return parsed(text, **WEIGHTS, token=normal(2, 1, 16, seed=3))

    culprit = only(compare(network("token, a"), network("a, token"), DATA))
    assert culprit.evidence.startswith("inputs 0 and 1 of Concat exchanged")


COLUMNS = """g (float[6,3] c) => (float[6,4] y) {{ {0} [join] j = Concat<axis=1>(p0, p1, p2)
    [last] y = MatMul(j, v) }}"""


def columns(order: tuple[int, ...], called: tuple[str, ...]):
    steps = " ".join(
        f"[{name}] {name} = Gather<axis=1>(c, i{at}) [l{at}] p{at} = MatMul({name}, w{at})"
        for at, name in zip(order, called, strict=True)
    )
    constants = {f"i{at}": np.array([at]) for at in order} | {f"w{at}": normal(1, 6, seed=at) for at in order}
    return parsed(COLUMNS.format(steps), v=normal(18, 4, seed=9), **constants)


def test_names_that_are_counted_anew_do_not_match_columns():
    names = "g", "g_1", "g_2"
    files = columns((0, 1, 2), names), columns((2, 0, 1), names)
    assert not match(*map(GraphIndex, files)).differences


GROUPS = """g (float[2,12,4,4] x) => (float[2,12,4,4] y) {
    [in] a = Relu(x) [split] b = Reshape(a, groups) [norm] c = InstanceNormalization(b, scale, bias)
    [back] d = Reshape(c, whole) [weight] e = Mul(d, weights) [out] y = Tanh(e) }"""


@pytest.mark.parametrize("other", [4, 2])
def test_another_number_of_groups_is_told_as_that_with_all_that_is_to_be_set(other):
    def network(groups: int):
        ones = {"scale": np.ones(groups, np.float32), "bias": np.zeros(groups, np.float32)}
        shapes = {"groups": np.array([0, groups, -1]), "whole": np.array([2, 12, 4, 4])}
        return parsed(GROUPS, weights=normal(12, 1, 1, seed=4), **ones, **shapes)

    culprit = only(compare(network(3), network(other), [{"x": normal(2, 12, 4, 4, seed=5)}]))
    assert (culprit.node, culprit.cause) == ("split", "attribute")
    assert culprit.evidence.startswith(f"GroupNorm with 3 groups against {other}, by output shape [2, 3, 64] against [")
    assert culprit.remedies[0].text == (
        "normalize in 3 groups in the second file: set output shape of split to [2, 3, 64], and give "
        "InstanceNormalization norm the first file's scale and bias, which have a value for each group"
    )
