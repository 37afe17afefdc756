"""Limits that the candidate alone has, or that are others, are named with their bounds."""

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
    assert culprit.evidence.startswith(f"{op} limit is in the candidate alone; {op} limit limits the values: {told[0]}")
    assert all(text in culprit.evidence for text in told)
    assert culprit.remedies[0].text == f"leave {op} limit out of the second file"


def test_a_limit_that_makes_little_of_the_error_is_not_named():
    text = "[p] p = MatMul(x, w) [m] m = Mul(p, k) [limit] y = Clip(m, low, high)"
    bounds = {"low": np.float32(-1000), "high": np.float32(1000)}
    other = parsed(f"g (float[16,8] x) => (float[16,4] y) {{ {text} }}", w=normal(8, 4), k=np.float32(15), **bounds)
    assert "limits the values" not in only(compare(network(), other, DATA)).evidence


CLIP, PARTS, TURNED = "Clip(m, zero, {})", "Relu(m) y = Min(r, {})", "Max(m, zero) y = Min({}, r)"


def limited(text: str, **bounds: float):
    constants = {"zero": 0.0, "five": 5.0, "six": 6.0}
    first, then, last = text.partition(" y = ")
    nodes = f"[first] r = {first} [limit] y = {last}" if then else f"[limit] y = {first}"
    text = f"g (float[16,8] x) => (float[16,4] y) {{ [p] p = MatMul(x, w) [m] m = Mul(p, k) {nodes} }}"
    used = {name: np.float32(value) for name, value in constants.items() if name in nodes}
    return parsed(text, w=normal(8, 4), k=np.float32(10), **used)


@pytest.mark.parametrize("other", [CLIP, PARTS, TURNED], ids=["Clip", "Relu and Min", "Max and Min"])
@pytest.mark.parametrize("own", [CLIP, PARTS, TURNED], ids=["Clip", "Relu and Min", "Max and Min"])
@pytest.mark.parametrize(("high", "higher"), [("six", "five"), ("five", "six")])
def test_the_bounds_of_both_are_told_however_they_are_written(own, other, high, higher):
    culprit = only(compare(limited(own.format(high)), limited(other.format(higher)), DATA))
    told = "6 against 5" if high == "six" else "5 against 6"
    assert culprit.node == "limit"
    assert told in culprit.evidence
    assert "stop at" not in culprit.evidence


@pytest.mark.parametrize(
    ("own", "other", "told"),
    [
        (CLIP, "Relu(m)", "Clip against Relu; the greatest value is 5 against not limited"),
        ("Relu(m)", CLIP, "Relu against Clip; the greatest value is not limited against 5"),
        ("Clip(m, , {})", PARTS, "the least value is not limited against 0"),
    ],
)
def test_a_bound_that_one_side_has_is_told(own, other, told):
    culprit = only(compare(limited(own.format("five")), limited(other.format("five")), DATA))
    assert told in culprit.evidence
    assert culprit.remedies[0].text.startswith("limit the values in the second file as in the first one")


@pytest.mark.parametrize("other", [PARTS, TURNED])
def test_the_same_bounds_are_no_fault(other):
    assert compare(limited(CLIP.format("six")), limited(other.format("six")), DATA).culprits == ()


def test_other_bounds_that_make_little_of_the_error_are_not_told():
    mine = parsed(
        "g (float[16,8] x) => (float[16,4] y) { p = MatMul(x, w) m = Mul(p, k) y = Clip(m, low, high) }",
        w=normal(8, 4), k=np.float32(1), low=np.float32(-100), high=np.float32(100),
    )  # fmt: skip
    theirs = parsed(
        "g (float[16,8] x) => (float[16,4] y) { p = MatMul(x, w) m = Mul(p, k) c = Max(m, low) y = Min(c, high) }",
        w=normal(8, 4), k=np.float32(3), low=np.float32(-100), high=np.float32(99),
    )  # fmt: skip
    assert "value is" not in only(compare(mine, theirs, DATA)).evidence
