"""What the reference computes from an input, and the candidate has as a constant."""

from __future__ import annotations

import numpy as np
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = {f"w{i}": normal(8, 8, seed=i) for i in range(6)} | {"zero": np.float32(0), "low": np.float32(-30)}
MASK = "[keep] k = Greater(mask, zero) [where] m = Where(k, zero, low)"
LAYERS = """[q{i}] q{i} = MatMul({x}, w{i}) [add{i}] s{i} = Add(q{i}, m) [soft{i}] a{i} = Softmax(s{i})
    [out{i}] o{i} = MatMul(a{i}, w{j})"""


def network(mask: str = MASK, **constants):
    """Two layers that read one mask of their 8 columns."""
    text = "".join(LAYERS.format(x=x, i=i, j=i + 3) for i, x in ((0, "x"), (1, "o0")))
    head = "g (float[6,8] x, float[1,8] mask) => (float[6,8] y)"
    return parsed(f"{head} {{ {mask} {text} [last] y = Tanh(o1) }}", **WEIGHTS, **constants)


SEEN = np.array([[1, 1, 1, 1, 0, 0, 1, 1]], np.float32)
DATA = [{"x": normal(6, 8, seed=9), "mask": SEEN}]
ALL = np.ones((1, 8), bool)


@pytest.mark.parametrize(
    ("mask", "constants", "tensor", "node"),
    [
        ("[where] m = Where(all, zero, low)", {"all": ALL}, "k", "keep"),
        ("[where] m = Where(k, zero, low)", {"k": ALL}, "k", "keep"),
        ("", {"m": np.zeros((1, 8), np.float32)}, "m", "where"),
    ],
    ids=["a condition", "a condition of its name", "a mask"],
)
def test_it_is_one_fault_at_what_is_computed_in_the_reference(mask, constants, tensor, node):
    culprit = only(compare(network(), network(mask, **constants), DATA, layers="all"))
    assert (culprit.node, culprit.cause) == (node, "wrong-op")
    assert f"('{tensor}') is computed from the input 'mask' in the reference, and a constant" in culprit.evidence
    assert culprit.remedies[0].text.startswith(f"compute '{tensor}' from the input 'mask' in the second file")
    assert culprit.contribution is None or culprit.contribution > 0.5


def test_a_constant_that_is_what_would_be_computed_is_no_fault():
    told = compare(network(), network("[where] m = Where(k, zero, low)", k=SEEN > 0), DATA, layers="all")
    assert (told.verdict, told.culprits) == ("pass", ())


def test_another_fault_in_such_a_layer_is_told_as_that():
    other = network("[where] m = Where(k, zero, low)", k=SEEN > 0)
    wrong = next(w for w in other.graph.initializer if w.name == "w0")
    wrong.raw_data = (normal(8, 8, seed=77)).tobytes()
    culprit = only(compare(network(), other, DATA, layers="all"))
    assert (culprit.node, culprit.cause) == ("q0", "weights")


TURNS = """[up{i}] u{i} = MatMul({x}, w{i}) [turn{i}] t{i} = Mul(u{i}, c) [act{i}] o{i} = Tanh(t{i})"""


def turning(places: str, weight: np.ndarray = WEIGHTS["w0"], **constants):
    """Two layers that are multiplied with the cosine of each row's place."""
    text = "".join(TURNS.format(x=x, i=i) for i, x in ((0, "x"), (1, "o0")))
    head = "g (float[S,8] x, int64[S] places) => (float[S,8] y)"
    body = f"{places} [float] f = Cast<to=1>(p) [row] r = Unsqueeze(f, last) [cos] c = Cos(r)"
    weights = {"w0": weight, "w1": WEIGHTS["w1"], "last": np.array([1])}
    return parsed(f"{head} {{ {body} {text} [last] y = Sin(o1) }}", **weights, **constants)


GIVEN = "[given] p = Abs(places)"
COUNTED = "[size] s = Shape<end=1>(x) [count] n = Squeeze(s) [range] q = Range(nil, n, one) [given] p = Abs(q)"
COUNTS = {"nil": np.int64(0), "one": np.int64(1)}


def test_positions_that_are_counted_in_place_of_those_that_are_given_are_one_fault_where_they_are_read():
    data = [{"x": normal(6, 8, seed=9), "places": np.array([0, 0, 0, 1, 2, 3])}]
    culprit = only(compare(turning(GIVEN), turning(COUNTED, **COUNTS), data, layers="all"))
    assert (culprit.node, culprit.cause) == ("given", "wrong-op")
    assert culprit.evidence == (
        "Abs given reads the input 'places' in the reference, and what is computed from sizes alone in the candidate"
    )
    assert culprit.remedies[0].text == "let given read the input 'places' in the second file"


def test_positions_that_are_counted_rightly_are_no_fault_beside_another():
    data = [{"x": normal(6, 8, seed=9), "places": np.arange(6)}]
    assert compare(turning(GIVEN), turning(COUNTED, **COUNTS), data, layers="all").verdict == "pass"
    wrong = turning(COUNTED, normal(8, 8, seed=77), **COUNTS)
    culprit = only(compare(turning(GIVEN), wrong, data, layers="all"))
    assert (culprit.node, culprit.cause) == ("up0", "weights")
