"""What a culprit is told to be, and what puts it right, where a nearby cause would mislead."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed


def networks(text: str, mine: str, theirs: str, **constants: object):
    return (parsed(text.format(change), **constants) for change in (mine, theirs))


def test_a_factor_from_an_iteration_on_is_no_inverted_condition():
    text = """g (float[4,8] x) => (float[4,8] y) {{
        [loop] y = Loop(count, yes, x) <body = body (int64 i, bool go, float[4,8] h) => (bool on, float[4,8] k) {{
            [on] on = Identity(go) [fc] m = MatMul(h, w) [sum] s = Add(m, x) {0} }}> }}"""
    late = "[late] c = Greater(i, three) [fac] f = Where(c, more, one) [mul] t = Mul(s, f) [tanh] k = Tanh(t)"
    given = {"count": np.int64(6), "yes": np.bool_(True), "three": np.int64(3), "w": normal(8, 8) / 4}
    sides = networks(text, "[tanh] k = Tanh(s)", late, more=np.float32(1.02), one=np.float32(1), **given)
    report = compare(*sides, [{"x": normal(4, 8)}])
    assert report.culprits
    assert not any("inverted" in culprit.evidence for culprit in report.culprits)


@pytest.mark.parametrize(
    ("one", "other", "cause", "remedy"),
    [
        ("ReverseSequence<batch_axis=1, time_axis=0>(x, lengths)", "Slice(x, last, first, zero, back)", "wrong-op",
         "put the first file's ReverseSequence moved there"),
        ("Transpose<perm=[1,0]>(x)", "Reshape(x, turned)", "layout",
         "put the axes of what moved makes in the first file's order"),
    ],
)  # fmt: skip
def test_axes_are_said_to_be_exchanged_where_they_are(one, other, cause, remedy):
    rows = 6 if "Reverse" in one else 4
    text = f"g (float[6,4] x) => (float[{rows},{10 - rows}] y) {{{{ [moved] m = {{0}} [y] y = Neg(m) }}}}"
    given = {name: np.array([value], np.int64) for name, value in
             {"last": -1, "first": -100, "zero": 0, "back": -1}.items()}  # fmt: skip
    given |= {"lengths": np.array([6, 3, 4, 5], np.int64), "turned": np.array([4, 6], np.int64)}
    culprit = only(compare(*networks(text, one, other, **given), [{"x": normal(6, 4)}]))
    assert (culprit.node, culprit.cause, culprit.remedies[0].text) == ("moved", cause, remedy)
    assert "the same values in other places" in culprit.evidence


@pytest.mark.parametrize("raised", [True, False])
def test_an_attribute_that_means_another_thing_in_another_opset(raised):
    text = "g (float[4,3,5] x) => (float[4,3,5] y) { [soft] s = Softmax<axis=1>(x) [y] y = Neg(s) }"
    old, new = (parsed(text, opset=opset) for opset in (11, 17))
    culprit = only(compare(*((old, new) if raised else (new, old)), [{"x": normal(4, 3, 5)}]))
    assert (culprit.node, culprit.cause) == ("soft", "attribute")
    told = "flatten axis 1 and all after it into one before soft" if raised else "write the second file in opset 13"
    assert culprit.remedies[0].text.startswith(told)


def test_places_that_a_pooling_counts_column_by_column():
    text = """g (float[1,2,8,8] x) => (int64[1,2,4,4] y) {{
        [pool] p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]{0}>(x) [y] y = Neg(i) }}"""
    report = compare(*networks(text, "", ", storage_order=1"), [{"x": normal(1, 2, 8, 8)}])
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("pool", "attribute")
    assert culprit.evidence.startswith("storage_order 0 against 1")


def test_places_that_nobody_asks_for_may_be_counted_otherwise():
    text = """g (float[1,2,8,8] x) => (float[1,2,4,4] y) {{
        [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]{0}>(x) [y] y = Neg(p) }}"""
    report = compare(*networks(text, "", ", storage_order=1"), [{"x": normal(1, 2, 8, 8)}])
    assert (report.verdict, report.culprits) == ("pass", ())


def test_a_fault_beside_nan_on_both_sides_shows_in_the_outputs_as_deployed():
    text = "g (float[4,8] x) => (float[4,8] y) {{ [fc] m = MatMul(x, w) [add] a = Add(m, {0}) [y] y = Tanh(a) }}"
    data = normal(4, 8)
    data[1, 2] = np.nan
    sides = networks(text, "b", "c", w=normal(8, 8), b=normal(8, seed=1), c=-normal(8, seed=1))
    report = compare(*sides, [{"x": data}], nan_equal=True)
    culprit = only(report)
    assert (culprit.node, culprit.cause, culprit.deployed) == ("add", "weights", None)
    assert report.fidelity[0].share == pytest.approx(1)


def test_infinity_in_place_of_the_lowest_number_says_nothing_of_a_format():
    text = "g (float[4,8] x, bool[4,8] m) => (float[4,8] y) {{ [mask] k = Where(m, x, {0}) [y] y = Softmax(k) }}"
    sides = networks(text, "low", "none", low=np.float32(-3.4028235e38), none=np.float32(-np.inf))
    mask = np.arange(32).reshape(4, 8) > 7
    culprit = only(compare(*sides, [{"x": normal(4, 8), "m": mask}]))
    assert (culprit.node, culprit.cause) == ("mask", "weights")
    assert "FP16" not in culprit.evidence


def test_two_readers_of_exchanged_tensors_are_both_put_right():
    text = """g (float[4,8] a, float[4,8] b) => (float[4,8] y) {{ [one] p = MatMul({0}, w) [tanh] q = Tanh(p)
        [two] r = MatMul({1}, w) [sig] s = Sigmoid(r) [y] y = Sub(q, s) }}"""
    sides = (parsed(text.format(*names), w=normal(8, 8)) for names in ("ab", "ba"))
    report = compare(*sides, [{"a": normal(4, 8, seed=1), "b": normal(4, 8, seed=2)}])
    assert report.culprits
    for culprit in report.culprits:
        assert "one read 'a'" in culprit.remedies[0].text
        assert "two read 'b'" in culprit.remedies[0].text


@pytest.mark.parametrize(
    "other", ["[s] s = Sigmoid(h) [m] a = Mul(h, s)", "k = Mul(h, c) s = Sigmoid(k) a = Mul(h, s)"]
)
def test_another_activation_is_no_scale(other):
    text = "g (float[8,16] x) => (float[8,16] y) {{ [fc] h = MatMul(x, w) {} [last] y = MatMul(a, v) }}"
    own = "[div] d = Div(h, root) [erf] e = Erf(d) [add] f = Add(e, one) [mul] m = Mul(h, f) [half] a = Mul(m, half)"
    given = {"w": normal(16, 16, seed=1), "v": normal(16, 16, seed=2), "root": np.float32(2**0.5)}
    given |= {"one": np.float32(1), "half": np.float32(0.5), "c": np.float32(1.702)}
    culprit = only(compare(*networks(text, own, other, **given), [{"x": normal(8, 16) / 2}]))
    assert culprit.cause == "wrong-op"
    assert "Erf" in culprit.evidence
    assert " x reference" not in culprit.evidence


def test_steps_of_a_slice_are_no_difference_where_its_places_are_computed_in_one_file():
    text = "g (float[N,8,4] x) => (float[N,4,4] y) {{ {0} [cut] y = Slice(x, {1}, four, axis{2}) }}"
    numbers = {"four": np.array([4]), "axis": np.array([1]), "one": np.array([1]), "zero": np.array([0])}
    shape = "[shape] h = Shape(x) [size] a = Gather(h, zero) [none] n = Sub(a, a)"
    sides = (shape, "n", ""), ("", "zero", ""), ("", "zero", ", one")
    computed, stored, given = (GraphIndex(parsed(text.format(*side), **numbers)) for side in sides)
    for pair in ((computed, stored), (given, computed), (stored, given)):
        assert match(*pair).differences == ()


def test_the_node_of_the_second_file_that_differs_is_named_where_it_has_another_name():
    text = "g (float[6,8] x) => (float[6,8] y) {{ [first] a = MatMul(x, w) [{1}] b = {0}(a) [last] y = MatMul(b, w) }}"
    for name, told in (("two", "Sin one against Sinh two"), ("one", "Sin against Sinh")):
        pair = [parsed(text.format(*each), w=normal(8, 8)) for each in (("Sin", "one"), ("Sinh", name))]
        culprit = only(compare(*pair, [{"x": normal(6, 8) / 4}]))
        assert (culprit.node, culprit.cause, culprit.evidence.split(";")[0]) == ("one", "wrong-op", told)


def test_an_attribute_that_differs_at_several_nodes_of_a_layer_is_put_right_at_all_of_them():
    text = """g (float[2,8,8] x) => (float[2,8,8] y) {{ [first] h = MatMul(x, w) [mean] m = ReduceMean<axes = [{0}]>(h)
        [centred] c = Sub(h, m) [square] q = Mul(c, c) [variance] v = ReduceMean<axes = [{0}]>(q)
        [safe] e = Add(v, tiny) [root] r = Sqrt(e) [unit] y = Div(c, r) }}"""
    sides = networks(text, "-1", "-2", w=normal(8, 8), tiny=np.float32(1e-5))
    culprit = only(compare(*sides, [{"x": normal(2, 8, 8)}]))
    assert "ReduceMean variance too: axes [2] against [1]" in culprit.evidence
    assert culprit.remedies[0].text.startswith("set axes to [2] at mean and variance, as in the first file")


def test_what_moves_values_in_the_candidate_alone_is_named():
    text = """g (float[6,4] x) => (float[6,4] y) {{ [first] a = MatMul(x, w) [by] m = Mul(a, k) {0}
        [last] y = Add({1}, c) }}"""
    back = {"last": np.array([-1]), "first": np.array([-100]), "axis": np.array([1])}
    read = {"w": normal(4, 4), "k": np.float32(0.3), "c": normal(6, 4, seed=3)}
    reference = parsed(text.format("", "m"), **read)
    candidate = parsed(text.format("[flip] f = Slice(m, last, first, axis, last)", "f"), **read, **back)
    culprit = only(compare(reference, candidate, [{"x": normal(6, 4)}]))
    assert culprit.cause == "wrong-op"
    assert culprit.evidence.startswith("Slice flip is in the candidate alone")
    assert culprit.remedies[0].text == "leave Slice flip out of the second file"
