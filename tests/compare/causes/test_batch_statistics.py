"""A BatchNormalization in training mode on one side is told where the batch's statistics explain the output."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.compare.causes import batch_statistics
from layerdiff.compare.causes.expected_noise import Noise
from layerdiff.compare.lockstep.plan import LayerPair
from layerdiff.compare.sides import Side
from layerdiff.graph.cutting.slices import backward
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.roundings import Roundings

from support.layer_cases import layer_case, told
from support.layerwise import compare, only
from support.models import normal, parsed

SCALE, SHIFT, MEAN = normal(4, seed=1), normal(4, seed=2), normal(4, seed=3)
VARIANCE = np.abs(normal(4, seed=4)) + np.float32(0.5)
WEIGHTS = {"scale": SCALE, "shift": SHIFT, "mean": MEAN, "variance": VARIANCE}
X = normal(3, 4, 5, 5, seed=5)
ALONE = "[norm] y = BatchNormalization(x, scale, shift, mean, variance)"
RECTIFIED = "[norm] n = BatchNormalization(x, scale, shift, mean, variance) [relu] y = Relu(n)"
BEHIND_ANOTHER = "[up] h = Neg(x) [norm] y = BatchNormalization(h, scale, shift, mean, variance)"
GAINED = "[norm] n = BatchNormalization(x, scale, shift, mean, variance) [tanh] y = Tanh(n)"


def network(body):
    return parsed(f"g (float[3,4,5,5] x) => (float[3,4,5,5] y) {{ {body} }}", **WEIGHTS)


def normalized(x, mean, variance):
    over = (1, 4, 1, 1)
    scale, shift, mean, variance = (a.reshape(over) for a in (SCALE, SHIFT, mean, variance))
    return ((x - mean) / np.sqrt(variance + 1e-5) * scale + shift).astype(np.float32)


STORED = normalized(X, MEAN, VARIANCE)
OF_THE_BATCH = normalized(X, X.mean(axis=(0, 2, 3)), X.var(axis=(0, 2, 3)))


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(
    ("body", "y", "c", "side"),
    [
        (ALONE, STORED, OF_THE_BATCH, "candidate"),
        (ALONE, OF_THE_BATCH, STORED, "reference"),
        (RECTIFIED, relu(STORED), relu(OF_THE_BATCH), "candidate"),
    ],
)
def test_the_side_that_normalizes_by_the_batch_is_told(body, y, c, side):
    found = batch_statistics.find(layer_case(y, c, model=network(body), tensors={"x": X}))
    assert found.cause == "attribute"
    assert told(found).startswith(f"the {side} normalizes by mean and variance of the batch that it is given")
    assert told(found).endswith("nothing of the difference is left")


def test_what_is_given_may_be_made_inside():
    case = layer_case(STORED, OF_THE_BATCH, model=network(BEHIND_ANOTHER), tensors={"x": -X, "h": X})
    assert batch_statistics.find(case) is not None


@pytest.mark.parametrize(
    ("body", "c"),
    [
        (ALONE, STORED),
        (ALONE, 2 * STORED),
        (ALONE, normalized(X, X.mean(axis=(0, 2, 3)), VARIANCE)),
        (ALONE, STORED[:1]),
        (GAINED, OF_THE_BATCH),
        ("[norm] y = Neg(x)", OF_THE_BATCH),
    ],
    ids=["equal", "scaled", "the mean alone", "another shape", "more behind it", "no BatchNormalization"],
)
def test_what_the_batch_does_not_explain_is_not(body, c):
    assert batch_statistics.find(layer_case(STORED, c, model=network(body), tensors={"x": X})) is None


def test_what_the_graphs_say_is_told_as_that():
    trained = "[norm] y, m, v = BatchNormalization<training_mode=1>(x, scale, shift, mean, variance)"
    culprit = only(compare(network(ALONE), network(trained), [{"x": X}]))
    assert (culprit.node, culprit.cause, culprit.evidence) == ("norm", "attribute", "training_mode 0 against 1")


@pytest.mark.parametrize(("mode", "alone"), [(0, True), (1, False)])
def test_no_entry_of_a_batch_stands_for_the_statistics_of_all(mode, alone):
    outputs = "y, m, v" if mode else "y"
    text = f"[norm] {outputs} = BatchNormalization<training_mode={mode}>(x, scale, shift, mean, variance)"
    file = parsed(f"g (float[3,4,256,256] x) => (float[3,4,256,256] y) {{ {text} }}", **WEIGHTS)
    stored = Model(parsed(f"g (float[3,4,256,256] x) => (float[3,4,256,256] y) {{ {ALONE} }}", **WEIGHTS))
    sides = Side("program", OnnxrtRunner(), stored), Side("file", OnnxrtRunner(), Model(file))
    layer = LayerPair(0, 0, *(backward(side.model.index, ["y"], ()) for side in sides))
    values = {name: np.ones((3, 4, 256, 256), np.float32) for name in "xy"}
    assert (Noise(*sides, Roundings(0, 0, 0, 0, 0)).entry(layer, values, values) is not None) == alone
