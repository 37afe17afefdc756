"""Weights that a converter clamped, in a layer that seems to overflow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from layerdiff.compare.causes import altered_weights
from layerdiff.graph.formats import FP16
from layerdiff.graph.pairing.differences import Difference
from layerdiff.graph.pairing.weight_changes import weight_change

from support.layer_cases import layer_case, told
from support.layerwise import compare, only
from support.models import normal, parsed

WEIGHTS = 1e4 * normal(32, 64, seed=1)
CLAMPED = WEIGHTS.clip(-1e4, 1e4).astype(np.float16)
CHANGE = weight_change(WEIGHTS, CLAMPED)
X = normal(64, 32, seed=2)
Y, WITH_THEIRS = X @ WEIGHTS, X @ CLAMPED.astype(np.float32)
C = np.where(np.abs(WITH_THEIRS) > 65504, np.inf * np.sign(WITH_THEIRS), WITH_THEIRS).astype(np.float32)


def found(c=C, made=WITH_THEIRS, change=CHANGE, **more):
    model = parsed("g (float[N,32] x) => (float[N,64] y) { y = MatMul(x, w) }", w=WEIGHTS)
    case = layer_case(
        Y, c, model=model, narrow=FP16, reason="finite", differences=(Difference(0, 0, change, "b"),)
    )  # fmt: skip
    return altered_weights.find(replace(case, reweighted=lambda _: made, ends_finite=more.get("ends_finite", True)))


def test_clamped_weights_are_told_with_what_overflows_beside_them():
    assert 0 < np.isinf(C).sum() < (np.abs(Y) > 65504).sum() / 2
    one = found()
    assert one.cause == "weights"
    assert "clamped at 10000" in told(one)
    beyond, infinite = (np.abs(Y) > 65504).sum(), np.isinf(C).sum()
    assert f"{beyond:,} values of the reference are above FP16's greatest, 65504, and {infinite:,} of" in told(one)


@pytest.mark.parametrize(
    "more",
    [
        {"ends_finite": False},  # the overflow reaches the outputs
        {"made": Y},  # with these weights the reference gives what it gave
        {"made": None},
        {"c": np.where(np.abs(Y) > 65504, np.inf, WITH_THEIRS)},  # all that is beyond the range is infinite
        {"change": weight_change(np.ones((32, 64), np.float32) / 3, np.ones((32, 64), np.float16) / np.float16(3))},
    ],
)
def test_an_overflow_stays_one(more):
    assert found(**more) is None


def typed(weights: np.ndarray, small: np.ndarray, kind: int) -> onnx.ModelProto:
    """Two branches that both end in numbers up to one: what becomes infinite in the product is finite behind them."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    constants = {"w": weights, "v": small, "s": np.float32(1e-4), "t": np.float32(1e-5)}
    return parsed(
        f"""g (float[N,32] x) => (float[N,8] y) {{ [enter] h = Cast<to={kind}>(x)
            [up] a = MatMul(h, w) [one] b = Mul(a, s) [two] c = Mul(a, t) [tanh] d = Tanh(b) [sigmoid] e = Sigmoid(c)
            [sum] f = Add(d, e) [down] g = MatMul(f, v) [leave] y = Cast<to=1>(g) }}""",
        **{name: np.asarray(value, dtype) for name, value in constants.items()},
    )


@pytest.mark.parametrize(
    ("greatest", "remedy"),
    [(1e4, "the first file's weights and Casts around it"), (3e4, None)],
)
def test_weights_that_a_converter_clamps_are_the_cause_and_not_the_overflow_that_they_leave(greatest, remedy):
    small = normal(64, 8, seed=3)
    report = compare(
        typed(WEIGHTS, small, onnx.TensorProto.FLOAT),
        typed(WEIGHTS.clip(-greatest, greatest), small, onnx.TensorProto.FLOAT16),
        [{"x": X}],
    )
    culprit = only(report)
    assert culprit.node == "up"
    assert culprit.cause == ("weights" if remedy else "overflow")
    assert remedy is None or remedy in culprit.remedies[0].text
    assert ("clamped at 10000" in culprit.evidence) == bool(remedy)


def test_weights_that_are_clamped_and_overflow_nowhere_have_the_converters_limits_as_remedy():
    small = normal(64, 8, seed=3)
    report = compare(
        typed(WEIGHTS / 4, small, onnx.TensorProto.FLOAT),
        typed((WEIGHTS / 4).clip(-2e3, 2e3), small, onnx.TensorProto.FLOAT16),
        [{"x": X}],
    )
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("up", "weights")
    assert "max_finite_val" in culprit.remedies[0].text


@pytest.mark.parametrize(
    ("value", "clamped", "told"),
    [(1e-9, 1e-6, "and FP16 has no 1e-09"), (2e5, 1e4, "and FP16 has no 200000"), (0.5, 0.25, None)],
)
def test_a_constant_that_the_type_cannot_hold_has_no_remedy_in_that_type(value, clamped, told):
    def network(constant: float, kind: int) -> onnx.ModelProto:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        text = f"""g (float[N,32] x) => (float[N,32] y) {{ [enter] h = Cast<to={kind}>(x) [square] a = Mul(h, h)
            [guard] b = Add(a, c) [root] d = Sqrt(b) [ratio] e = Div(h, d) [leave] y = Cast<to=1>(e) }}"""
        return parsed(text, c=np.asarray(constant, dtype))

    data = [{"x": normal(6, 32) * np.float32(1e-3 if value < 1 else 100)}]
    both = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    culprit = only(compare(network(value, both[0]), network(clamped, both[1]), data))
    assert (culprit.node, culprit.cause) == ("guard", "weights")
    text = culprit.remedies[0].text
    assert (told in text and text.startswith("write guard in FP32")) if told else "has no" not in text
