"""A constant that one file has folded, and the other one computes of its own constants and of sizes."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

SIZES = {"at": np.int64(2), "nil": np.int64(0), "one": np.int64(1), "far": np.float32(-10), "w": normal(4, 4, seed=3)}
MASK = """[shape] s = Shape(x) [size] n = Gather(s, at) [range] r = Range(nil, n, one) [float] f = Cast<to=1>(r)
    [far] mask = Mul(f, far)"""
TABLE, OTHER = normal(1, 2, 4, 4, seed=1), normal(1, 2, 4, 4, seed=2)
MASKED = np.arange(4, dtype=np.float32) * np.float32(-10)
DATA = [{"x": normal(3, 2, 4, 4, seed=9)}]


def network(body: str, dims: str = "N,2,S,4", **constants):
    """Scores to which a table is added that is masked."""
    head = f"g (float[{dims}] x) => (float[A,B,C,D] y)"
    text = f"{body} [scores] q = MatMul(x, w) [add] t = Add(q, bias) [soft] y = Softmax(t)"
    return parsed(f"{head} {{ {text} }}", **SIZES, **constants)


def computed(table: np.ndarray, dims: str = "N,2,S,4"):
    return network(f"{MASK} [bias] bias = Add(table, mask)", dims, table=table)


def folded(table: np.ndarray):
    return network("", bias=table + MASKED)


def test_a_table_that_is_another_one_in_what_the_candidate_has_folded_is_named():
    culprit = only(compare(computed(TABLE), folded(OTHER), DATA, layers="all"))
    assert (culprit.node, culprit.cause) == ("bias", "weights")
    assert culprit.evidence.startswith(
        "'bias' is a constant in the candidate, and Add bias computes it from 'table' in the reference: of 'table', "
        "32 of 32 values differ, greatest "
    )
    assert culprit.remedies[0].text == (
        "store in 'bias' of the second file what the first file computes there, or export the model again"
    )


def test_a_table_that_is_another_one_where_the_reference_has_it_folded_is_named():
    culprit = only(compare(folded(TABLE), computed(OTHER), DATA, layers="all"))
    assert (culprit.node, culprit.cause) == ("bias", "weights")
    assert culprit.evidence.startswith(
        "'bias' is a constant in the reference, and Add bias computes it from 'table' in the candidate: of 'table', "
    )
    assert culprit.remedies[0].text == (
        "put 'table' of the second file right: 'bias' of the first file holds what is computed from its values"
    )


@pytest.mark.parametrize("turned", [False, True])
def test_a_constant_that_is_what_would_be_computed_is_no_fault(turned):
    pair = [computed(TABLE), folded(TABLE)]
    told = compare(*(reversed(pair) if turned else pair), DATA, layers="all")
    assert (told.verdict, told.culprits) == ("pass", ())


def test_a_single_value_of_a_table_is_told_apart_from_the_rounding_of_the_mask():
    other = TABLE.copy()
    other[0, 1, 2, 3] += 1
    culprit = only(compare(computed(TABLE), folded(other), DATA, layers="all"))
    assert "of 'table', 1 of 32 values differ, greatest 1 at [0,1,2,3]" in culprit.evidence


def test_a_constant_of_other_sizes_is_told_as_that():
    wrong = network("", bias=TABLE + np.float32([0, -10, -20, 0]))
    culprit = only(compare(computed(TABLE), wrong, DATA, layers="all"))
    assert (culprit.node, culprit.cause) == ("bias", "wrong-op")
    assert "is computed from the sizes of the input 'x' in the reference, and a constant" in culprit.evidence
