"""Engines of layers that are built in processes beside the walk."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.lockstep.plan import plan
from layerdiff.compare.lockstep.sessions import StepSessions
from layerdiff.compare.runs.workers import builders
from layerdiff.compare.sides import Side
from layerdiff.graph.model import Model

from support import networks
from support.layerwise import data_of
from support.models import normal, parsed
from support.prebuilt import Prebuilt

CHAIN = """g (float[N, 8] x) => (float[N, 8] y) {
    [a] a = MatMul(x, w)
    [b] b = Sin(a)
    [c] c = MatMul(b, w)
    [d] d = Sin(c)
    [y] y = MatMul(d, w)
}"""


@pytest.fixture
def processes(monkeypatch):
    """Two processes that build, whatever the machine has room for."""
    monkeypatch.setattr(builders, "affordable", lambda: 2)
    Prebuilt.opened.clear()


def compared(runner, model, samples, **rules):
    return Comparator(model, [OnnxrtRunner(threads=1), runner], data_loader=samples, layers="all", **rules).compare()


def test_engines_of_layers_are_built_elsewhere_and_give_the_same(processes, monkeypatch):
    ahead = compared(Prebuilt(), networks.residual(), data_of("residual", 2))
    assert Prebuilt.opened["ahead"] == Prebuilt.opened["beside"] > 0
    assert not Prebuilt.opened["here"]
    monkeypatch.setattr(builders, "affordable", lambda: 0)
    alone = compared(Prebuilt(), networks.residual(), data_of("residual", 2))
    assert Prebuilt.opened["here"]
    assert (ahead.verdict, ahead.culprits, ahead.notices) == (alone.verdict, alone.culprits, alone.notices)
    assert [(la.tensor, la.local, la.cumulative) for la in ahead.layers] == [
        (la.tensor, la.local, la.cumulative) for la in alone.layers
    ]


@pytest.mark.parametrize("rows", [(4,), (4, 2, 6)])
def test_a_batch_that_was_not_foreseen_is_built_for(rows, processes):
    samples = [{"x": normal(n, 8, seed=n)} for n in rows]
    report = compared(Prebuilt(), parsed(CHAIN, w=normal(8, 8)), samples)
    assert (report.verdict, [layer.verdict for layer in report.layers]) == ("pass", ["ok"] * 5)
    assert {layer.local["count"] for layer in report.layers} == {8 * sum(rows)}
    assert Prebuilt.opened["ahead"]


@pytest.mark.parametrize("trouble", [{}, {"alone": True}, {"alone": True, "dies": True}], ids=str)
def test_a_layer_that_cannot_be_built_beside_others_hides_none(trouble, processes, monkeypatch):
    """Nor if the process that is to build it dies: it is built once more where it is needed."""
    rules = {"isolate": "on" if "dies" in trouble else "off"}
    model, samples = parsed(CHAIN, w=normal(8, 8)), [{"x": normal(4, 8)}]
    ahead = compared(Prebuilt(refuses="c", **trouble), model, samples, **rules)
    told = {layer.node: layer.verdict for layer in ahead.layers}
    assert [told[name] for name in "aby"] == ["ok"] * 3
    assert (told["c"] == "ok") is not bool(trouble)
    monkeypatch.setattr(builders, "affordable", lambda: 0)
    alone = compared(Prebuilt(refuses="c", **trouble), model, samples, **rules)
    assert (ahead.verdict, ahead.layers, ahead.culprits) == (alone.verdict, alone.layers, alone.culprits)


def test_a_runner_that_cannot_be_sent_to_another_process_builds_here(processes):
    class Local(Prebuilt):
        pass

    report = compared(Local(), parsed(CHAIN, w=normal(8, 8)), [{"x": normal(4, 8)}])
    assert [layer.verdict for layer in report.layers] == ["ok"] * 5
    assert (Prebuilt.opened["ahead"], Prebuilt.opened["here"]) == (0, 1)


def test_a_limit_on_time_holds_for_builds_too(processes, monkeypatch):
    given = []

    class Seen(builders.Worker):
        def __init__(self, timeout=None, echo=False):
            given.append(timeout)
            super().__init__(timeout, echo)

    monkeypatch.setattr(builders, "Worker", Seen)
    report = compared(Prebuilt(), parsed(CHAIN, w=normal(8, 8)), [{"x": normal(4, 8)}], timeout=100.0)
    assert (report.verdict, given) == ("pass", [100.0] * 2)


def test_the_processes_end_with_the_comparison(processes, monkeypatch):
    begun = []
    close = builders.Builders.close

    def closing(self):
        begun.extend(worker.pid for worker in self._workers)
        close(self)

    monkeypatch.setattr(builders.Builders, "close", closing)
    compared(Prebuilt(), parsed(CHAIN, w=normal(8, 8)), [{"x": normal(4, 8)}])
    assert len([pid for pid in begun if pid]) == 2
    end = time.monotonic() + 10
    while any(pid and os.path.exists(f"/proc/{pid}") for pid in begun) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(pid and os.path.exists(f"/proc/{pid}") for pid in begun)


def test_no_process_is_started_where_no_layer_is_looked_at(processes, monkeypatch):
    monkeypatch.setattr(builders, "Builders", None)
    samples = [{"x": normal(4, 8)}]
    runners = [OnnxrtRunner(threads=1), Prebuilt()]
    assert Comparator(parsed(CHAIN, w=normal(8, 8)), runners, data_loader=samples).compare().verdict == "pass"


def test_nothing_waits_for_an_engine_that_nobody_needs_any_more():
    ready, opened = threading.Event(), []

    class Engines:
        def groups(self, pairs, refused):
            return [pairs]

        def built(self, pairs):
            return ready.wait(60)

    class Steps(StepSessions):
        def _on_engine(self, engine):
            opened.append(engine)

    index = Model(parsed(CHAIN, w=normal(8, 8))).index
    (step,) = plan(index, index, {n: n for n in (*index.producer, *index.inputs)}, memory=1 << 20).steps
    side = Side("a side", Prebuilt(), Model(parsed(CHAIN, w=normal(8, 8))))
    with ThreadPoolExecutor(1) as background:
        sessions = Steps(side, side, step, lambda: None, engines=Engines())
        sessions.open_engines(background)
        sessions.close()
        ready.set()
    assert not opened


def blocks(count, odd=()):
    """A chain of equal blocks of 20 layers with weights of their own; ``odd`` ones clip at another value."""
    lines, weights, last = [], {}, "x"
    for block in range(count):
        for step in range(10):
            name = f"b{block}_{step}"
            weights[f"w_{name}"] = normal(8, 8, seed=10 * block + step) / 2
            lines.append(f"[{name}] {name} = MatMul({last}, w_{name})")
            last = f"a_{name}"
            slope = 0.5 if block in odd and step == 7 else 0.1 + step / 50
            lines.append(f"[{last}] {last} = LeakyRelu<alpha = {slope}>({name})")
    text = "\n".join(lines).replace(f"] {last} =", "] y =")
    return parsed(f"g (float[N, 8] x) => (float[N, 8] y) {{\n{text}\n}}", **weights)


@pytest.mark.parametrize(
    ("rules", "odd", "refitted", "ahead"),
    [
        ({}, (), 3, 1),
        ({"fails": "b2_3"}, (), 2, 2),
        ({"refuses": "b0_3"}, (), 0, 8),  # the first is halved four times, and each of the others built by itself
        ({}, (1,), 1, 4),  # two equal parts behind the odd layer
    ],
)
@pytest.mark.parametrize("rows", [4, 2])
def test_blocks_that_repeat_are_built_once(rules, odd, refitted, ahead, rows, processes, monkeypatch):
    model, samples = blocks(4, odd), [{"x": normal(4, 8)}, {"x": normal(rows, 8)}]
    report = compared(Prebuilt(replaces=True, **rules), model, samples)
    assert len(report.layers) == 80
    assert (Prebuilt.opened["refitted"], Prebuilt.opened["ahead"]) == (refitted, ahead)
    monkeypatch.setattr(builders, "affordable", lambda: 0)
    alone = compared(Prebuilt(**{k: v for k, v in rules.items() if k == "refuses"}), model, samples)
    assert (report.verdict, report.culprits, report.notices) == (alone.verdict, alone.culprits, alone.notices)
    assert [(la.tensor, la.local, la.cumulative) for la in report.layers] == [
        (la.tensor, la.local, la.cumulative) for la in alone.layers
    ]
