"""Pieces of runtimes that want to know shapes: opened for what is fed, and anew for other shapes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.graph.errors import BuildError

from support import networks
from support.layerwise import BF16, FP16, INT8, NETWORKS, compare, data_of
from support.models import normal, parsed

CHAIN = """g (float[N, 8] x) => (float[N, 8] y) {
    [a] a = MatMul(x, w)
    [b] b = Sin(a)
    [y] y = MatMul(b, w)
}"""


@dataclass(frozen=True)
class Particular(OnnxrtRunner):
    """ONNX Runtime, which opens pieces of fixed shapes alone, as it does of operators that are functions of shapes."""

    opened: tuple[int, ...] | None = None

    def for_pieces(self, deployed: Any = None) -> OnnxrtRunner:
        return Particular(threads=1, opened=(8,))

    def open(self, model: Any, **rest: Any) -> Any:
        if self.opened is not None and any(not isinstance(d, int) for spec in model.inputs for d in spec.shape):
            raise BuildError("particular: no implementation for open shapes.")
        return OnnxrtRunner(threads=1).open(model, **rest)


@pytest.mark.parametrize("rows", [(4,), (4, 4), (4, 2, 4)])
@pytest.mark.parametrize("both", [True, False])
def test_layers_are_compared_whatever_shapes_come(rows: tuple[int, ...], both: bool) -> None:
    runners = [Particular() if both else OnnxrtRunner(threads=1), Particular(optimization="disable")]
    samples = [{"x": normal(n, 8, seed=n)} for n in rows]
    model = parsed(CHAIN, w=normal(8, 8))
    report = Comparator(model, runners, data_loader=samples, layers="all").compare()
    assert report.verdict == "pass"
    assert "layers-not-compared" not in {notice.code for notice in report.notices}
    assert [layer.verdict for layer in report.layers] == ["ok"] * 3
    assert {layer.local["count"] for layer in report.layers} == {8 * sum(rows)}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("candidate", [FP16, BF16, INT8], ids=lambda runner: runner.name)
def test_one_session_for_layers_and_their_piece_gives_what_two_give(name, candidate, monkeypatch):
    sessions = sys.modules["layerdiff.compare.lockstep.sessions"]
    rules: dict[str, Any] = {"layers": "all", "memory": 1 << 16}
    joined = compare(NETWORKS[name](), candidate, data_of(name), **rules)
    monkeypatch.setattr(sessions, "_joins", lambda side, part: False)
    apart = compare(NETWORKS[name](), candidate, data_of(name), **rules)
    assert [(la.tensor, la.local, la.cumulative) for la in joined.layers] == [
        (la.tensor, la.local, la.cumulative) for la in apart.layers
    ]
    assert joined.fidelity == apart.fidelity


def test_an_emulation_opens_one_session_for_each_piece_and_none_beside(monkeypatch):
    opened: list[int] = []
    open_session = EmulateRunner.open

    def opening(runner, model, **rest):
        opened.append(len(model.outputs))
        return open_session(runner, model, **rest)

    monkeypatch.setattr(EmulateRunner, "open", opening)
    report = compare(networks.residual(), FP16, data_of("residual", 1), memory=1 << 20)
    pieces = len({layer.piece for layer in report.layers})
    assert (report.verdict, pieces > 1) == ("pass", True)
    assert len(opened) == 1 + pieces
    assert sum(opened[1:]) == 2 * len(report.layers)
