"""A sum is what it adds up, in whatever order."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.matching import match

from support.models import normal, parsed

WEIGHTS = {"w": normal(8, 8, seed=1), "v": normal(8, 8, seed=2), "u": normal(8, 8, seed=3), "bias": normal(8, seed=4)}


def told(first: str, second: str) -> list[str]:
    models = [
        parsed(
            f"""g (float[4, 8] x) => (float[4, 8] y) {{
            [a] a = MatMul(x, w) [b] b = MatMul(x, v) [c] c = MatMul(x, u) {steps} [end] y = Relu(s) }}""",
            **{name: np.asarray(value) for name, value in WEIGHTS.items()},
        )
        for steps in (first, second)
    ]
    return [str(d.change) for d in match(*(GraphIndex(model) for model in models)).differences]


BIASED = "[one] t = Add(b, bias) [two] s = Add(a, t)"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BIASED, "[one] t = Add(a, bias) [two] s = Add(t, b)"),
        ("[one] t = Add(a, b) [two] s = Add(t, c)", "[one] t = Add(c, b) [two] s = Add(a, t)"),
    ],
)
def test_another_order_is_no_difference(first, second):
    assert told(first, second) == []
    assert told(second, first) == []


def test_another_term_is_one_difference():
    assert told(BIASED, "[one] t = Add(a, bias) [two] s = Add(t, c) [kept] k = Relu(b)") == [
        "Add reads the tensor 'c' in the candidate, and 'b' in the reference"
    ]
