"""Preprocessing that one side has and the other has not, from the values that enter the first layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.compare.causes.input_stage import find

from support import networks
from support.layer_cases import layer_case, told
from support.models import normal, parsed

FIRST = parsed("g (float[2, 3, 8, 8] x) => (float[2, 3, 8, 8] y) { y = Neg(x) }")
INNER = parsed("g (float[2, 3, 8, 8] x, float[2, 3, 8, 8] z) => (float[2, 3, 8, 8] y) { y = Add(x, z) }")
X = (128 + 50 * normal(2, 3, 8, 8)).astype(np.float32)
MEAN, STD = (np.float32(v).reshape(1, 3, 1, 1) for v in ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]))
LAST = X.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("mine", "theirs", "cause", "words"),
    [
        (X, X[:, ::-1], "layout", ["channels are reversed along axis 1"]),
        (LAST, LAST[..., ::-1], "layout", ["channels are reversed along axis 3"]),
        (X, X / np.float32(255), "scale", ["scaled by 0.00392157 (1/255)"]),
        (X / np.float32(255), X, "scale", ["scaled by 255"]),
        (X, X - MEAN, "scale", ["shifted by -123.7, -116.3, -103.5"]),
        (X, (X - MEAN) / STD, "scale", ["scaled by 0.0171", "shifted by -2.118"]),
        (X, (X[:, ::-1] - MEAN) / STD, "layout", ["channels are reversed", "scaled by 0.0171", "shifted by"]),
        (X, X, None, []),
        (X, X * np.float32(1 + 1e-6), None, []),
        (X, normal(2, 3, 8, 8, seed=1), None, []),
        (X, np.square(X), None, []),
        (X, X[:, :, ::-1], None, []),
        (X, X[:, :1], None, []),
        (np.ones_like(X), 2 * np.ones_like(X), None, []),
    ],
)
def test_what_was_done_to_the_input_is_told(mine, theirs, cause, words):
    found = find(layer_case(mine, theirs, model=FIRST, operands=(mine, np.ascontiguousarray(theirs))))
    assert (None if found is None else found.cause.value) == cause
    assert all(word in told(found) for word in words)


def test_layers_that_read_more_than_an_input_are_not_asked():
    assert find(layer_case(X, 2 * X, model=INNER, operands=(X, 2 * X))) is None


def net(*steps: tuple[str, np.ndarray, dict], moved: bool = False) -> onnx.ModelProto:
    """A network behind some steps; ``moved``: and behind a Transpose of its input, whose channels are last."""
    w = networks.Writer(3)
    x = "x"
    for i, (op, value, attributes) in enumerate(steps):
        x = w.node(op, [x, w.value(f"k{i}", value, value.dtype)], f"pre{i}", **attributes)
    x = w.node("Transpose", [x], "moved", perm=[0, 3, 1, 2]) if moved else x
    w.conv(w.node("Relu", [w.conv(x, "first", (3, 8))], "r"), "y", (8, 4))
    return w.model({"x": (networks.FLOAT, [2, 8, 8, 3] if moved else [2, 3, 8, 8])}, ["y"])


BGR = ("Gather", np.array([2, 1, 0]), {"axis": 1})
TO_ONE = ("Mul", np.array(1 / 255, np.float32), {})
LESS_MEAN = ("Sub", MEAN, {})


@pytest.mark.parametrize(
    ("reference", "candidate", "node", "words"),
    [
        ([], [BGR], "n_first", "channels are reversed"),
        ([BGR], [], "n_pre0", "channels are reversed"),
        ([], [TO_ONE], "n_first", "scaled by 0.00392157 (1/255)"),
        ([], [LESS_MEAN], "n_first", "shifted by -123.7, -116.3, -103.5"),
        ([LESS_MEAN], [], "n_pre0", "shifted by 123.7, 116.3, 103.5"),
        ([LESS_MEAN], [BGR, LESS_MEAN], "n_pre0", "channels are reversed"),
    ],
)
def test_steps_that_one_file_has_are_named(reference, candidate, node, words):
    comparator = Comparator(
        net(*reference),
        [OnnxrtRunner(threads=1)],
        candidate_model=net(*candidate),
        data_loader=[{"x": X}],
        layers="guilty",
    )
    (culprit,) = comparator.compare().culprits
    assert culprit.node == node
    assert words in culprit.evidence


@pytest.mark.parametrize(
    ("steps", "words", "remedy"),
    [
        (
            [("Gather", np.array([2, 1, 0]), {"axis": 3})],
            "channels are reversed along axis 1: RGB",
            "reverse the channels",
        ),
        ([("Sub", MEAN.reshape(3), {}), ("Div", STD.reshape(3), {})], "scaled by 0.0171", "normalize the input once"),
        ([TO_ONE], "scaled by 0.00392157 (1/255)", "normalize the input once"),
    ],
)
def test_they_are_told_of_a_network_that_begins_by_moving_its_axes(steps, words, remedy):
    model, other = net(moved=True), net(*steps, moved=True)
    comparator = Comparator(
        model, [OnnxrtRunner(threads=1)], candidate_model=other, data_loader=[{"x": LAST}], layers="guilty"
    )
    (culprit,) = comparator.compare().culprits
    assert words in culprit.evidence
    assert culprit.remedies[0].text.startswith(remedy)


def test_a_step_before_an_input_that_several_layers_read_is_one_fault():
    sum_of = "a = MatMul(OF, v) b = MatMul(OF, w) c = Mul(a, b) y = Add(OF, c)"
    text = f"g (float[8, 16] x) => (float[8, 16] y) {{ STEP {sum_of} }}"
    weights = {"v": normal(16, 16), "w": normal(16, 16, seed=1), "half": np.float32(1.5)}
    plain = parsed(text.replace("STEP", "").replace("OF", "x"), v=weights["v"], w=weights["w"])
    scaled = parsed(text.replace("STEP", "[more] s = Mul(x, half)").replace("OF", "s"), **weights)
    comparator = Comparator(
        plain,
        [OnnxrtRunner(threads=1)],
        candidate_model=scaled,
        data_loader=[{"x": normal(8, 16, seed=2)}],
        layers="all",
    )
    (culprit,) = comparator.compare().culprits
    assert culprit.evidence.startswith("Mul more is in the candidate alone")
