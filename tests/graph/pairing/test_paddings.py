"""A Pad and the operator behind it, where the other file's operator pads itself."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

OWN = {
    "Conv": "Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a, w)",
    "MaxPool": "MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(a)",
    "AveragePool": "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(a)",
}
BARE = {
    "Conv": "Conv<kernel_shape = [3, 3]>(p, w)",
    "MaxPool": "MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(p)",
    "AveragePool": "AveragePool<kernel_shape = [3, 3]>(p)",
    "both": "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(p)",
}
DATA = [{"x": normal(2, 4, 8, 8, seed=2)}]


def network(window: str, pads=None, value=0.0, first="LeakyRelu"):
    pad = "" if pads is None else "[pad] p = Pad(a, pads, value)"
    text = f"""g (float[2, 4, 8, 8] x) => (float[2, 4, N, M] y) {{
        [first] a = {first}(x) {pad} [window] b = {window} [last] y = Tanh(b) }}"""
    read = {} if pads is None else {"pads": np.array(pads), "value": np.array(value, np.float32)}
    return parsed(text, **read, **({"w": normal(4, 4, 3, 3)} if ", w)" in text else {}))


EVEN, UNEVEN = [0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 2, 2]


@pytest.mark.parametrize(
    ("op", "pads", "value", "name", "values"),
    [
        ("Conv", UNEVEN, 0.0, "pads", ("[1, 1, 1, 1]", "[0, 0, 2, 2]")),
        ("Conv", EVEN, 1.0, "value of the padding", ("0", "1")),
        ("MaxPool", EVEN, 0.0, "value of the padding", ("-inf", "0")),
        ("AveragePool", UNEVEN, 0.0, "pads", ("[1, 1, 1, 1]", "[0, 0, 2, 2]")),
    ],
)
def test_a_pad_is_read_with_the_operator_behind_it(op, pads, value, name, values):
    culprit = only(compare(network(OWN[op]), network(BARE[op], pads, value), DATA))
    assert (culprit.node, culprit.cause) == ("window", "attribute")
    assert f"pad and window together: {name} {' against '.join(values)}" in culprit.evidence
    assert culprit.remedies[0].text == f"set the {name} of pad and window together to {values[0]}"


@pytest.mark.parametrize(
    ("op", "value", "first"),
    [("Conv", 0.0, "Tanh"), ("MaxPool", -np.inf, "Tanh"), ("MaxPool", 0.0, "Relu"), ("AveragePool", 0.0, "Tanh")],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_pad_that_does_what_the_operator_would_is_no_fault(op, value, first, turned):
    pair = network(OWN[op], first=first), network(BARE[op], EVEN, value, first)
    report = compare(*(pair[::-1] if turned else pair), DATA)
    assert (report.verdict, report.culprits) == ("pass", ())


def test_pads_of_both_files_are_compared_as_pads():
    culprit = only(compare(network(BARE["Conv"], EVEN), network(BARE["Conv"], UNEVEN), DATA))
    assert (culprit.node, culprit.cause) == ("pad", "attribute")


def test_a_pad_before_an_operator_that_pads_itself_is_one_too_many():
    culprit = only(compare(network(OWN["AveragePool"]), network(BARE["both"], EVEN), DATA))
    assert (culprit.node, culprit.cause) == ("pad", "wrong-op")
    assert culprit.remedies[0].text == "leave Pad pad out of the second file"


def test_a_pad_is_read_with_the_convolution_behind_it_where_both_files_have_another_pad():
    def beside(window, pads=None):
        pad = "" if pads is None else "[pad] p = Pad(a, pads)"
        text = f"""g (float[2, 4, 8, 8] x) => (float[2, 4, N, M] y) {{
            [other] o = Pad<mode = "reflect">(x, others) [first] a = Tanh(o) {pad} [window] b = {window}
            [last] y = Tanh(b) }}"""
        read = {} if pads is None else {"pads": np.array(pads)}
        return parsed(text, w=normal(4, 4, 3, 3), others=np.array(EVEN), **read)

    strided = [call.replace("kernel_shape", "strides = [2, 2], kernel_shape") for call in (OWN["Conv"], BARE["Conv"])]
    report = compare(beside(strided[0]), beside(strided[1], [0, 0, 0, 0, 0, 0, 1, 1]), DATA)
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("window", "attribute")
    assert culprit.evidence == "pad and window together: pads [1, 1, 1, 1] against [0, 0, 1, 1]"
    assert culprit.remedies[0].text == "set the pads of pad and window together to [1, 1, 1, 1]"


@pytest.mark.parametrize("turned", [False, True])
def test_a_fault_behind_a_pad_that_one_file_alone_has_is_told_where_another_pad_stays_in_both(turned):
    def gated(halves, window, pad="", **weights):
        text = f"""g (float[2, 8, H, W] x) => (float[2, 4, N, M] y) {{
            [other] o = Pad<mode = "reflect">(x, others) [first] c = Conv<kernel_shape = [1, 1]>(o, v) {halves}
            [gate] t = Sigmoid(h) [product] a = Mul(g, t) {pad} [window] b = {window} [last] y = Mul(b, scale) }}"""
        scale = np.array(weights.pop("scale"), np.float32)
        return parsed(
            text, v=normal(8, 8, 1, 1, seed=1), w=normal(4, 4, 3, 3), scale=scale, others=np.array(EVEN), **weights
        )

    sliced = "[left] g = Slice(c, zero, four, one) [right] h = Slice(c, four, eight, one)"
    bounds = {name: np.array([value]) for name, value in (("zero", 0), ("one", 1), ("four", 4), ("eight", 8))}
    pads = {"pads": np.array(EVEN)}
    pair = [
        gated(sliced, BARE["Conv"], "[pad] p = Pad(a, pads)", scale=1.0, **pads, **bounds),
        gated("[halves] g, h = Split<axis = 1>(c, sizes)", OWN["Conv"], scale=1.1, sizes=np.array([4, 4])),
    ]
    report = compare(*(pair[::-1] if turned else pair), [{"x": normal(2, 8, 8, 8, seed=2)}])
    assert (only(report).node, only(report).cause) == ("last", "scale")


@pytest.mark.parametrize("turned", [False, True])
def test_what_a_pad_of_sizes_that_are_computed_makes_is_no_tensor_of_the_other_file(turned):
    def gated(pad, window, **read):
        text = f"""g (float[2, 8, 8] x) => (float[2, 4, N] y) {{
            [first] l, r = Split<axis = 1>(x) [gate] g = Sigmoid(r) [product] a = Mul(l, g) {pad}
            [window] b = {window} [last] y = Tanh(b) }}"""
        return parsed(text, w=normal(4, 1, 3), **read)

    edge = """[zeros] z = ConstantOfShape(sizes) [shape] s = Shape(z) [less] e = Sub(s, s) [two] t = Slice(e, zero, two)
        [put] c = Concat<axis = 0>(t, one) [both] pads = Concat<axis = 0>(c, c) [pad] p = Pad<mode = "edge">(a, pads)"""
    numbers = {"sizes": np.array([1, 1, 2]), **{n: np.array([i]) for i, n in enumerate(("zero", "one", "two"))}}
    pair = [
        gated("", "Conv<kernel_shape = [3], pads = [1, 1], group = 4>(a, w)"),
        gated(edge, "Conv<kernel_shape = [3], group = 4>(p, w)", **numbers),
    ]
    culprit = only(compare(*(pair[::-1] if turned else pair), [{"x": normal(2, 8, 8, seed=2)}]))
    assert (culprit.node, culprit.cause) == ("window", "attribute")
    assert "gives" not in culprit.evidence
