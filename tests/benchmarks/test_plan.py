"""The benchmark of plans: what it calls the cheapest, and how it tells a plan."""

import itertools

import pytest

from benchmarks.plan import small
from benchmarks.plan.__main__ import HEAD, expected, row
from benchmarks.plan.running import planned


@pytest.fixture(scope="module")
def case():
    model, data = small.network("overflow", 6, 0), small.samples(0)
    return model, data, planned("a chain", model, data, "fp16")


def test_a_plan_costs_what_the_exhaustive_search_finds(case):
    model, data, found = case
    layers, best, _ = small.cheapest(model, data, "fp16", {})
    kept = layers.holding([layer.node for layer in found.plan.kept])
    assert layers.cost(kept) == layers.cost(best)


def test_sets_come_in_the_order_of_their_cost(case):
    model, data, _ = case
    layers, _, _ = small.cheapest(model, data, "fp16", {})
    costs = [layers.cost(kept) for kept in small.by_cost(layers)]
    assert costs == sorted(costs)
    assert len(costs) == 2 ** len(layers.all)


def test_a_plan_is_a_row_of_the_page(case):
    *_, found = case
    assert len(row(found)) == len(HEAD)
    assert "in 1 of 1;" in expected([found])


def test_every_weakness_is_one_of_the_format(case):
    kinds = {kind for _, kind, _ in small.WHICH}
    for kind, seed in itertools.product(sorted(kinds), (0, 1)):
        model = small.network(kind, 8, seed)
        assert len({node.name for node in model.graph.node}) == len(model.graph.node)
