"""Outputs disagree and no layer exceeds its noise: which one is named, and why, or that the error is spread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layerdiff.compare.causes.case import LoudLayer
from layerdiff.compare.causes.differences import beyond_formats, stated
from layerdiff.compare.causes.examiner import loudest
from layerdiff.compare.causes.judgement import Judgement
from layerdiff.compare.causes.quantized_layer import QuantizedLayer
from layerdiff.compare.causes.shared_scale import SharedScale
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.pairing.differences import Difference
from layerdiff.graph.pairing.weight_changes import weight_change

from support.layer_cases import told
from support.models import parsed

SHARES = (("n_a", 0.9), ("n_b", 0.3), ("n_c", 0.2), ("n_d", 0.1))


def layer(contribution=0.9, relative=0.01, known=True, rms_z=1.04, plain=1e-3, op="MatMul", **more) -> LoudLayer:
    judgement = Judgement(False, 0, relative, rms_z=rms_z, known=known)
    return LoudLayer(judgement, contribution, plain, (("n_a", contribution), *SHARES[1:]), "n_a", op, **more)


STEPS = QuantizedLayer("h", "operand", 0.2, None)
CHANNELS = SharedScale("h", "tensor", 3, 1, 322.6, 32, 31, 256, 127.0)
JOINED = QuantizedLayer("h", "result", 0.2, replace(CHANNELS, none=30), joins=4)


@pytest.mark.parametrize(
    ("case", "cause", "text"),
    [
        (layer(), "cancellation", "its error is rounding (RMS z 1.0), but 1.0e-02 of its values, and explains 90% of "
                                  "the final error: its inputs cancel; raise the precision before it"),
        (layer(rms_z=None), "cancellation", "its error is rounding, but 1.0e-02 of its values"),
        (layer(known=False), "unknown", "its expected noise is unknown; it is off by 1.0e-02 of its values and "
                                        "explains 90% of the final error"),
        (layer(known=False, contribution=1.71), "unknown", "its expected noise is unknown; it is off by 1.0e-02 of its "
                                                           "values and explains 100% of the final error"),
        (layer(contribution=0.6), "spread", "no layer is beyond rounding; the greatest contributions are n_a 60%, "
                                            "n_b 30%, n_c 20%"),
        (layer(relative=7e-3), "spread", "no layer is beyond rounding; the greatest contributions are n_a 90%"),
        *((layer(op=op), "spread", "no layer is beyond rounding") for op in ("Reshape", "Sin", "QuantizeLinear")),
        *((layer(op=op), "cancellation", "its error is rounding") for op in ("Sub", "Add", "Conv", "ReduceSum")),
        (layer(op="Add", relative=3e-4, growth=54.0, readers=("warp (GridSample)",), coordinates=True), "amplified",
         "its error is rounding, 3.0e-04 of its values, which warp (GridSample) reads as coordinates; it grows 54 "
         "times on the way to the outputs and makes 90% of the final error: keep it in FP32"),
        (layer(op="Loop"), "narrow-accumulator", "what it carries from step to step is rounded at each, and what is "
         "small beside it is lost: an error of 1.0e-02, which makes 90% of the final one"),
        (layer(op="GRU"), "narrow-accumulator", "what it carries from step to step"),
        (layer(op="Loop", relative=3e-4), "spread", "no layer is beyond rounding"),
        (layer(op="Loop", contribution=0.5), "spread", "no layer is beyond rounding"),
        (layer(relative=3e-4, growth=2.0), "spread", "no layer is beyond rounding"),
        (layer(contribution=0.5, relative=3e-4, growth=54.0), "spread", "no layer is beyond rounding"),
        (layer(quantized=STEPS, growth=5.0), "quantization",
         "the rounding of what it is given, 'h', alone explains an error of 0.2 in n_a, which makes 90% of the final "
         "error; leaving n_a in floating point avoids it"),
        (layer(quantized=replace(STEPS, shared=CHANNELS), growth=5.0), "quantization",
         "'h' has one scale for 32 channels (axis 1): channel 3 sets the range, 322.6, and 31 others are left with "
         "fewer than 16 of 256 levels; a range of 99.9 % of the values makes the step 127 times smaller; the rounding"),
        (layer(contribution=0.5, growth=0.1, joins="cat", quantized=JOINED), "quantization",
         "'h' has one scale for 32 channels (axis 1): channel 3 sets the range, 322.6, and 31 others are left with "
         "fewer than 16 of 256 levels, 30 of them with zero alone; a range of 99.9 % of the values makes the step 127 "
         "times smaller; cat puts tensors together that need scales of their own; the rounding of its result, 'h', "
         "alone explains an error of 0.2 in cat"),
        (layer(contribution=0.5, growth=0.1, quantized=replace(JOINED, joins=None)), "spread", "no layer is beyond"),
        (layer(contribution=0.5, growth=0.1, joins="cat", quantized=replace(JOINED, shared=CHANNELS)), "spread", ""),
        (layer(contribution=0.5, quantized=STEPS, growth=5.0), "spread", "no layer is beyond rounding"),
        (layer(quantized=STEPS, growth=1.0), "spread", "no layer is beyond rounding"),
    ],
)  # fmt: skip
def test_the_loudest_layer(case, cause, text):
    found = loudest(case)
    assert found.cause == cause
    assert told(found).startswith(text)


@pytest.mark.parametrize(("place", "named"), [("operand", "h"), ("weights", None), ("result", None)])
def test_who_makes_channels_of_very_different_size_is_named_and_not_who_rounds_them(place, named):
    shared = replace(CHANNELS, kind="weights" if place == "weights" else "tensor")
    assert loudest(layer(quantized=QuantizedLayer("h", place, 0.2, shared), growth=5.0)).producer == named


def test_functions_of_one_tensor_that_enlarge_its_rounding_are_one():
    """Of sine and cosine of a large angle, each makes as much as the other."""
    sine = replace(layer(op="Sin", relative=0.6), shares=(("n_a", 0.9), ("cos", 0.89), ("n_c", 0.2)))
    assert loudest(sine).cause == "spread"
    both = replace(sine, source="angle", beside=(("cos", "Cos"),), same=frozenset({"cos"}))
    found = loudest(both)
    assert (found.cause, found.producer) == ("amplified", "angle")
    assert told(found).startswith("n_a (Sin) and cos (Cos) enlarge the rounding of 'angle' 600 times, to 6.0e-01 of")
    assert loudest(replace(sine, source="angle")).cause == "spread"
    assert loudest(replace(both, judgement=replace(sine.judgement, relative=7e-3))).cause == "spread"


def test_a_layer_beside_others_that_make_as_much_is_not_named():
    """Contributions are roots of shares: three of 0.74, 0.66 and 0.61 are three alike."""
    alike = replace(
        layer(contribution=0.74, quantized=STEPS, growth=5.0), shares=(("a", 0.74), ("b", 0.66), ("c", 0.61))
    )
    assert loudest(alike).cause == "spread"


def different(stored: str | None, contribution: float) -> LoudLayer:
    text = "g (float[2] x) => (float[2] y) { [n_a] y = MatMul(x, w) }"
    index = GraphIndex(parsed(text, w=np.ones((2, 2), np.float32)))
    change = weight_change(np.array([1.0, 2.0], np.float32), np.array([1.0, 2.5], np.float32))
    assert change is not None
    found = beyond_formats([(0, Difference(0, 0, replace(change, rounded_to=stored, stored=True), "b"))])
    return layer(contribution, stated=stated(index, found))


def test_of_the_layer_that_makes_most_what_the_graphs_state_is_told_before_its_rounding() -> None:
    found = loudest(different(None, 0.9))
    assert (found.cause, found.node) == ("weights", 0)
    assert found.facts[0].text == "1 of 2 weights differ, greatest 0.5 at [1], 2 against 2.5"
    assert loudest(different(None, 0.5)).cause == "spread"
    assert loudest(different("fp16", 0.9)).cause == "cancellation"
