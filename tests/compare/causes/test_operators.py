"""Other operators than the reference's."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import operators

from support.layer_cases import layer_case, told
from support.models import parsed

Y = np.ones(4, np.float32)


def graph(body: str):
    return parsed(f"g (float[4] x) => (float[4] y) {{ {body} }}")


@pytest.mark.parametrize(
    ("mine", "theirs", "text"),
    [
        ("y = Relu(x)", "y = Tanh(x)", "Relu Relu_0 against Tanh Tanh_0"),
        ("y = Relu(x)", "a = Relu(x) y = Tanh(a)", "Tanh Tanh_1 is in the candidate alone"),
        ("a = Relu(x) y = Tanh(a)", "y = Relu(x)", "Tanh Tanh_1 is missing in the candidate"),
    ],
)
def test_what_is_missing_and_what_is_more(mine, theirs, text):
    found = operators.find(layer_case(Y, 2 * Y, model=graph(mine), candidate=graph(theirs)))
    assert found.cause == "wrong-op"
    assert told(found) == (f"{text}; greatest difference 1 at [0]: 1 in the reference, 2 in the candidate")


@pytest.mark.parametrize(
    "theirs", ["y = Relu(x)", "a = Identity(x) y = Relu(a)", "a = Cast<to=10>(x) b = Cast<to=1>(a) y = Relu(b)"]
)
def test_what_only_carries_values_is_no_other_operator(theirs):
    assert operators.find(layer_case(Y, 2 * Y, model=graph("y = Relu(x)"), candidate=graph(theirs))) is None
