"""Underflow: values among the subnormals of the candidate's format, or below them."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.causes import underflow
from layerdiff.graph.formats import BF16, FP16

from support.layer_cases import layer_case, told
from support.layerwise import compare, only
from support.models import normal, parsed

RNG = np.random.default_rng(0)
ONES = np.ones(64, np.float32)


def weighted(values: np.ndarray):
    return parsed("g (float[N,64] x) => (float[N,64] y) { y = Mul(x, w) }", w=values.astype(np.float32))


def find(y, c=None, narrow=FP16, **more):
    return underflow.find(layer_case(y, y * np.float32(1.01) if c is None else c, narrow=narrow, **more))


def test_an_output_that_rounds_away():
    found = find((1e-8 * ONES).astype(np.float32))
    assert found.cause == "underflow"
    assert told(found) == (
        "64 of 64 values are below FP16's smallest normal, 6.1e-05, 64 of them become zero; the greatest is 1e-08"
    )
    assert found.facts[0].zeros == 64


@pytest.mark.parametrize(
    ("weight", "cause", "text"),
    [
        (1e-7 * RNG.standard_normal(64), "underflow", "weights 'w': 64 of 64 values are below FP16's smallest normal"),
        (1e5 * RNG.standard_normal(64), "overflow", "weights 'w': "),  # clamped: nothing becomes infinite
    ],
)
def test_weights_are_named_with_the_node_that_reads_them(weight, cause, text):
    found = find(ONES.reshape(1, 64), model=weighted(weight))
    assert (found.cause, found.node) == (cause, 0)
    assert told(found).startswith(text)


def test_few_constants_are_no_weights():
    model = parsed("g (float[N,4] x) => (float[N,4] y) { y = Mul(x, w) }", w=np.full(4, 1e-9, np.float32))
    assert find(np.ones((2, 4), np.float32), model=model) is None


def test_values_that_became_zero_and_make_up_the_error():
    y = np.concatenate([ONES, np.float32([3e-5, 5e-5])])
    c = np.concatenate([ONES, np.float32([0, 0])])
    found = find(y, c)
    assert told(found) == "2 of 66 values became zero, first at [64]: 3e-05"


@pytest.mark.parametrize(
    ("y", "c"),
    [
        (np.concatenate([ONES, np.float32([0.5])]), np.concatenate([ONES, np.float32([0])])),  # not tiny
        (np.concatenate([ONES, np.float32([3e-5])]), np.concatenate([2 * ONES, np.float32([0])])),  # not the error
    ],
)
def test_other_zeros_are_no_underflow(y, c):
    assert find(y, c) is None


def test_what_is_inside_is_named_by_its_node():
    model = parsed("g (float[N] x) => (float[N] y) { a = Mul(x, x) y = Sqrt(a) }")
    found = find(ONES, model=model, tensors={"a": 1e-9 * ONES})
    assert told(found).startswith("inside, at Mul_0: 64 of 64 values are below FP16's smallest normal")


@pytest.mark.parametrize("narrow", [None, BF16], ids=["no narrow format", "a wide range"])
def test_a_wide_range_loses_nothing(narrow):
    assert find((1e-8 * ONES).astype(np.float32), narrow=narrow) is None


def test_dead_channels_are_columns_of_a_matrix_and_rows_of_a_kernel():
    w = np.ones((16, 16), np.float32)
    w[:, 3], w[5, :3] = 1e-13, 1e-13
    product = parsed("g (float[8,16] x) => (float[8,16] y) { y = MatMul(x, w) }", w=w)
    turned = parsed("g (float[8,16] x) => (float[8,16] y) { y = Gemm<transB = 1>(x, w) }", w=w.T.copy())
    y = np.ones((8, 16), np.float32)
    for model in (product, turned):
        found = underflow.find(layer_case(y, 2 * y, model=model, narrow=FP16, reason="slice"))
        assert (found.cause, found.clamped) == ("underflow", True)
        assert told(found).startswith("1 of 16 channels of the weights 'w' are at most 1e-13")


LOG = "g (float[N] x) => (float[N] y) {{ a = {maker}  y = Log(a) }}"
NEARLY_ZERO = np.float32([1e-10, 1e-9, 0.5])
FINITE = {"reason": "finite", "relative": np.inf, "rms_z": None}


@pytest.mark.parametrize(
    ("maker", "told_first"),
    [
        ("Add(x, e)", "the constant 1e-10 is below FP16's smallest number, 6e-08: it becomes that or zero, and Log"),
        ("Abs(x)", "inside, at "),
    ],
)
def test_a_logarithm_of_what_became_zero(maker, told_first):
    model = parsed(LOG.format(maker=maker), e=np.float32(1e-10))
    y = np.log(NEARLY_ZERO)
    c = np.float32([-np.inf, -np.inf, y[2]])
    case = layer_case(y, c, model=model, tensors={"a": NEARLY_ZERO}, narrow=FP16, **FINITE)
    found = underflow.of_operand(case)
    assert (found.cause, found.producer) == ("underflow", None)
    assert told(found).startswith(told_first)
    assert "2 of them become zero" in told(found)


def test_a_root_of_what_became_zero_is_zero_too():
    """The variance of a row of equal values is its epsilon, whose root is no small number."""
    text = "g (float[N] x) => (float[N] y) { [eps] v = Add(x, e) [root] r = Sqrt(v) [div] y = Div(x, r) }"
    variance = np.float32([1e-12, 0.5, 1e-12])
    given = {"tensors": {"v": variance, "r": np.sqrt(variance)}, "narrow": FP16, **FINITE}
    y = np.float32([1, 2, 3])
    case = layer_case(y, np.float32([np.nan, 2, np.nan]), model=parsed(text, e=np.float32(1e-12)), **given)
    found = underflow.of_operand(case)
    assert (found.cause, found.node) == ("underflow", 0)
    assert told(found).startswith("the constant 1e-12 is below FP16's smallest number, 6e-08: it becomes that or zero")


def test_who_made_what_became_zero_is_to_blame():
    model = parsed("g (float[N] x) => (float[N] y) { y = Reciprocal(x) }")
    given = {"y": 1 / NEARLY_ZERO, "c": np.float32([np.inf, np.inf, 2]), "model": model, **FINITE}
    case = layer_case(tensors={"x": NEARLY_ZERO}, narrow=FP16, **given)
    assert underflow.of_operand(case).producer == "x"
    for other in ({"narrow": BF16, "tensors": {"x": NEARLY_ZERO}}, {"narrow": FP16, "tensors": {"x": ONES[:3]}},
                  {"narrow": None, "tensors": {"x": NEARLY_ZERO}}):  # fmt: skip
        assert underflow.of_operand(layer_case(**{**given, **other})) is None


def test_few_channels_of_a_variance_among_the_subnormals_are_told():
    text = """g ({0}[4,6,8] x) => ({0}[4,6,8] y) {{
        [norm] n = BatchNormalization<epsilon=1e-12>(x, scale, bias, mean, var) [y] y = Relu(n) }}"""
    values = {"scale": normal(6, seed=1), "bias": normal(6, seed=2), "mean": normal(6, seed=3) * np.float32(1e-3)}
    values["var"] = np.linspace(1.2e-7, 3.5e-7, 6, dtype=np.float32)
    wide = parsed(text.format("float"), **values)
    inside = """g (float[4,6,8] x) => (float[4,6,8] y) { c = Cast<to=10>(x)
        [norm] n = BatchNormalization<epsilon=1e-12>(c, scale, bias, mean, var) [y] r = Relu(n) y = Cast<to=1>(r) }"""
    narrow = parsed(inside, **{name: value.astype(np.float16) for name, value in values.items()})
    culprit = only(compare(wide, narrow, [{"x": normal(4, 6, 8, seed=4, scale=3e-4)}]))
    assert (culprit.node, culprit.cause) == ("norm", "underflow")
    assert "6 of 6 values are below FP16's smallest normal" in culprit.evidence
