"""How settings are told that are long lists, have another name in another opset, or are places counted from the end."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.pairing.changes import AttributeChange, OperatorChange
from layerdiff.graph.pairing.matching import match
from layerdiff.graph.pairing.pairs import Pairing
from layerdiff.graph.pairing.regions import Region, region_difference

from support.layerwise import compare, only
from support.models import normal, parsed


def differences(one, other) -> list[str]:
    return [d.detail for d in match(load(one).index, load(other).index).differences]


def test_of_long_lists_the_first_values_that_differ_are_told_with_their_place():
    mine = [float(i) for i in range(100)]
    change = AttributeChange("nodes_values", mine, [*mine[:40], 7.5, *mine[41:90], 3.0, *mine[91:]])
    assert str(change) == "nodes_values differs in 2 of 100 values, first at [40]: 40 against 7.5"
    assert str(AttributeChange("nodes_values", mine, mine[:30])) == "nodes_values of 100 values against 30"
    assert str(AttributeChange("pads", [0, 1], [1, 1])) == "pads [0, 1] against [1, 1]"


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_a_mode_that_another_opset_calls_otherwise_is_the_same(mode):
    text = "g (float[1,2,6,6] x, float[1,4,4,2] at) => (float[1,2,4,4] y) {{ [gs] s = GridSample<mode={}>(x, at)"
    text += " y = Tanh(s) }}"
    new, old = (parsed(text.format(f'"{m}"'), opset=o) for m, o in ((mode, 20), (f"bi{mode}", 16)))
    assert differences(new, old) == []


@pytest.mark.parametrize(("ends", "theirs"), [(2**63 - 1, 6), (-2, 4), (100, 6)])
def test_places_of_a_slice_are_the_same_counted_from_either_end(ends, theirs):
    text = "g (float[3,6] x) => (float[3,N] y) { [cut] s = Slice(x, starts, ends, axes) y = Tanh(s) }"
    place = {"starts": np.array([1]), "axes": np.array([1])}
    one, other = (parsed(text, ends=np.array([end], np.int64), **place) for end in (ends, theirs))
    assert differences(one, other) == []


def test_other_places_of_a_slice_are_called_what_they_are():
    text = "g (float[3,N] x) => (float[3,M] y) { [cut] s = Slice(x, starts, ends, axes) y = Tanh(s) }"
    place = {"ends": np.array([2**63 - 1]), "axes": np.array([1])}
    one, other = (parsed(text, starts=np.array([start], np.int64), **place) for start in (-4, -3))
    assert differences(one, other) == ["starts [-4] against [-3]"]


@pytest.mark.parametrize("other_mode", ["reflect", "edge"])
def test_a_convolution_that_pads_with_zeros_in_place_of_another_padding_is_told_so(other_mode):
    text = "g (float[1,2,8,8] x) => (float[1,3,8,8] y) {{ {} y = Tanh(c) }}"
    own = f'[pad] p = Pad<mode="{other_mode}">(x, pads) [conv] c = Conv(p, w)'
    weights = {"w": normal(3, 2, 3, 3, seed=1), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    one, other = (parsed(text.format(t), **weights) for t in (own, "[conv] c = Conv<pads=[1,1,1,1]>(x, w)"))
    culprit = only(compare(one, other, [{"x": normal(1, 2, 8, 8)}]))
    assert (culprit.node, culprit.cause) == ("conv", "attribute")
    assert culprit.evidence == f"padding {other_mode} by the Pad pad against zeros"


def test_a_constant_of_a_node_of_its_own_is_told_where_the_first_file_has_one_for_two():
    text = """g (float[6,4] c, float[6,4] w) => (float[6,4] lo, float[6,4] hi) {{ [half] h = Mul(w, half) {0}
        [lo] lo = Sub(c, h) [hi] hi = Add(c, {1}) }}"""
    one = parsed(text.format("", "h"), half=np.float32(0.5))
    other = parsed(text.format("[own] k = Mul(w, whole)", "k"), half=np.float32(0.5), whole=np.float32(1))
    culprit = only(compare(one, other, [{"c": normal(6, 4, seed=1), "w": normal(6, 4, seed=2)}], layers="all"))
    assert (culprit.node, culprit.evidence) == ("hi", "Mul own: constant 0.5 against 1")
    assert culprit.remedies[0].text == "set the constant of Mul own to 0.5"
    same = parsed(text.format("[own] k = Mul(w, whole)", "k"), half=np.float32(0.5), whole=np.float32(0.5))
    assert differences(one, same) == []


UP = "g (float[1,2,6,6] x) => (float[1,2,12,12] y) { [conv] c = Conv(x, w) [up] u = "
OLD = UP + 'Upsample<mode="nearest">(c, s) [last] y = Conv(u, w) }'
NEW = """Resize<mode="nearest", nearest_mode="floor", coordinate_transformation_mode="{}">(c, , s)
    [last] y = Conv(u, w) }}"""


def upsampled(mode: str):
    read = {"w": normal(2, 2, 1, 1, seed=3), "s": np.float32([1, 1, 2, 2])}
    old = parsed(OLD.replace("nearest", mode), opset=9, **read)
    return old, lambda way: parsed(
        (UP.replace("{", "{{") + NEW).replace('"nearest"', f'"{mode}"').format(way), opset=13, **read
    )


def test_coordinates_of_a_resize_are_held_against_those_of_an_upsample():
    old, new = upsampled("linear")
    data = [{"x": normal(1, 2, 6, 6, seed=4)}]
    culprit = only(compare(old, new("half_pixel"), data))
    assert (culprit.node, culprit.cause) == ("up", "attribute")
    assert culprit.evidence == "coordinate_transformation_mode asymmetric against half_pixel"
    report = compare(old, new("asymmetric"), data)
    assert (report.outputs[0].verdict, report.culprits) == ("pass", ())
    assert not any("unknown" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("step", "theirs", "told"),
    [
        ("Unsqueeze(x, [1])", "Unsqueeze(x, [2])", ["axes [1] against [2]"]),
        ("Unsqueeze(x, [1])", "Unsqueeze(x, [-3])", []),
        ("Unsqueeze(x, [0])", "Unsqueeze(x, [1])", []),
        ("Reshape(x, [0, -1])", "Reshape(x, [1, 24])", []),
        ("Reshape(x, [6, 4])", "Reshape(x, [4, 6])", ["output shape [6, 4] against [4, 6]"]),
    ],
)
def test_operators_that_give_another_shape_are_compared_in_what_they_are_told_and_what_comes_of_it(step, theirs, told):
    def network(text):
        op, values = text.split("(x, ")
        to = np.array([int(value) for value in values.strip("[])").split(",")])
        return parsed(f"g (float[1,4,6] x) => (float[N] y) {{ r = {op}(x, to) [same] y = Tanh(r) }}", to=to)

    assert differences(network(step), network(theirs)) == told


def test_a_target_that_both_have_is_no_difference_where_what_is_reshaped_is_one():
    def network(width: int):
        text = "g (float[2,12] x) => (float[N] y) { [first] a = MatMul(x, w) [flat] r = Reshape(a, to) y = Tanh(r) }"
        return parsed(text, w=normal(12, width), to=np.array([0, 2, -1]))

    told = differences(network(8), network(6))
    assert not any("output shape" in text for text in told)


def test_weights_that_are_exchanged_and_rounded_are_told_as_each_others():
    def network(scale, bias):
        text = "g (float[1,16,4,4] x) => (float[1,16,4,4] y) { [norm] n = InstanceNormalization(x, s, b) y = Tanh(n) }"
        return parsed(text, s=scale, b=bias)

    scale, bias = normal(16, seed=1), normal(16, seed=2)
    rounded = [value.astype(np.float16).astype(np.float32) for value in (scale, bias)]
    told = differences(network(scale, bias), network(*rounded[::-1]))
    assert [text.rpartition("; ")[2] for text in told] == [
        "equal to the reference's scale",
        "equal to the reference's b",
    ]


def test_of_what_both_files_begin_and_end_with_between_two_tensors_only_the_rest_is_told():
    text = """g (float[6,8] x) => (float[6,8] y) {{ [lift] b = Add(x, c) [one] d = {0} [by] e = Mul(d, k)
        [last] y = Tanh(e) }}"""
    read = {"c": normal(8, seed=3), "k": normal(8, seed=4)}
    mine, theirs = (load(parsed(text.format(op), **read)).index for op in ("Sqrt(b)", "Abs(b)"))
    pairing, nodes = Pairing(mine, theirs), (0, 1, 2)
    for first in (0, 1):
        outputs = (("e", "e"),) if first else (("d", "d"), ("e", "e"))
        region = Region(nodes, nodes, outputs)
        difference = region_difference(pairing, {"x": "x", "y": "y"}, region)
        assert difference is not None
        assert difference.detail == "Sqrt against Abs"


def test_a_node_that_is_written_apart_is_told_once():
    found = OperatorChange((("MatMul", "down"), ("MatMul", "up"), ("Mul", "up"), ("Add", "sum")), ())
    assert str(found) == "MatMul down, MatMul+Mul up and Add sum are missing in the candidate"
