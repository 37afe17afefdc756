"""What the two graphs say: another attribute, other weights, another operator."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import differences, shape
from layerdiff.graph.pairing.changes import AttributeChange, OperatorChange
from layerdiff.graph.pairing.differences import Difference
from layerdiff.graph.pairing.weight_changes import WeightChange

from support.layer_cases import layer_case, told
from support.models import parsed

Y = np.ones((2, 3), np.float32)
TWO = parsed("g (float[2,3] x) => (float[2,3] y) { a = Mul(x, w) y = Softmax(a) }", w=np.float32(2))
QUANTIZER = parsed("g (float[2,3] x) => (int8[2,3] y) { y = QuantizeLinear(x, w, z) }", w=np.float32(1), z=np.int8(0))
AXIS = Difference(1, 1, AttributeChange("axis", -1, 0), "axis")
OTHER = Difference(1, 1, OperatorChange((("Softmax", "n"),), (("Sigmoid", "m"),)))
ONE_FACTOR = Difference(0, 0, WeightChange((), (), 1, 0.5, (), (2.0, 2.5)), "const")
FACTORS = Difference(0, 0, WeightChange((64,), (64,), 3, 0.5, (7,), (2.0, 2.5)), "const")


def in_graphs(*found, model=TWO, **more):
    return differences.in_graphs(layer_case(Y, Y + 1, model=model, differences=found, **more))


@pytest.mark.parametrize(
    ("difference", "model", "cause", "node"),
    [
        (AXIS, TWO, "attribute", 1),
        (OTHER, TWO, "wrong-op", 1),
        (FACTORS, TWO, "weights", 0),
        (ONE_FACTOR, TWO, "scale", 0),
        (ONE_FACTOR, QUANTIZER, "quantization", 0),
    ],
)
def test_the_cause_is_the_kind_of_the_difference(difference, model, cause, node):
    found = in_graphs(difference, model=model)
    assert (found.cause, found.node, told(found)) == (cause, node, difference.detail)
    assert found.facts[0].difference is difference


def test_of_several_weights_of_one_node_each_is_told_by_its_name():
    two = [Difference(0, 0, WeightChange((64,), (64,), 3, 0.5, (7,), (2.0, 2.5)), name) for name in ("w", "r")]
    differ = "3 of 64 weights differ, greatest 0.5 at [7], 2 against 2.5"
    assert told(in_graphs(*two)) == f"W: {differ}; R: {differ}"
    assert told(in_graphs(two[0], AXIS)) == f"axis -1 against 0; Mul Mul_0 too: {differ}"


MOVED = parsed(
    "g (float[2,3] x) => (float[2,3] y) { a = Mul(x, w) y = Slice(a, s, e, s) }",
    w=np.float32(2),
    s=np.array([1]),
    e=np.array([3]),
)


@pytest.mark.parametrize(
    ("movement", "first"),
    [
        (OperatorChange((("Split", "n"),), (("Slice", "m"),)), "weights"),
        (AttributeChange("axes", None, [2]), "weights"),
        (AttributeChange("axes", [1], [2]), "attribute"),
        (OperatorChange((("Slice", "n"),), ()), "wrong-op"),
        (OperatorChange((("Slice", "n"),), (("Tanh", "m"),)), "wrong-op"),
    ],
    ids=["another way to move", "not said", "moved otherwise", "not moved", "no movement"],
)
def test_another_way_to_move_data_is_told_behind_other_weights(movement, first):
    found = in_graphs(Difference(1, 1, movement, ""), FACTORS, model=MOVED)
    assert found.cause == first
    assert len(found.facts) == 2


def test_of_several_the_operator_comes_first_and_weights_last():
    differ = "3 of 64 weights differ, greatest 0.5 at [7], 2 against 2.5"
    assert told(in_graphs(FACTORS, AXIS)) == f"axis -1 against 0; Mul Mul_0 too: {differ}"
    assert (
        told(in_graphs(FACTORS, AXIS, OTHER))
        == f"Softmax n against Sigmoid m; Mul Mul_0 too: {differ}; axis -1 against 0"
    )


def test_many_differences_elsewhere_are_counted():
    more = [Difference(0, 0, WeightChange((64,), (64,), n, 0.5, (7,), (2.0, 2.5)), "const") for n in range(1, 7)]
    assert told(in_graphs(OTHER, *more)).endswith("; 3 more differences at 1 node of this layer")
    assert "more difference" not in told(in_graphs(OTHER, *more[:3]))


def test_weights_within_half_a_step_are_no_difference_where_the_layer_is_quantized():
    stepped = Difference(0, 0, WeightChange((64,), (64,), 3, 0.5, (7,), (2.0, 2.5), quantized=True), "w")
    assert in_graphs(stepped, quantized=True) is None
    assert in_graphs(stepped).cause == "weights"


def test_an_operator_is_told_only_after_the_values_had_their_say():
    assert differences.find(layer_case(Y, Y + 1, model=TWO, differences=(OTHER,))) is None
    assert differences.other_operator(layer_case(Y, Y + 1, model=TWO, differences=(OTHER,))).cause == "wrong-op"
    assert differences.find(layer_case(Y, Y + 1, model=TWO, differences=(AXIS,))).cause == "attribute"
    assert differences.find(layer_case(Y, Y + 1)) is None


# ---- another shape --------------------------------------------------------------------------------------------------


def test_another_shape_is_explained_by_the_graphs_where_they_differ():
    found = shape.find(layer_case(Y, Y.T, model=TWO, differences=(AXIS,)))
    assert found.cause == "attribute"
    assert told(found) == "axis -1 against 0; the reference gives 2x3, the candidate 3x2"


@pytest.mark.parametrize(("c", "text"), [(Y.T, "3x2"), (Y[0, 0], "a scalar")])
def test_another_shape_is_another_operator_where_they_do_not(c, text):
    found = shape.find(layer_case(Y, c))
    assert (found.cause, told(found)) == ("wrong-op", f"the reference gives 2x3, the candidate {text}")


def test_the_same_shape_is_none():
    assert shape.find(layer_case(Y, Y + 1)) is None
