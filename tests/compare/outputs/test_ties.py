"""Differences of integer and bool outputs: ties where the deciding floats lie within tolerance, else mismatches."""

import numpy as np
import onnx
import pytest
from layerdiff.compare.outputs.ties import count_ties, decider
from layerdiff.compare.outputs.tolerance import Tolerance
from layerdiff.graph.index import GraphIndex
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from support.models import parsed

TOLERANCE = Tolerance(0.0, 0.01)


def index_of(text, **constants):
    """A graph in ONNX text: inputs and outputs, then the nodes; constants become initializers."""
    model = parsed(f"g {text}", **constants)
    onnx.checker.check_model(model)
    return GraphIndex(model)


def run(index, x, names):
    return ReferenceEvaluator(index.proto).run(list(names), {index.inputs[0]: x})


def judge(index, x, disturbed, output="y", tolerance=TOLERANCE):
    """Ties and mismatches of the graph on ``disturbed`` against the graph on ``x``."""
    d = decider(index, output)
    assert d is not None
    (reference,) = run(index, x, [output])
    (candidate,) = run(index, disturbed, [output])
    values = {name: x if name == index.inputs[0] else run(index, x, [name])[0] for name in d.tensors}
    return count_ties(d, values, reference, candidate, tolerance)


SCORES = np.array([[0.1, 0.9, 0.905, 0.2], [0.5, 0.1, 0.2, 0.3]], np.float32)
SWAPPED = np.array([[0.1, 0.91, 0.905, 0.2], [0.5, 0.1, 0.2, 0.3]], np.float32)
WRONG = np.array([[0.1, 0.91, 0.905, 0.2], [0.5, 0.1, 0.9, 0.3]], np.float32)

CHOICES = {
    "ArgMax": "(float[2,4] x) => (int64[2] y) { y = ArgMax<axis=1, keepdims=0>(x) }",
    "keepdims": "(float[2,4] x) => (int64[2,1] y) { y = ArgMax<axis=-1>(x) }",
    "cast": "(float[2,4] x) => (int32[2] y) { a = ArgMax<axis=1, keepdims=0>(x) y = Cast<to=6>(a) }",
    "moved": "(float[2,4] x) => (int64[1,2] y) { a = ArgMax<axis=1>(x) y = Transpose<perm=[1,0]>(a) }",
    "flattened": "(float[2,4] x) => (int64[1,2] y) { a = ArgMax<axis=1>(x) y = Flatten<axis=0>(a) }",
    "along axis 0": """(float[2,4] x) => (int64[2] y) {
        t = Transpose<perm=[1,0]>(x) y = ArgMax<axis=0, keepdims=0>(t) }""",
    "ArgMin": "(float[2,4] x) => (int64[2] y) { n = Neg(x) y = ArgMin<axis=1, keepdims=0>(n) }",
}


def test_a_choice_between_values_made_of_larger_terms_is_a_tie_within_those():
    index = index_of("(float[2,4] x) => (int64[2] y) { r = Relu(x) y = ArgMax<axis=1, keepdims=0>(r) }")
    d = decider(index, "y")
    scores, swapped = np.float32([[0, 3e-6, 4e-6, 0]]), np.float32([[0, 5e-6, 4e-6, 0]])
    chosen = [np.argmax(s, axis=1) for s in (scores, swapped)]
    rule = Tolerance(1e-6, 1e-6, "auto", scaled=True)
    assert count_ties(d, {"r": scores}, *chosen, rule) == (0, 1)
    assert count_ties(d, {"r": scores}, *chosen, rule, {"r": np.float64([[1, 1, 1, 1]])}) == (1, 0)
    assert count_ties(d, {"r": scores}, *chosen, rule, {"r": None}) == (0, 1)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_between_values_within_tolerance_is_a_tie(name):
    index = index_of(CHOICES[name])
    assert judge(index, SCORES, SCORES) == (0, 0)
    assert judge(index, SCORES, SWAPPED) == (1, 0)
    assert judge(index, SCORES, WRONG) == (1, 1)
    assert judge(index, SCORES, SWAPPED, tolerance=Tolerance(0, 1e-4)) == (0, 1)


