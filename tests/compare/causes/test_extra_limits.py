"""Limits that the candidate alone has are named with their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

DATA = [{"x": normal(16, 8, seed=2)}]


def network(limit: str = "", **bounds: float):
    made, more = ("m", f"[limit] y = {limit}") if limit else ("y", "")
    text = f"g (float[16,8] x) => (float[16,4] y) {{ [p] p = MatMul(x, w) [m] {made} = Mul(p, k) {more} }}"
    constants = {name: np.float32(value) for name, value in bounds.items()}
    return parsed(text, w=normal(8, 4), k=np.float32(10), **constants)


@pytest.mark.parametrize(
    ("limit", "bounds", "told"),
    [
        ("Clip(m, low, high)", {"low": 0, "high": 20}, ("0 is the least, ", ", and 20 is the greatest, ")),
        ("Clip(m, low)", {"low": -5}, ("-5 is the least, ",)),
        ("Min(m, high)", {"high": 8}, ("8 is the greatest, ",)),
        ("Max(low, m)", {"low": -5}, ("-5 is the least, ",)),
    ],
)
def test_what_limits_values_is_named_with_its_bounds(limit, bounds, told):
    culprit = only(compare(network(), network(limit, **bounds), DATA))
    op = limit.partition("(")[0]
    assert culprit.cause == "wrong-op"
    assert culprit.evidence.startswith(f"{op} limit in the candidate alone; {op} limit limits the values: {told[0]}")
    assert all(text in culprit.evidence for text in told)
    assert culprit.remedies[0].text == f"leave {op} limit out of the second file"


def test_a_limit_that_makes_little_of_the_error_is_not_named():
    text = "[p] p = MatMul(x, w) [m] m = Mul(p, k) [limit] y = Clip(m, low, high)"
    bounds = {"low": np.float32(-1000), "high": np.float32(1000)}
    other = parsed(f"g (float[16,8] x) => (float[16,4] y) {{ {text} }}", w=normal(8, 4), k=np.float32(15), **bounds)
    assert "limits the values" not in only(compare(network(), other, DATA)).evidence
