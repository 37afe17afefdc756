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
