"""Conditions of an If that come out otherwise: who makes them is told, whatever is observed."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

DATA = [{"x": normal(4, 8, seed=2)}]
COUNTED = [{**DATA[0], "n": np.int64(3)}]


def branching(condition: str, inputs: str = "", **constants):
    """Two branches, and the nodes that make the condition ``c`` of the input or of the layer ``a``."""
    text = f"""g (float[4,8] x{inputs}) => (float[4,4] y) {{ [first] a = MatMul(x, w) {condition}
        [if] b = If(c)<then_branch = t () => (float[4,8] u) {{ u = Tanh(a) }},
                       else_branch = e () => (float[4,8] v) {{ v = Relu(a) }}> [last] y = MatMul(b, q) }}"""
    return parsed(text, w=normal(8, 8), q=normal(8, 4, seed=1), **constants)


@pytest.mark.parametrize("layers", ["guilty", "all"])
@pytest.mark.parametrize(
    ("condition", "inputs", "small", "large", "told"),
    [
        ("s = ReduceMax<keepdims = 0>(a) [made] c = Greater(s, k)", "", np.float32(0.5), np.float32(50),
         "value 0.5 against 50"),
        ("s = Shape(x) d = ReduceProd<keepdims = 0>(s) [made] c = Greater(d, k)", "", np.int64(1), np.int64(50),
         "value 1 against 50"),
        ("[made] c = Greater(n, k)", ", int64 n", np.int64(1), np.int64(50), "value 1 against 50"),
        ("one = Constant<value_float = 1.0>() [made] c = Greater(one, k)", "", np.float32(0.5), np.float32(50),
         "value True against False"),
    ],
    ids=["of the data", "of a shape", "of an input", "of constants"],
)  # fmt: skip
def test_who_makes_a_condition_of_another_constant_is_told(condition, inputs, small, large, told, layers):
    mine, theirs = (branching(condition, inputs, k=k) for k in (small, large))
    culprit = only(compare(mine, theirs, COUNTED if inputs else DATA, layers=layers))
    assert (culprit.node, culprit.cause) == ("made", "weights")
    assert culprit.evidence.startswith(told)
    assert "too: value" not in culprit.evidence


def test_a_threshold_that_is_filled_in_is_told_by_its_value():
    condition = "k = ConstantOfShape<value = float[1] {{{}}}>(none) s = ReduceMax<keepdims = 0>(a) c = Greater(s, k)"
    mine, theirs = (branching(condition.format(k), none=np.zeros(0, np.int64)) for k in ("0.5", "50.0"))
    culprit = only(compare(mine, theirs, DATA))
    assert (culprit.op, culprit.evidence) == ("ConstantOfShape", "value 0.5 against 50")
