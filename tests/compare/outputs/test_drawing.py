"""An error far beyond rounding is judged by a draw of a few entries of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.outputs.drawing import Drawing

from support.models import parsed

RNG = np.random.default_rng(0)
DEEP = "g (float[N, 64] x) => (float[N, 64] y) { a = MatMul(x, w) b = Tanh(a) c = MatMul(b, w) y = Tanh(c) }"
MIXED = (
    "g (float[N, 64] x) => (float[N, 64] y) { a = MatMul(x, w) m = ReduceMean<axes=[0]>(a) b = Sub(a, m) y = Tanh(b) }"
)
SQUARE = (RNG.standard_normal((64, 64)) / 8).astype(np.float32)


@pytest.fixture
def drawn(monkeypatch):
    """The sizes of the batches that were drawn."""
    sizes = []
    whole, few = Drawing.draw, Drawing.draw_once

    def counting(self, sample, feed, *rest):
        sizes.append(len(feed["x"]))
        return whole(self, sample, feed, *rest)

    def counting_few(self, feed, *rest):
        sizes.append(len(feed["x"]))
        return few(self, feed, *rest)

    monkeypatch.setattr(Drawing, "draw", counting)
    monkeypatch.setattr(Drawing, "draw_once", counting_few)
    return sizes


def batch(text, factor, seed=5):
    """A network on 32 entries beside one with another factor in the last of its weights."""
    feed = {"x": np.random.default_rng(seed).standard_normal((32, 64)).astype(np.float32)}
    other = SQUARE.copy()
    other[0, 0] *= factor
    both = [parsed(text, w=w) for w in (SQUARE, other)]
    runners = [OnnxrtRunner(threads=1, optimization="disable")]
    (found,) = Comparator(both[0], runners, candidate_model=both[1], data_loader=[feed]).compare().outputs
    return found


def test_a_few_entries_decide_where_an_error_is_far_beyond_rounding(drawn, monkeypatch):
    found = batch(DEEP, -3)
    assert (found.verdict, drawn) == ("fail", [2])
    monkeypatch.setattr("layerdiff.compare.outputs.expectation.MANY_ENTRIES", 1000)
    whole = batch(DEEP, -3)
    assert (whole.verdict, drawn[1]) == ("fail", 32)
    assert found.expected["rms_z"] == pytest.approx(whole.expected["rms_z"], rel=0.3)


def test_all_entries_are_drawn_where_rounding_may_explain_the_error(drawn):
    assert batch(DEEP, 1 + 2**-22).verdict == "pass"
    assert set(drawn) <= {32}


def test_entries_that_are_computed_together_are_drawn_together(drawn):
    assert batch(MIXED, -3).verdict == "fail"
    assert drawn[0] == 2
    assert set(drawn[1:]) == {32}
