"""What ONNX Runtime gives is handed out as arrays."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph.load import load
from layerdiff.runners.onnxrt import ortvalues

from support.models import parsed

FEED = {"x": np.ones((2, 4), np.float32)}


def output(**options):
    with OnnxrtRunner(**options).session(
        load(parsed("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"))
    ) as session:
        return session.infer(FEED)["y"]


@pytest.mark.parametrize(("low_memory", "copied"), [(False, True), (True, False)])
def test_small_outputs_do_not_keep_the_arena_that_they_were_made_in(low_memory, copied):
    made = output(low_memory=low_memory)
    assert np.array_equal(made, FEED["x"])
    assert made.flags.owndata == copied


def test_large_ones_are_not_copied(monkeypatch):
    monkeypatch.setattr(ortvalues, "SMALL", 16)
    assert not output().flags.owndata
