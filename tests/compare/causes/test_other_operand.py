"""A node that is given something else than in the first file: which nodes make it, and what it is to be given."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

TEXT = "g (float[6,8] x) => (float[6,8] y) {{ [up] a = MatMul(x, w) [mean] m = ReduceMean<axes=[1]>(a) {} }}"
READ = {"w": normal(8, 8), "v": normal(8, 8, seed=1), "ends": np.array([7]), "to": np.array([8]), "axis": np.array([1])}
DATA = [{"x": normal(6, 8, seed=2)}]


def network(text: str) -> onnx.ModelProto:
    whole = TEXT.format(text)
    return parsed(whole, **{name: value for name, value in READ.items() if f", {name}" in whole})


FIRST = "[less] d = Sub(a, m) [act] t = Tanh(d) [down] p = MatMul(t, v) [more] y = Add(p, m)"


@pytest.mark.parametrize(
    ("second", "node", "evidence", "remedy"),
    [
        (
            "[less] d = Sub(a, m) [act] t = Tanh(d) [down] p = MatMul(t, v) [last] l = Slice(a, ends, to, axis) "
            "[more] y = Add(p, l)",
            "more",
            "Add more reads 'l' in the candidate, made by Slice last, which it alone has, in place of 'm' in the "
            "reference, and would be right with that",
            "let Add more read 'm' in the second file",
        ),
        (
            "[less] d = Sub(a, m) [act] t = Tanh(d) [down] p = MatMul(t, v) [more] s = Add(p, m) [again] y = Sub(s, m)",
            "more",
            "Sub again is in the candidate alone",
            "leave Sub again out of the second file",
        ),
    ],
)
def test_what_a_node_is_given_is_told_with_what_makes_it(second, node, evidence, remedy):
    culprit = only(compare(network(FIRST), network(second), DATA))
    assert (culprit.node, culprit.cause) == (node, "wrong-op")
    assert evidence in culprit.evidence
    assert [r.text for r in culprit.remedies] == [remedy]


STEPS = """g (float[5,4] e) => (float[1,4] y) {{
    [e0] s0 = Gather<axis=0>(e, i0) [e1] s1 = Gather<axis=0>(e, i1) [e2] s2 = Gather<axis=0>(e, i2)
    [t1] z1 = Tanh(s1) [a1] h1 = Add(s0, z1) [n1] k1 = Tanh(h1) [a2] h2 = Add(k1, {}) [n2] y = Sigmoid(h2) }}"""
PLACES = {f"i{n}": np.array([n]) for n in range(3)}


def test_a_tensor_that_nobody_makes_in_the_second_file_is_to_be_put_there():
    """A step that reads the one before: what it should read is no longer made."""
    first = parsed(STEPS.format("s2"), **PLACES)
    text = STEPS.format("s1").replace("[e2] s2 = Gather<axis=0>(e, i2)", "")
    second = parsed(text, **{name: value for name, value in PLACES.items() if name != "i2"})
    culprit = only(compare(first, second, [{"e": normal(5, 4)}]))
    assert culprit.node == "a2"
    assert "Add a2 reads 's1' in the candidate, in place of 's2' in the reference" in culprit.evidence
    assert [r.text for r in culprit.remedies] == [
        "put the first file's Gather e2 there, and let Add a2 read what comes of it"
    ]


LOOKUP = """g (int64[6,2] c) => (float[6,3] y) {{ [pick] k = Gather<axis=1>(c, second) {}
    [emb] e = Gather(table, {}) [last] y = MatMul(e, u) }}"""
TABLE = {"second": np.int64(1), "table": normal(9, 4, seed=3), "u": normal(4, 3, seed=4)}


def test_nodes_in_a_row_before_a_lookup_are_to_be_left_out():
    first = parsed(LOOKUP.format("", "k"), **TABLE)
    more = {"three": np.int64(3), "nine": np.int64(9)}
    second = parsed(LOOKUP.format("[plus] p = Add(k, three) [hash] h = Mod(p, nine)", "h"), **TABLE, **more)
    data = [{"c": np.array([[0, 3], [1, 1], [2, 4], [3, 1], [4, 5], [5, 8]])}]
    culprit = only(compare(first, second, data))
    assert "Add plus and Mod hash are in the candidate alone" in culprit.evidence
    assert [r.text for r in culprit.remedies] == ["leave Add plus and Mod hash out of the second file"]


def test_indices_inside_a_layer_are_known():
    """Lookups of columns of one tensor, none of which has a name in common."""
    text = """g (int64[6,2] c) => (float[6,3] y) {{
        [pick0] k{2} = Gather<axis=1>(c, first) {0} [emb0] e{2} = Gather(table, {1}{2})
        [pick1] l{2} = Gather<axis=1>(c, second) [emb1] f{2} = Gather(other, l{2})
        [sum] s{2} = Add(e{2}, f{2}) [last] y = MatMul(s{2}, u) }}"""
    given = {**TABLE, "first": np.int64(0), "other": normal(9, 4, seed=5)}
    more = {"three": np.int64(3), "nine": np.int64(9)}
    first = parsed(text.format("", "k", "_1"), **given)
    second = parsed(text.format("[plus] p = Add(k_2, three) [hash] h_2 = Mod(p, nine)", "h", "_2"), **given, **more)
    data = [{"c": np.array([[0, 3], [1, 1], [2, 4], [3, 1], [4, 5], [5, 8]])}]
    culprit = only(compare(first, second, data))
    assert [r.text for r in culprit.remedies] == ["leave Add plus and Mod hash out of the second file"]


def test_a_number_keeps_its_rank_when_it_is_put_in_place_of_another():
    """An index of one number, as the iterations of a loop are counted."""
    text = "g (int64 i) => (float[4] y) {{ {} [row] r = Gather(table, {}) [act] y = Tanh(r) }}"
    first = parsed(text.format("", "i"), table=TABLE["table"])
    rest = {"one": np.int64(1), "eight": np.int64(8)}
    second = parsed(text.format("[plus] p = Add(i, one) [most] q = Min(p, eight)", "q"), table=TABLE["table"], **rest)
    culprit = only(compare(first, second, [{"i": np.array(3)}]))
    assert [r.text for r in culprit.remedies] == ["leave Add plus and Min most out of the second file"]


def test_a_normalization_that_is_missing_behind_another_shape_is_told():
    text = """g (float[6,3] d, float[6,5,4] z) => (float[6,5,4] y) {{ {}
        [p] p = MatMul({}, w) [wide] u = Unsqueeze(p, axis) [more] y = Add(z, u) [other] o = MatMul(d, w) }}"""
    norm = "[norm] n = ReduceL2<axes=[1], keepdims=1>(d) [div] q = Div(d, n)"
    given = {"w": normal(3, 4), "axis": np.array([1])}
    first, second = parsed(text.format(norm, "q"), **given), parsed(text.format("", "d"), **given)
    culprit = only(compare(first, second, [{"d": normal(6, 3, seed=5), "z": normal(6, 5, 4, seed=6)}]))
    assert "Div div" in culprit.evidence
    assert "put the first file's" in culprit.remedies[0].text
    assert "Div div" in culprit.remedies[0].text


def test_a_tensor_that_is_read_twice_costs_no_layers():
    first = "[down] p = MatMul(a, v) [act] t = Tanh(a) [low] q = MatMul(t, v) [half] r = Mul(q, m) [more] y = Add(p, r)"
    second = "[down] p = MatMul(a, v) [more] y = Add(p, p)"
    report = compare(network(first), network(second), DATA)
    assert report.verdict == "fail"
    assert [culprit.cause for culprit in report.culprits] == ["wrong-op"]


def terms(*places: int) -> onnx.ModelProto:
    """A product and numbers looked up in tables, one for each of some places, added up one after the other."""
    read = " ".join(f"[i{i}] d{i} = Gather<axis=1>(c, p{i}) [g{i}] t{i} = Gather<axis=0>(e{i}, d{i})" for i in places)
    sums, last = "", f"t{places[0]}"
    for number, i in enumerate(places[1:], 1):
        sums, last = f"{sums} [a{number}] s{number} = Add({last}, t{i})", f"s{number}"
    text = f"[mm] f = MatMul(x, w) {read} {sums} [all] h = Add(f, {last}) [end] y = Sigmoid(h)"
    weights = {"w": normal(8, 8)} | {f"e{i}": normal(5, 1, seed=i) for i in places}
    weights |= {f"p{i}": np.array(i) for i in places}
    return parsed(f"g (float[6,8] x, int64[6,4] c) => (float[6,8] y) {{ {text} }}", **weights)


def test_a_term_that_the_second_file_lacks_is_to_be_put_there_where_names_have_moved():
    """The sum behind it has the name of its own there."""
    data = [{"x": normal(6, 8, seed=2), "c": np.random.default_rng(0).integers(0, 5, (6, 4))}]
    culprit = only(compare(terms(0, 1, 2, 3), terms(0, 1, 3), data))
    assert (culprit.node, culprit.cause) == ("a2", "wrong-op")
    assert culprit.evidence.startswith("Gather i2, Gather g2 and Add a2 are missing in the candidate")
    (remedy,) = culprit.remedies
    assert remedy.text == "put the first file's Gather i2, Gather g2 and Add a2 there before Add a2"
