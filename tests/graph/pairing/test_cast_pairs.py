"""Which Casts there and back round a tensor that both graphs have."""

from __future__ import annotations

import pytest
from layerdiff.graph.formats import BF16, FP16
from layerdiff.graph.model import Model
from layerdiff.graph.pairing.cast_pairs import cast_pairs

from support.models import normal, parsed

HEAD, TAIL = "g (float[4, 8] x) => (float[4, 8] y) {", "[sum] s = Add(a, r) y = Sigmoid(s) }"
WEIGHTS = {"w": normal(8, 8)}


def graph(body: str):
    return Model(parsed(f"{HEAD} {body} {TAIL}", **WEIGHTS)).index


PLAIN = graph("[fc] a = MatMul(x, w) [relu] r = Relu(a)")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("[fc] a = MatMul(x, w) [n] h = Cast<to=16>(a) b = Cast<to=1>(h) [relu] r = Relu(b)", [("fc", "n", BF16)]),
        ("[fc] m = MatMul(x, w) [n] h = Cast<to=10>(m) a = Cast<to=1>(h) [relu] r = Relu(a)", [("fc", "n", FP16)]),
        ("[n] h = Cast<to=10>(x) b = Cast<to=1>(h) [fc] a = MatMul(b, w) [relu] r = Relu(a)", [("x", "n", FP16)]),
        ("[fc] a = MatMul(x, w) h = Cast<to=10>(a) k = Relu(h) r = Cast<to=1>(k)", []),
        ("[fc] a = MatMul(x, w) h = Cast<to=7>(a) b = Cast<to=1>(h) [relu] r = Relu(b)", []),
        ("[fc] a = MatMul(x, w) [relu] r = Relu(a)", []),
    ],
    ids=["behind a node", "before all readers", "of an input", "an operator between", "to integers", "none"],
)
def test_tensors_that_both_have_are_found(body, found):
    assert [(pair.maker, pair.cast, pair.format) for pair in cast_pairs(PLAIN, graph(body))] == found


def test_none_count_where_one_is_of_what_the_second_graph_alone_computes():
    part = "[fc] a = MatMul(x, w) [n] h = Cast<to=10>(a) b = Cast<to=1>(h) [relu] r0 = Relu(b)"
    more = "[e] e = Exp(r0) [k] k = Cast<to=10>(e) l = Cast<to=1>(k) [log] r = Log(l)"
    assert cast_pairs(PLAIN, graph(f"{part} {more}")) == ()


def test_casts_that_both_graphs_have_are_no_difference():
    narrow = "[fc] a = MatMul(x, w) [n] h = Cast<to=16>(a) b = Cast<to=1>(h) [relu] r = Relu(b)"
    assert cast_pairs(graph(narrow), graph(narrow)) == ()
