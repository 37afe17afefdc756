"""What is not run again, since it was run already.

The candidate's layers where its values are the reference's; and what a fault does to the outputs, where the candidate's
own run shows it.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import onnxruntime
import pytest
from layerdiff import Comparator, OnnxrtRunner

from support.models import normal, parsed

DEPTH = 6
TEXT = (
    "g (float[N, 32] x) => (float[N, 32] y) { h0 = Tanh(x) "
    + " ".join(f"m{i} = MatMul(h{i}, w{i}) h{i + 1} = Tanh(m{i})" for i in range(DEPTH))
    + f" y = MatMul(h{DEPTH}, wy) }}"
)
WEIGHTS = {**{f"w{i}": normal(32, 32, seed=i) / 6 for i in range(DEPTH)}, "wy": normal(32, 32, seed=9) / 6}
DATA = [{"x": normal(4, 32, seed=20)}, {"x": normal(4, 32, seed=21)}]


def compared(*changed):
    """The network beside one with other weights; in pieces of a layer or two."""
    other = {**WEIGHTS, **{name: WEIGHTS[name] + np.eye(32, dtype=np.float32) for name in changed}}
    runners = [OnnxrtRunner(threads=1, optimization="disable")]
    options = {"candidate_model": parsed(TEXT, **other), "data_loader": DATA, "layers": "all", "memory": 1 << 14}
    return Comparator(parsed(TEXT, **WEIGHTS), runners, **options).compare()


def shown(report):
    """What a report shows of layers, without what pictures are made of."""
    layers = [(layer.node, layer.verdict, layer.local, layer.cumulative, layer.contribution) for layer in report.layers]
    return layers, [(c.node, c.cause, c.contribution) for c in report.culprits]


@pytest.fixture
def opened(monkeypatch):
    """How many sessions were opened, and how often they ran."""
    counted = Counter()
    run, begin = onnxruntime.InferenceSession.run, onnxruntime.InferenceSession.__init__

    def running(session, *args):
        counted["runs"] += 1
        return run(session, *args)

    def opening(session, *args, **options):
        counted["sessions"] += 1
        begin(session, *args, **options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", running)
    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", opening)
    return counted


@pytest.mark.parametrize("changed", [("w0",), ("w3",), ("wy",), ("w1", "w4")], ids=" ".join)
def test_layers_are_the_same_whatever_is_saved(changed, monkeypatch, opened):
    saved = shown(compared(*changed))
    few = Counter(opened)
    opened.clear()
    monkeypatch.setattr(sys.modules["layerdiff.compare.lockstep.sessions"], "one_program", lambda *args: False)
    monkeypatch.setattr(sys.modules["layerdiff.compare.layers.piece_runs"], "same_bits", lambda *args: False)
    assert shown(compared(*changed)) == saved
    assert few["runs"] < opened["runs"]
    assert few["sessions"] < opened["sessions"]
    assert [c[0] for c in saved[1]]