def test_a_tie_between_two_does_not_excuse_a_third():
    index = index_of(CHOICES["ArgMax"])
    reference = np.array([2, 0])
    for chosen, expected in ((1, (1, 0)), (3, (0, 1)), (7, (0, 1)), (-1, (0, 1))):
        assert count_ties(decider(index, "y"), {"x": SCORES}, reference, np.array([chosen, 0]), TOLERANCE) == expected


TOPK = """(float[2,4] x) => (float[2,3] v, int64[2,3] y) { v, y = TopK<axis=1>(x, k) }"""


def test_indices_of_topk():
    index = index_of(TOPK, k=np.array([3]))
    assert decider(index, "v") is None
    assert judge(index, SCORES, SCORES) == (0, 0)
    assert judge(index, SCORES, SWAPPED) == (2, 0)
    assert judge(index, SCORES, WRONG)[1] > 0
    twice = np.array([[1, 1, 3], [0, 3, 2]])
    (reference,) = run(index, SCORES, ["y"])
    assert count_ties(decider(index, "y"), {"x": SCORES}, reference, twice, TOLERANCE) == (0, 1)


def test_the_first_of_topk():
    text = """(float[2,4] x) => (int64[2] y) {
        v, i = TopK<axis=1>(x, k) s = Slice(i, start, end, axes) y = Squeeze(s, axes) }"""
    index = index_of(text, k=np.array([3]), start=np.array([0]), end=np.array([1]), axes=np.array([1]))
    assert judge(index, SCORES, SWAPPED) == (1, 0)
    assert judge(index, SCORES, WRONG) == (1, 1)


X = np.array([0.5, 0.499, 0.2, 0.8, -0.5], np.float32)
NEAR = np.array([0.499, 0.501, 0.2, 0.8, -0.5], np.float32)
FAR = np.array([0.499, 0.501, 0.9, 0.1, -0.5], np.float32)

