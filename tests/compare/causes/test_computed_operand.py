"""Constants along nodes of one operator, which need not be the same nodes where one of the files has more of them."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

MISSING = {
    "gate": ("[gate] c = Sigmoid(b) [seven] d = Mul(c, seven)", "Sigmoid gate and Mul seven are"),
    "softcap": (
        "[down] c = Div(b, seven) [tanh] e = Tanh(c) [up] d = Mul(e, seven)",
        "Div down, Tanh tanh and Mul up are",
    ),
}
CONSTANTS = {"w": normal(8, 8), "v": normal(8, 4, seed=1), "three": np.array([3.0], np.float32)}


def chain(between: str, seven: float = 7.0):
    last = "d" if between else "b"
    text = f"""g (float[6,8] x) => (float[6,4] y) {{
        [first] a = MatMul(x, w) [three] b = Mul(a, three) {between} [last] y = MatMul({last}, v) }}"""
    return parsed(text, **CONSTANTS, **({"seven": np.array([seven], np.float32)} if between else {}))


@pytest.mark.parametrize("name", MISSING)
def test_missing_nodes_between_two_of_one_operator_are_no_wrong_constant(name):
    between, told = MISSING[name]
    culprit = only(compare(chain(between), chain(""), [{"x": normal(6, 8, seed=2)}]))
    assert culprit.cause == "wrong-op"
    assert culprit.evidence.startswith(f"{told} missing in the candidate")


@pytest.mark.parametrize("name", MISSING)
def test_inserted_nodes_between_two_of_one_operator_are_no_wrong_constant(name):
    between, told = MISSING[name]
    culprit = only(compare(chain(""), chain(between), [{"x": normal(6, 8, seed=2)}]))
    assert culprit.cause == "wrong-op"
    assert culprit.evidence.startswith(f"{told} in the candidate alone")


def test_a_constant_that_is_wrong_is_named():
    between, _ = MISSING["gate"]
    culprit = only(compare(chain(between), chain(between, 6.0), [{"x": normal(6, 8, seed=2)}]))
    assert (culprit.node, culprit.cause, culprit.evidence) == ("seven", "scale", "value 7 against 6")


def test_an_attribute_that_one_file_leaves_to_its_default_is_told_first_of_those_that_differ():
    """The greatest of all entries in place of that of each: without its axes, a reduction is over the batch too."""

    def loudest(attributes):
        return parsed(
            f"""g (float[3,4,5] x) => (float[3,4,5] y) {{ [log] l = Mul(x, k)
            [max] m = ReduceMax<{attributes}>(l) [less] f = Sub(m, k) [y] y = Max(l, f) }}""",
            k=np.float32(2),
            opset=17,
        )

    report = compare(loudest("axes = [1, 2]"), loudest("keepdims = 0"), [{"x": normal(3, 4, 5, seed=2)}])
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("max", "attribute")
    assert culprit.evidence == "axes [1, 2] against [0, 1, 2]; keepdims 1 against 0"
    assert culprit.remedies[0].text.startswith("set axes to [1, 2] and keepdims to 1, as in the first file")
