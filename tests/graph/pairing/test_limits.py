"""Limits in a row, which one file has in one Clip: each row is one layer, with the bounds that it comes to."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed

TEXT = "g (float[64,16] x) => (float[64,4] y) {{ [up] a = MatMul(x, w) {} [down] y = MatMul(d, v) }}"
ROWS = {
    "alone": "[clip] d = Clip(a, low, high)",
    "behind a Relu": "[act] b = Relu(a) [clip] d = Clip(b, low, high)",
    "before a Relu": "[clip] b = Clip(a, low, high) [act] d = Relu(b)",
    "behind a Max": "[act] b = Max(a, zero) [clip] d = Clip(b, low, high)",
    "behind both": "[act] b = Relu(a) [min] c = Min(b, five) [clip] d = Clip(c, low, high)",
}
DATA = [{"x": normal(64, 16, seed=5) * np.float32(2)}]


def network(row: str, low: float, high: float):
    ends = {"low": np.float32(low), "high": np.float32(high), "zero": np.float32(0), "five": np.float32(5)}
    text = TEXT.format(ROWS[row])
    return parsed(text, w=normal(16, 16), v=normal(16, 4, seed=2), **{n: v for n, v in ends.items() if n in text})


@pytest.mark.parametrize("row", [name for name in ROWS if name not in ("alone", "behind both")])
@pytest.mark.parametrize("turned", [False, True], ids=["folded", "unfolded"])
def test_a_limit_that_is_folded_into_a_clip_is_no_fault_beside_a_wrong_bound(row, turned):
    models = [network(row, -6, 6), network("alone", 0, 5)]
    culprit = only(compare(*(models[::-1] if turned else models), DATA))
    assert culprit.cause == "attribute"
    assert culprit.evidence == f"max {'5 against 6' if turned else '6 against 5'}"


def test_rows_that_come_to_the_same_differ_in_nothing():
    first, second = (load(m).index for m in (network("behind a Relu", -6, 6), network("alone", 0, 6)))
    assert not match(first, second).differences


def test_a_bound_that_several_nodes_come_to_is_told_of_them_together():
    first, second = (load(m).index for m in (network("behind both", -6, 6), network("alone", 0, 6)))
    (found,) = match(first, second).differences
    assert found.detail == "act, min and clip together: max 5 against 6"


def test_a_limit_that_is_in_no_clip_is_missing():
    culprit = only(compare(network("behind a Relu", -6, 6), network("alone", -6, 6), DATA))
    assert (culprit.node, culprit.cause) == ("act", "wrong-op")
    assert culprit.evidence.startswith("Relu act is missing in the candidate")
