"""A Softmax over the rows of a picture, in place of all of it."""

from __future__ import annotations

import numpy as np

from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = {
    "w": normal(2, 3, 1, 1, seed=1),
    "flat": np.array([2, 2, 24]),
    "back": np.array([2, 2, 4, 6]),
    "four": np.float32(4),
}
HEAD = "g (float[2,3,4,6] x) => (float[2,2,4,6] y) { [conv] c = Conv(x, w) "
WHOLE = "[one] f = Reshape(c, flat) [soft] s = Softmax<axis=-1>(f) [two] r = Reshape(s, back) [end] y = Tanh(r) }"
ROWS = "[rows] s = Softmax<axis=-1>(c) [part] r = Div(s, four) [end] y = Tanh(r) }"
DATA = [{"x": 3 * normal(2, 3, 4, 6, seed=50)}]


def network(text: str):
    return parsed(text, **{name: value for name, value in WEIGHTS.items() if f", {name})" in text})


def test_over_how_many_values_it_runs_is_told() -> None:
    culprit = only(compare(network(HEAD + WHOLE), network(HEAD + ROWS), DATA))
    assert culprit.cause == "wrong-op"
    says = "Softmax rows runs over 6 values in the candidate, and Softmax soft over 24 in the reference"
    assert says in culprit.evidence
    assert "may compute the same" not in culprit.evidence
    assert culprit.remedies[0].text == "let Softmax rows run over 24 values in the second file"


def test_what_it_is_computed_of_is_told_where_that_is_another_tensor() -> None:
    head = "g (float[6,8] x) => (float[6,2] y) { [first] s = Tanh(x) [top] v, i = TopK<axis=-1>(s, two) "
    first = "[soft] p = Softmax<axis=-1>(v) [end] y = Log(p) }"
    whole = "[all] a = Softmax<axis=-1>(s) [pick] p = GatherElements<axis=-1>(a, i) [end] y = Log(p) }"
    pair = (parsed(head + text, two=np.array([2])) for text in (first, whole))
    culprit = only(compare(*pair, [{"x": 3 * normal(6, 8, seed=50)}]))
    assert culprit.cause == "wrong-op"
    told = "Softmax all runs over 8 values of 's' in the candidate, and Softmax soft over 2 of 'v' in the reference"
    assert told in culprit.evidence
    assert culprit.remedies[0].text == (
        "compute the Softmax of 'v' in the second file, as the first one does, in place of Softmax all of 's' and of "
        "what picks from it"
    )