# nodes, output type, ties of NEAR, mismatches of FAR
THRESHOLDS = {
    "Greater": ("y = Greater(x, half)", "bool", 1, 2),
    "GreaterOrEqual": ("y = GreaterOrEqual(x, half)", "bool", 2, 2),
    "Less": ("y = Less(x, half)", "bool", 2, 2),
    "LessOrEqual": ("y = LessOrEqual(x, half)", "bool", 1, 2),
    "constant first": ("y = Less(half, x)", "bool", 1, 2),
    "Equal": ("y = Equal(x, half)", "bool", 1, 0),
    "two tensors": ("s = Abs(x) t = Mul(x, x) y = Greater(s, t)", "bool", 0, 0),
    "Not": ("a = Greater(x, half) y = Not(a)", "bool", 1, 2),
    "And": ("a = Greater(x, half) b = Less(x, one) y = And(a, b)", "bool", 1, 2),
    "Or": ("a = Greater(x, half) b = Less(x, zero) y = Or(a, b)", "bool", 1, 2),
    "Xor": ("a = Greater(x, half) b = Less(x, zero) y = Xor(a, b)", "bool", 1, 2),
    "cast": ("a = Greater(x, half) y = Cast<to=7>(a)", "int64", 1, 2),
    "Round": ("r = Round(x) y = Cast<to=7>(r)", "int64", 1, 2),
    "Cast": ("a = Add(x, half) y = Cast<to=6>(a)", "int32", 2, 2),
    "Floor": ("a = Add(x, half) f = Floor(a) y = Cast<to=6>(f)", "int32", 2, 2),
    "to bool": ("a = Sub(x, half) y = Cast<to=9>(a)", "bool", 1, 0),
    "QuantizeLinear": ("y = QuantizeLinear(x, one, zp)", "int8", 1, 2),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_value_within_tolerance_of_the_threshold_is_a_tie(name):
    nodes, kind, ties, mismatches = THRESHOLDS[name]
    constants = {"half": np.float32(0.5), "one": np.float32(1), "zero": np.float32(0), "zp": np.int8(3)}
    index = index_of(f"(float[5] x) => ({kind}[5] y) {{ {nodes} }}", **constants)
    assert judge(index, X, X) == (0, 0)
    assert judge(index, X, NEAR) == (ties, 0)
    assert judge(index, X, FAR) == (ties, mismatches)


def test_a_result_beyond_the_interval_is_no_tie():
    index = index_of("(float[1] x) => (int64[1] y) { r = Round(x) y = Cast<to=7>(r) }")
    d, x = decider(index, "y"), np.array([0.5], np.float32)
    for result, expected in ((0, (0, 0)), (1, (1, 0)), (2, (0, 1)), (-1, (0, 1))):
        assert count_ties(d, {"x": x}, np.array([0]), np.array([result]), TOLERANCE) == expected


EXACT = {
    "integers": "(int64[5] x) => (int64[5] y) { y = Add(x, x) }",
    "ArgMax of integers": "(int64[5] x) => (int64[1] y) { y = ArgMax(x) }",
    "a shape": "(float[5] x) => (int64[1] y) { y = Shape(x) }",
    "NonZero": "(float[5] x) => (int64[1,n] y) { y = NonZero(x) }",
    "a float": "(float[5] x) => (float[5] y) { y = Relu(x) }",
    "an integer input": "(int64[5] x) => (int64[5] y) { y = Identity(x) }",
    "arithmetic after the choice": "(float[5] x) => (int64[1] y) { a = ArgMax(x) y = Add(a, a) }",
    "a comparison of integers": "(int64[5] x) => (bool[5] y) { y = Greater(x, x) }",
}


@pytest.mark.parametrize("name", EXACT)
def test_what_no_float_decided_is_exact(name):
    assert decider(index_of(EXACT[name]), "y") is None


def test_the_decider_is_named():
    index = index_of("(float[2,4] x) => (int64[2] y) { s = Softmax(x) y = ArgMax<axis=1, keepdims=0>(s) }")
    d = decider(index, "y")
    assert (d.op, d.tensors, str(d)) == ("ArgMax", ("s",), "ArgMax of s")


def test_a_tolerance_that_decides_nothing_excuses_nothing():
    index = index_of(CHOICES["ArgMax"])
    assert judge(index, SCORES, SWAPPED, tolerance=Tolerance(1, 1, decidable=False)) == (0, 1)


def test_nan_is_no_tie():
    index = index_of(CHOICES["ArgMax"])
    broken = np.full_like(SCORES, np.nan)
    assert count_ties(decider(index, "y"), {"x": broken}, np.array([0, 0]), np.array([1, 0]), TOLERANCE) == (0, 1)
    index = index_of("(float[5] x) => (bool[5] y) { y = Greater(x, half) }", half=np.float32(0.5))
    nothing = np.full(5, np.nan, np.float32)
    ones, zeros = np.ones(5, bool), np.zeros(5, bool)
    assert count_ties(decider(index, "y"), {"x": nothing}, zeros, ones, TOLERANCE) == (0, 5)


def test_one_tolerance_for_each_tensor():
    node = helper.make_node("Greater", ["a", "b"], ["y"])
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.BOOL, [1])
    index = GraphIndex(helper.make_model(helper.make_graph([node], "g", infos, [output])))
    values = {"a": np.array([1.0]), "b": np.array([1.1])}
    for error, expected in ((0.02, (0, 1)), (0.2, (1, 0))):
        tolerances = {"a": Tolerance(0, 0.01), "b": Tolerance(0, error)}
        found = count_ties(decider(index, "y"), values, np.array([False]), np.array([True]), tolerances)
        assert found == expected
