"""Nodes that one file alone has on the way to a constant: they are named, not the weights that they are used with."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.load import load
from layerdiff.graph.pairing.matching import match

from support.layerwise import compare, only
from support.models import normal, parsed

TABLE = normal(320, 8)  # BF16 rounds 299 to 300
TOKENS = normal(300, 8, seed=1)
GRAPH = """g (float[300,8] x) => (float[300,8] y) {
    places = Range(zero, length, one)
    PUT
    rows = Gather(table, READ)
    added = Add(x, rows)
    y = Relu(added)
}"""
BF16 = "narrow = Cast<to = 16>(places) wide = Cast<to = 1>(narrow) whole = Cast<to = 7>(wide)", "whole"
FACTOR = "spread = Mul(places, half)", "spread"
PLAIN = "", "places"


def written(put, rows=300, stored=False):
    given = {"zero": np.int64(0), "one": np.int64(1), "length": np.int64(rows), "table": TABLE}
    text = GRAPH.replace("PUT", put[0]).replace("READ", put[1]).replace("300", str(rows))
    if stored:
        text, given = text.replace("places = Range(zero, length, one)", ""), {"table": TABLE, "places": np.arange(rows)}
    return parsed(text, **given, **({"half": np.int64(0)} if put is FACTOR else {}))


def differences(*models):
    graphs = [load(model).index for model in models]
    return graphs, match(*graphs).differences


@pytest.mark.parametrize(("put", "op"), [(BF16, "Cast"), (FACTOR, "Mul")], ids=["cast", "factor"])
@pytest.mark.parametrize("turned", [False, True], ids=["inserted", "missing"])
def test_the_nodes_that_one_graph_alone_has_are_named(put, op, turned):
    models = [written(PLAIN), written(put)]
    graphs, (found,) = differences(*(models[::-1] if turned else models))
    assert ("missing in the candidate" if turned else "in the candidate alone") in found.detail
    assert ("rounds to BF16" in found.detail) == (put is BF16)
    origin, index = (found.origin, graphs[0]) if turned else (found.candidate_origin, graphs[1])
    assert index.nodes[origin].op_type == op


def test_casts_that_change_nothing_are_no_difference():
    """BF16 holds every integer up to 256."""
    assert differences(written(PLAIN, 200), written(BF16, 200))[1] == ()


@pytest.mark.parametrize("stored", [(True, True), (True, False)], ids=["both", "first"])
def test_positions_that_are_stored_are_held_against_what_is_computed_of_them(stored):
    _, (found,) = differences(written(PLAIN, stored=stored[0]), written(BF16, stored=stored[1]))
    assert "rounds to BF16, 22 of 300 values differ, 257 against 256 at [257]" in found.detail


def test_the_culprit_is_the_node_that_rounds():
    culprit = only(compare(written(PLAIN), written(BF16), [{"x": TOKENS}]))
    assert (culprit.op, culprit.cause) == ("Cast", "wrong-op")
    assert "rounds to BF16, 22 of 300 values differ, 257 against 256 at [257]" in culprit.evidence
    assert culprit.remedies[0].text.startswith("leave Cast")
