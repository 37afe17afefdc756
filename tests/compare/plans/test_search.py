"""The search: from errors of layers to a set that passes and of which nothing can be spared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from layerdiff.compare.budget import Spent
from layerdiff.compare.plans.choose import choose
from layerdiff.compare.plans.layers import Border, Layer, Layers, timed
from layerdiff.compare.plans.predict import Block, Prediction, predict
from layerdiff.compare.plans.search import Search
from layerdiff.compare.report.plan import OutputTrial, Trial
from layerdiff.graph.index import GraphIndex
from layerdiff.runners.contract.latency import KernelTime

from support.models import parsed

INDEX = GraphIndex(parsed("g (float[1] x) => (float[1] y) { y = Identity(x) }"))


def chain(costs: list[float], cast: float = 0.0) -> Layers:
    layers = tuple(Layer(i, (f"n{i}",), f"n{i}", "MatMul", (), (), 1.0, cost) for i, cost in enumerate(costs))
    borders = tuple(Border(i - 1, (i,), cast) for i in range(1, len(costs)))
    return Layers(INDEX, layers, borders)


def trial(kept: frozenset[int], share: float) -> Trial:
    finite = share if math.isfinite(share) else None
    verdict = "pass" if share <= 1 else "fail"
    return Trial(tuple(sorted(kept)), (OutputTrial("y", verdict, finite, finite, None if share <= 1 else "large"),))


class Runtime:
    """A runtime whose errors add up as squares: what the search is about, without a network."""

    def __init__(self, errors: list[float], factor: Callable[[frozenset[int]], float] = lambda kept: 1.0) -> None:
        self.errors, self.factor = errors, factor
        self.ran: dict[frozenset[int], Trial] = {}

    def share(self, kept: frozenset[int]) -> float:
        left = [e for i, e in enumerate(self.errors) if i not in kept]
        return math.sqrt(sum(e * e for e in left)) * self.factor(kept)

    def verify(self, kept: frozenset[int]) -> Trial:
        return self.ran.setdefault(kept, trial(kept, self.share(kept)))

    def probe(self, narrow: frozenset[int]) -> tuple[OutputTrial, ...]:
        return trial(narrow, self.share(frozenset(range(len(self.errors))) - narrow)).outputs


def searched(runtime: Runtime, layers: Layers, **options: bool) -> Search:
    prediction = predict(len(layers.all), (), runtime.probe)
    search = Search(layers, prediction, runtime.verify, **options)
    search.run()
    return search


def cheapest(runtime: Runtime, layers: Layers) -> float:
    every = range(len(layers.all))
    sets = (frozenset(s) for n in range(len(every) + 1) for s in itertools.combinations(every, n))
    return min(layers.cost(kept) for kept in sets if runtime.share(kept) <= 1)


def test_one_guilty_layer_is_kept_and_nothing_else():
    runtime = Runtime([0.1, 0.1, 5.0, 0.1, math.inf, 0.1])
    search = searched(runtime, chain([1.0] * 6))
    assert search.best == {2, 4}
    assert search.minimal
    assert len(runtime.ran) <= 5, "everything, the plan, and the plan without each of its two layers"


@pytest.mark.parametrize("seed", range(12))
def test_a_plan_costs_hardly_more_than_the_cheapest_there_is(seed):
    rng = np.random.default_rng(seed)
    errors, costs = list(rng.lognormal(-0.5, 1, 10)), list(rng.lognormal(0, 1, 10))
    off = rng.uniform(0.8, 1.3)
    runtime, layers = Runtime(errors, lambda kept: off), chain(costs, cast=0.05)
    search = searched(runtime, layers)
    assert search.best is not None
    assert runtime.share(search.best) <= 1
    assert layers.cost(search.best) <= 1.3 * cheapest(runtime, layers)


@pytest.mark.parametrize("seed", range(6))
def test_every_kept_layer_was_dropped_once_and_the_run_failed(seed):
    rng = np.random.default_rng(seed)
    # pairs of layers that help only together: what was predicted of each alone is wrong
    runtime = Runtime(list(rng.lognormal(0, 1, 14)), lambda kept: 1.0 if {3, 4} <= kept else 40.0)
    search = searched(runtime, chain(list(rng.uniform(1, 3, 14))))
    assert search.best is not None
    assert search.minimal
    for number in search.best:
        assert not runtime.ran[search.best - {number}].passed


@pytest.mark.parametrize("cheap", [True, False], ids=["cheap", "engines"])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_foretold_is_asked_for_in_that_order_until_a_set_passes(seed, cheap):
    rng = np.random.default_rng(seed)
    runtime, asked, told = Runtime(list(rng.lognormal(0, 1, 14)), lambda kept: 1.2), [], []

    def verify(kept):
        if kept and kept not in runtime.ran:
            asked.append(kept)
        return runtime.verify(kept)

    def ahead(sets):
        told.append((len(asked), [kept for kept in sets if kept and kept not in runtime.ran]))

    prediction = predict(14, (), runtime.probe)
    Search(chain(list(rng.uniform(1, 3, 14))), prediction, verify, ahead, cheap=cheap).run()
    assert len(told) > 1
    for start, sets in told:
        passing = next((i for i, kept in enumerate(sets) if runtime.share(kept) <= 1), len(sets) - 1)
        assert asked[start : start + passing + 1] == sets[: passing + 1]


def test_halves_of_blocks_are_foretold():
    errors = [0.001] * 100
    errors[30] = errors[70] = 4.0
    runtime, asked, told = Runtime(errors), [], set()

    def probe(narrow):
        asked.append(narrow)
        return runtime.probe(narrow)

    predict(100, (), probe, ahead=told.update)
    assert set(asked) <= told


def test_where_fp32_fails_there_is_no_plan():
    runtime = Runtime([2.0] * 4, lambda kept: 1.0)
    runtime.share = lambda kept: 3.0  # type: ignore[method-assign]
    search = searched(runtime, chain([1.0] * 4))
    assert search.hopeless
    assert search.best is None
    assert len(runtime.ran) == 1


def test_where_fp32_is_expensive_it_is_not_run_for_a_plan_that_passes():
    runtime = Runtime([0.1, 3.0, 0.1])
    search = searched(runtime, chain([1.0] * 3), cheap=False)
    assert search.best == {1}
    assert frozenset(range(3)) not in runtime.ran


class Blind(Runtime):
    """A runtime whose probes show nothing of its guilty layers, which fail alone or together."""

    def probe(self, narrow: frozenset[int]) -> tuple[OutputTrial, ...]:
        return trial(narrow, 0.01 * len(narrow)).outputs


@pytest.mark.parametrize("guilty", [{0}, {9}, {19}, {4, 15}, set(range(20))])
def test_no_more_than_four_engines_are_built_until_one_passes_whatever_was_expected(guilty):
    runtime = Blind([50.0 if i in guilty else 0.01 for i in range(20)])
    search = searched(runtime, chain([1.0] * 20), cheap=False)
    first = next(i for i, t in enumerate(runtime.ran.values(), 1) if t.passed)
    assert first <= 4
    assert search.best == guilty
    assert search.minimal
    assert not [n for n in guilty if len(guilty) > 1 and runtime.ran[search.best - {n}].passed]


@pytest.mark.parametrize("enough", [True, False])
def test_a_plan_stays_minimal_where_the_budget_ends_with_a_cheaper_one(enough):
    runtime, ended = Runtime([0.9, 0.9, 0.9, 0.97]), []

    def verify(kept: frozenset[int]) -> Trial:
        if kept == {0, 1, 2} and not enough:
            ended.append(kept)
            raise Spent
        return runtime.verify(kept)

    search = Search(chain([1.0, 1.0, 1.0, 5.0]), predict(4, (), runtime.probe), verify, cheap=False)
    search.run()
    assert bool(ended) != enough
    assert (search.best == {0, 1, 2}) == enough, "nearly all that is allowed is left for a second choice"
    assert search.minimal


def test_what_is_expected_to_be_spared_is_dropped_in_one_run():
    runtime = Runtime([0.01, 0.01, 4.0, 0.01, 0.6, 0.6, 0.6, 0.01], lambda kept: 2.5)
    prediction = predict(8, (), Runtime(runtime.errors).probe)
    search = Search(chain([1.0] * 4 + [0.5] + [1.0] * 3), prediction, runtime.verify, cheap=False)
    search.run()
    failed, passed, without_those_before, *singles = runtime.ran
    assert not runtime.ran[failed].passed
    assert passed == {1, 2, 3, 4, 5, 6}, "with the layers that feed what failed"
    assert without_those_before == search.best == {2, 4, 5, 6}
    assert len(singles) == 4, "one for each layer that is kept"


def test_layers_that_were_seen_to_err_more_than_expected_are_blocks_of_their_own():
    prediction = predict(64, (), Runtime([0.01] * 64).probe)
    raised = prediction.at_least(20, {"y": 3.0})
    assert raised.alone(20) == pytest.approx(3.0)
    assert raised.of({20}).share == pytest.approx(prediction.of({20}).share)
    assert raised.of(()).share == pytest.approx(3.0, rel=0.01)
    assert prediction.at_least(20, {"y": 0.001}) is prediction


@pytest.mark.parametrize("cheap", [True, False])
def test_a_plan_is_found_where_its_casts_cost_more_than_everything_in_fp32(cheap):
    runtime = Runtime([0.1, 3.0, 0.1])
    search = searched(runtime, chain([1.0] * 3, cast=10.0), cheap=cheap, fp32_known=True)
    assert search.best is not None
    assert search.best < search.everything
    assert search.minimal


def test_the_best_set_so_far_is_left_where_the_budget_ends():
    runtime = Runtime([1.2, 1.1, 1.3, 0.9])
    count = itertools.count()

    def verify(kept: frozenset[int]) -> Trial:
        if kept not in runtime.ran and next(count) == 2:
            raise Spent
        return runtime.verify(kept)

    search = Search(chain([1.0] * 4), predict(4, (), runtime.probe), verify)
    search.run()
    assert search.best is not None
    assert runtime.share(search.best) <= 1
    assert not search.minimal


def test_neighbours_are_preferred_since_each_border_is_a_cast():
    layers, errors = chain([1.0] * 5, cast=0.6), [0.75, 0.1, 0.75, 0.75, 0.1]
    blocks = tuple(Block((i,), {"y": e}, {"y": e}) for i, e in enumerate(errors))
    assert choose(layers, Prediction(blocks), [frozenset()], 1.2) == {0}, "at an end there is one border less"
    assert choose(layers, Prediction(blocks), [frozenset()], 0.8) == {2, 3}


def kernels(*times: float) -> list[KernelTime]:
    return [KernelTime((f"n{i}",), ms) for i, ms in enumerate(times) if ms]


def test_what_layers_take_longer_in_fp32_is_what_keeping_them_costs():
    layers = timed(chain([1.0, 1.0, 2.0], cast=0.1), kernels(0.1, 0.3, 0.1), kernels(0.3, 0.6, 0.6))
    assert layers is not None
    assert [layer.cost for layer in layers.all] == pytest.approx([0.8, 1.2, 2.0]), "as many bytes as before in all"
    assert layers.cost({0}) == pytest.approx(0.9), "with a cast, in bytes"


def test_kernels_of_several_layers_are_shared_out():
    narrow, wide = [KernelTime(("n0", "n1"), 1.0), *kernels(0, 0, 1.0)], [*kernels(2.0, 3.0, 0.5)]
    layers = timed(chain([1.0, 3.0, 4.0]), narrow, wide)
    assert layers is not None
    extra = [2.0 - 0.25, 3.0 - 0.75, 0.02 * 0.5]
    assert [layer.cost for layer in layers.all] == pytest.approx([8 / 4 * e for e in extra])


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [((), ()), ((0.1, 0, 0), (0.3, 0, 0)), ((0.1, 0.1, 0.1), (0.1, 0.1, 0.05))],
    ids=["no times", "times of few", "no slower"],
)
def test_without_times_that_tell_anything_costs_stay_bytes(narrow, wide):
    assert timed(chain([1.0, 1.0, 2.0]), kernels(*narrow), kernels(*wide)) is None


def test_what_failed_is_not_chosen_again():
    blocks = tuple(Block((i,), {"y": 0.1}, {"y": 0.1}) for i in range(3))
    layers, failed = chain([1.0, 2.0, 3.0]), [frozenset()]
    for expected in ({0}, {1}):
        kept = choose(layers, Prediction(blocks), failed, 0.95)
        assert kept == expected
        failed.append(kept)


def test_large_networks_are_probed_in_blocks_that_are_halved_where_they_matter():
    errors = [0.001] * 200
    errors[77] = errors[150] = 4.0
    runtime, calls = Runtime(errors), []

    def probe(narrow: frozenset[int]) -> tuple[OutputTrial, ...]:
        calls.append(narrow)
        return runtime.probe(narrow)

    prediction = predict(200, [150], probe)
    assert len(calls) <= 32
    assert prediction.alone(150) == pytest.approx(4.0)
    assert prediction.alone(77) == pytest.approx(4.0)
    assert prediction.of({77, 150}).share == pytest.approx(runtime.share(frozenset({77, 150})), rel=0.1)


def test_errors_that_are_not_finite_are_expected_as_such():
    prediction = predict(2, (), Runtime([math.inf, 0.5]).probe)
    assert prediction.of(()).share is None
    assert prediction.alone(0) is None
    assert prediction.of({0}).share == pytest.approx(0.5)
