"""What holds only because a normalization is one kernel, which computes in FP32 inside."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
from layerdiff.compare.causes.one_kernel import lost_inside, shown_by
from layerdiff.graph.formats import BF16, FP16
from layerdiff.graph.model import Model
from onnx.reference import ReferenceEvaluator

from support.layer_cases import layer_case
from support.models import parsed

LAYER = parsed("g (float[2,8] x) => (float[2,8] y) { y = LayerNormalization<axis=-1>(x, s) }", s=np.ones(8, np.float32))
PIECES = parsed(
    "g (float[2,8] x) => (float[2,8] y) { q = Mul(x, x) m = ReduceMean<axes=[1]>(q) r = Sqrt(m) y = Div(x, r) }"
)
NO_NORMALIZATION = parsed("g (float[2,8] x) => (float[2,8] y) { q = Mul(x, x) y = Sqrt(q) }")
SOFTMAX = parsed(
    "g (float[2,8] x) => (float[2,8] y) { e = Exp(x) t = ReduceSum(e, a) y = Div(e, t) }", a=np.array([1], np.int64)
)
VARIANCE = parsed(
    "g (float[2,8] x) => (float[2,1] y) { m = ReduceMean<axes=[1]>(x) n = Mul(m, m) q = Mul(x, x) "
    "r = ReduceMean<axes=[1]>(q) y = Sub(r, n) }"
)
POWER = parsed(
    "g (float[2,8] x) => (float[2,8] y) { q = Pow(x, six) m = ReduceMean<axes=[1]>(q) r = Pow(m, root) y = Div(x, r) }",
    six=np.float32(6), root=np.float32(1 / 6),
)  # fmt: skip
SOFTPLUS = parsed("g (float[2,8] x) => (float[2,8] y) { e = Exp(x) a = Add(e, one) y = Log(a) }", one=np.float32(1))
MISH = parsed(
    "g (float[2,8] x) => (float[2,8] y) { e = Exp(x) a = Add(e, one) l = Log(a) t = Tanh(l) y = Mul(x, t) }",
    one=np.float32(1),
)
BEHIND_A_PRODUCT = parsed(
    "g (float[2,8] x) => (float[2,8] y) { h = MatMul(x, w) e = Exp(h) a = Add(e, one) y = Log(a) }",
    w=np.eye(8, dtype=np.float32), one=np.float32(1),
)  # fmt: skip
UP_AND_DOWN = parsed(
    "g (float[2,8] x) => (float[2,8] y) { h = MatMul(x, w) u = Mul(h, up) y = Mul(u, down) }",
    w=np.eye(8, dtype=np.float32), up=np.float32(4e4), down=np.float32(2.5e-5),
)  # fmt: skip
DOWN_AND_UP = parsed(
    "g (float[2,8] x) => (float[2,8] y) { u = Div(x, up) y = Mul(u, up) }", up=np.float32(2.0**20)
)  # fmt: skip
RAMP = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)


def every_output(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n.output[0]) for n in model.graph.node)
    return copy


def found(model, x, fmt=FP16, every_node=False):
    tensors = ReferenceEvaluator(every_output(model)).run(None, {"x": x})
    made = dict(zip((n.output[0] for n in model.graph.node), tensors, strict=True))
    case = layer_case(made["y"], made["y"], model=model, tensors={"x": x, **made})
    kind = np.dtype(fmt.name.replace("fp", "float").replace("bf16", "bfloat16"))
    apart = functools.partial(by_node, model, x, kind)
    return lost_inside(case.pair, case.graphs[0], case.values, fmt, lambda: case.inner, apart, every_node)


def by_node(model, x, kind):
    """What a model makes where every node rounds."""
    made = {"x": x, **{t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}}
    for node in model.graph.node:
        graph = onnx.helper.make_graph(
            [node],
            "one",
            [
                onnx.helper.make_tensor_value_info(n, 7 if made[n].dtype == np.int64 else 1, made[n].shape)
                for n in node.input
            ],
            [onnx.helper.make_empty_tensor_value_info(node.output[0])],
        )
        one = onnx.helper.make_model(graph, opset_imports=model.opset_import)
        with np.errstate(all="ignore"):
            (value,) = ReferenceEvaluator(one).run(None, {n: made[n] for n in node.input})
            made[node.output[0]] = value.astype(kind).astype(np.float32)
    return {"y": made["y"]}


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (LAYER, 1000 * RAMP, "the squares of"),
        (PIECES, 1000 * RAMP, "at Mul_0"),
        (SOFTMAX, 11.5 * RAMP, "at Exp_0"),
        (POWER, 8 * RAMP, "at Pow_0"),
        (SOFTPLUS, 15 * RAMP, "at Exp_0"),
        (BEHIND_A_PRODUCT, 15 * RAMP, "at Exp_1"),
        (UP_AND_DOWN, 5 * RAMP, "at Mul_1"),
    ],
)
def test_the_value_inside_is_told(model, x, says):
    fact = found(model, x)
    assert says in fact.text
    assert "65504" in fact.text


def test_an_underflow_inside_is_told():
    fact = found(PIECES, 2e-4 * RAMP)
    assert fact.text.startswith("inside, at Mul_0: 16 of 16 values are below FP16's smallest normal")


def test_an_underflow_between_two_factors_is_told():
    assert "at Div_0: 16 of 16 values are below" in found(DOWN_AND_UP, RAMP).text


def test_an_overflow_of_elementwise_operators_is_told():
    assert "at Mul_0" in found(NO_NORMALIZATION, 1000 * RAMP).text


@pytest.mark.parametrize(("fmt", "step"), [(FP16, "0.5"), (BF16, "4")])
def test_terms_that_cancel_inside_are_told(fmt, step):
    fact = found(VARIANCE, 30 + RAMP, fmt)
    assert fact.text.startswith("inside, at Sub_4: terms of 90")
    assert fact.text.endswith(f"rounds such terms in steps of {step}")


@pytest.mark.parametrize(
    ("model", "x", "fmt"),
    [
        (LAYER, RAMP, FP16),
        (LAYER, RAMP + 1000, FP16),
        (LAYER, 1000 * RAMP, BF16),
        (PIECES, 100 * RAMP, FP16),
        (NO_NORMALIZATION, 100 * RAMP, FP16),
        (MISH, 15 * RAMP, FP16),
        (SOFTPLUS, 8 * RAMP, FP16),
        (SOFTMAX, 8 * RAMP, FP16),
        (SOFTMAX, 11.5 * RAMP, BF16),
        (UP_AND_DOWN, RAMP, FP16),
        (UP_AND_DOWN, 5 * RAMP, BF16),
        (VARIANCE, RAMP, FP16),
        (VARIANCE, 3 * RAMP + 3, FP16),
    ],
    ids=[
        *("small", "a large mean", "a wide range", "in pieces, small", "squares that fit"),
        *("an infinity that does not matter", "a small softplus", "exponentials that fit"),
        *(
            "exponentials in a wide range",
            "a product that fits",
            "a product in a wide range",
            "no mean",
            "a mean like the deviation",
        ),
    ],
)
def test_what_fits_is_not(model, x, fmt):
    assert found(model, x, fmt) is None


ONE_OPERATOR = {
    "InstanceNormalization": "InstanceNormalization(x, s, b)",
    "GroupNormalization": "GroupNormalization<num_groups=2>(x, s, b)",
    "MeanVarianceNormalization": "MeanVarianceNormalization<axes=[0, 2]>(x)",
    "LpNormalization": "LpNormalization<axis=2, p=2>(x)",
    "ReduceL2": "ReduceL2<keepdims=1>(x, a)",
    "LRN": "LRN<size=3>(x)",
    "GlobalLpPool": "GlobalLpPool(x)",
}


def one_operator(op, scale, fmt=FP16, every_node=False):
    names = {"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32), "a": np.array([2], np.int64)}
    model = parsed(f"g (float[2,4,8] x) => (float[N,C,L] y) {{ y = {ONE_OPERATOR[op]} }}", **names)
    x = scale * np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 4, 8)[..., ::-1] * np.array([1, -1] * 4, np.float32)
    case = layer_case(x, x, model=model, tensors={"x": x})
    return lost_inside(case.pair, case.graphs[0], case.values, fmt, lambda: case.inner, dict, every_node)


@pytest.mark.parametrize("every_node", [False, True])
@pytest.mark.parametrize("op", ONE_OPERATOR)
def test_squares_inside_of_one_operator_are_told(op, every_node):
    """Where each node rounds its result, too: what is inside of one node does not."""
    fact = one_operator(op, 1000, every_node=every_node)
    assert "the squares of" in fact.text
    assert "65504" in fact.text


@pytest.mark.parametrize("op", ONE_OPERATOR)
def test_squares_that_fit_are_not(op):
    assert one_operator(op, 10) is None
    assert one_operator(op, 1000, BF16) is None


def test_what_is_lost_between_nodes_that_each_round_is_not_told_again():
    assert found(PIECES, 1000 * RAMP) is not None
    assert found(PIECES, 1000 * RAMP, every_node=True) is None


def test_an_option_that_shows_the_case_is_named_where_there_is_one():
    graphs = {
        "whole": LAYER,
        "pieces": PIECES,
        "alone": parsed("g (float[2,8] x) => (float[2,8] y) { y = ReduceL2(x) }"),
    }
    shown = {name: shown_by(Model(g).index, range(len(g.graph.node)), "fp16") for name, g in graphs.items()}
    assert shown == {"whole": "fp16,decomposed", "pieces": "fp16,decomposed", "alone": ""}


def test_a_batch_normalization_that_does_not_train_squares_nothing():
    """Most layers of a network are such: what is inside of them is not computed for nothing."""
    ones = dict.fromkeys("sbmv", np.ones(8, np.float32))
    text = "g (float[2,8] x) => (float[2,8] y) {{ h = MatMul(x, w) {} }}"
    layer = parsed(text.format("y = BatchNormalization(h, s, b, m, v)"), w=np.eye(8, dtype=np.float32), **ones)
    case = layer_case(RAMP, RAMP, model=layer, tensors={"x": 1000 * RAMP, "y": RAMP})

    def looked_into():
        raise AssertionError("nothing inside is needed")

    assert lost_inside(case.pair, case.graphs[0], case.values, FP16, looked_into, looked_into) is None
    assert shown_by(case.graphs[0], case.pair.reference.nodes, "fp16") == "fp16,every_node"
