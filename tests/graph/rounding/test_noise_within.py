"""The expected noise of recurrent layers and of bodies: as large as the error of emulated formats."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import EmulateRunner
from layerdiff.graph.cutting.slices import backward, exploded_name
from layerdiff.graph.formats import BF16, FP16
from layerdiff.graph.load import load
from layerdiff.graph.rounding.noise_within import drawn_within, rounds_within
from layerdiff.graph.rounding.rounding_sides import Roundoff
from layerdiff.graph.specs import specs_of

from support.layerwise import ORT
from support.models import infer, normal, parsed

GRU = "g (float[12,3,8] x) => (float[12,1,3,16] y) { y = GRU<hidden_size = 16>(x, w, r) }"
IF = """g (bool c, float[64,8] x) => (float[64,16] y) {
    y = If(c) <then_branch = t () => (float[64,16] a) { p = MatMul(x, w) q = Exp(p) a = MatMul(q, v) },
               else_branch = e () => (float[64,16] b) { b = MatMul(x, w) }>
}"""
CASES = {
    "recurrent": (GRU, {"w": normal(1, 48, 8, scale=0.3), "r": normal(1, 48, 16, seed=1, scale=0.3)}, (12, 3, 8)),
    "body": (IF, {"w": normal(8, 16, scale=0.3), "v": normal(16, 16, seed=1)}, (64, 8)),
}


@pytest.mark.parametrize("fmt", [FP16, BF16], ids=lambda f: f.name)
@pytest.mark.parametrize("case", CASES)
def test_noise_is_as_large_as_the_error_of_an_emulated_format(case, fmt):
    text, weights, shape = CASES[case]
    model = load(parsed(text, **weights))
    feed = {"x": normal(*shape, seed=2)}
    if case == "body":
        feed["c"] = np.array(True)
    part = backward(model.index, ["y"], set(model.index.inputs))
    assert rounds_within(model.index, part)
    exact = infer(ORT, model, feed)["y"]
    error = infer(EmulateRunner(format=fmt.name, threads=1), model, feed)["y"] - exact
    draws = []
    for number in range(4):
        made, gain = drawn_within(
            model, (0, part), specs_of(feed), Roundoff(candidate=fmt), feed, number, lambda m, f: infer(ORT, m, f)
        )
        draws.append((made[exploded_name("y", 0)] - exact) / gain)
    expected, measured = (float(np.sqrt(np.mean(np.square(np.stack(a))))) for a in (draws, [error]))
    assert 0.3 < measured / expected < 1.5


def test_other_layers_round_at_their_borders():
    model = load(parsed("g (float[2,8] x) => (float[2,8] y) { y = Softmax(x) }"))
    assert not rounds_within(model.index, backward(model.index, ["y"], set(model.index.inputs)))
