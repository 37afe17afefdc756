"""onnx.reference as a runner: in float64 nothing on the way rounds, and every operator is what ONNX defines."""

import numpy as np
import pytest
from layerdiff.graph.errors import RunnerError, UsageError
from layerdiff.graph.model import Model
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from layerdiff.runners.reference_evaluator.runner import ReferenceEvaluatorRunner

from support.models import parsed, without_output_shapes

RNG = np.random.default_rng(7)


def uniform(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 1, shape).astype(np.float32)


def model_of(body: str, x: np.ndarray, opset: int = 17, outputs: int = 1, **weights: np.ndarray) -> Model:
    dims = ",".join(map(str, x.shape))
    names = ", ".join(f"float y{i}" for i in range(outputs)) if outputs > 1 else "float y"
    text = f"t (float[{dims}] x) => ({names}) {{ {body} }}"
    return Model(without_output_shapes(parsed(text, opset=opset, **weights)))


IMAGE = uniform(2, 4, 7, 7)
SEQUENCE = uniform(5, 2, 3)
CELL = {"W": uniform(1, 16, 3), "R": uniform(1, 16, 4), "B": uniform(1, 32)}
CELL2 = {"W": uniform(2, 16, 3), "R": uniform(2, 16, 4), "B": uniform(2, 32)}
GRU = {"W": uniform(1, 12, 3), "R": uniform(1, 12, 4), "B": uniform(1, 24)}
RNN = {"W": uniform(1, 4, 3), "R": uniform(1, 4, 4), "B": uniform(1, 8)}
LENS = np.array([3, 5], np.int32)
STATE = {"h": uniform(1, 2, 4), "c": uniform(1, 2, 4)}

OPERATORS = {
    "Conv": ("y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, W, B)", IMAGE, {"W": uniform(6, 4, 3, 3), "B": uniform(6)}),
    "Conv, grouped": ("y = Conv<group=2, dilations=[2,2]>(x, W)", IMAGE, {"W": uniform(6, 2, 3, 3)}),
    "ConvTranspose": ("y = ConvTranspose<strides=[2,2]>(x, W)", IMAGE, {"W": uniform(4, 5, 3, 3)}),
    "Gemm": ("y = Gemm<transB=1, alpha=0.3>(x, W, B)", uniform(3, 8), {"W": uniform(5, 8), "B": uniform(5)}),
    "MatMul": ("y = MatMul(x, W)", uniform(2, 3, 8), {"W": uniform(8, 5)}),
    "Einsum": ('y = Einsum<equation="bik,kj->bij">(x, W)', uniform(2, 3, 8), {"W": uniform(8, 5)}),
    "BatchNormalization": (
        "y = BatchNormalization<epsilon=0.001>(x, s, b, m, v)",
        IMAGE,
        {"s": uniform(4), "b": uniform(4), "m": uniform(4), "v": positive(4)},
    ),
    "InstanceNormalization": ("y = InstanceNormalization(x, s, b)", IMAGE, {"s": uniform(4), "b": uniform(4)}),
    "LayerNormalization": ("y = LayerNormalization(x, s, b)", uniform(3, 8), {"s": uniform(8), "b": uniform(8)}),
    "LayerNormalization, two axes": (
        "y = LayerNormalization<axis=-2>(x, s)",
        uniform(3, 4, 8),
        {"s": uniform(4, 8)},
    ),
    "RMSNormalization": ("y = RMSNormalization(x, s)", uniform(3, 8), {"s": uniform(8), "opset": 23}),
    "MeanVarianceNormalization": ("y = MeanVarianceNormalization(x)", IMAGE, {}),
    "GroupNormalization": (
        "y = GroupNormalization<num_groups=2>(x, s, b)",
        IMAGE,
        {"s": uniform(4), "b": uniform(4), "opset": 21},
    ),
    "Gelu": ("y = Gelu(x)", IMAGE, {"opset": 20}),
    "Gelu, tanh": ('y = Gelu<approximate="tanh">(x)', IMAGE, {"opset": 20}),
    "Mish": ("y = Mish(x)", IMAGE, {"opset": 18}),
    "Attention": ("y = Attention(x, k, k)", uniform(2, 2, 3, 4), {"k": uniform(2, 2, 5, 4), "opset": 23}),
    "LRN": ("y = LRN<size=3, alpha=0.1, beta=0.75, bias=1.0>(x)", IMAGE, {}),
    "AveragePool": ("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)", IMAGE, {}),
    "AveragePool, padding counts": (
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",
        IMAGE,
        {},
    ),
    "GlobalAveragePool": ("y = GlobalAveragePool(x)", IMAGE, {}),
    "Softmax": ("y = Softmax<axis=1>(x)", IMAGE, {}),
    "LogSoftmax": ("y = LogSoftmax(x)", IMAGE, {}),
    "Erf": ("y = Erf(x)", IMAGE, {}),
    "Sigmoid": ("y = Sigmoid(x)", IMAGE, {}),
    "HardSigmoid": ("y = HardSigmoid(x)", IMAGE, {}),
    "HardSwish": ("y = HardSwish(x)", IMAGE, {}),
    "Elu": ("y = Elu(x)", IMAGE, {}),
    "LeakyRelu": ("y = LeakyRelu<alpha=0.1>(x)", IMAGE, {}),
    "PRelu": ("y = PRelu(x, s)", IMAGE, {"s": uniform(4, 1, 1)}),
    "Softplus": ("y = Softplus(x)", IMAGE, {}),
    "Pow": ("y = Pow(x, e)", positive(3, 4), {"e": np.float32(1.7)}),
    "ReduceMean": ("y = ReduceMean<axes=[2,3]>(x)", IMAGE, {}),
    "ReduceL2": ("y = ReduceL2<axes=[1]>(x)", IMAGE, {}),
    "Resize": (
        'y = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(x, , s)',
        IMAGE,
        {"s": np.array([1, 1, 1.5, 2.0], np.float32)},
    ),
    "GridSample": (
        "y = GridSample(x, g)",
        IMAGE,
        {"g": uniform(2, 3, 3, 2)},
    ),
    "constants": ("c = Constant<value_float=0.1>() d = Mul(x, c) e = Cast<to=1>(d) y = Exp(e)", IMAGE, {}),
    "a body": (
        "c = Constant<value = bool {1}>() y = If(c) <then_branch = g () => (float z) { k = Constant<value_float=0.3>() "
        "z = Div(x, k) }, else_branch = h () => (float w) { w = Identity(x) }>",
        IMAGE,
        {},
    ),
    "LSTM": ("y, h_, c_ = LSTM<hidden_size=4>(x, W, R, B)", SEQUENCE, CELL),
    "LSTM, both directions, lengths": (
        'y, h_, c_ = LSTM<hidden_size=4, direction="bidirectional">(x, W, R, B, lens)',
        SEQUENCE,
        {**CELL2, "lens": LENS},
    ),
    "LSTM, reverse, state, peepholes": (
        'y, h_, c_ = LSTM<hidden_size=4, direction="reverse", clip=0.7>(x, W, R, B, lens, h, c, P)',
        SEQUENCE,
        {**CELL, **STATE, "lens": LENS, "P": uniform(1, 12)},
    ),
    "GRU": ("y, h_ = GRU<hidden_size=4>(x, W, R, B, lens)", SEQUENCE, {**GRU, "lens": LENS}),
    "GRU, linear before reset": ("y, h_ = GRU<hidden_size=4, linear_before_reset=1>(x, W, R, B)", SEQUENCE, GRU),
    "RNN": ('y, h_ = RNN<hidden_size=4, activations=["Relu"]>(x, W, R, B)', SEQUENCE, RNN),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_float64_is_the_operator_and_does_not_round_on_the_way(name: str) -> None:
    body, x, weights = OPERATORS[name]
    model = model_of(body, x, **weights)
    (runtime,) = OnnxrtRunner(optimization="disable").open(model).infer({"x": x}).values()
    (single,) = ReferenceEvaluatorRunner().open(model).infer({"x": x}).values()
    (double,) = ReferenceEvaluatorRunner(dtype="float64").open(model).infer({"x": x}).values()
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    scale = np.abs(double).max()
    np.testing.assert_allclose(runtime, double, rtol=0, atol=4e-6 * scale)
    np.testing.assert_allclose(single, double, rtol=0, atol=4e-6 * scale)
    inner = double[(double != 0) & (double != 1)]
    held = np.mean(inner == inner.astype(np.float32))
    assert held < 0.6, "float32 holds these results: something rounded them"


def test_float64_halves_the_distance_to_the_truth_by_nine_digits() -> None:
    x, w = uniform(3, 512), uniform(512, 5)
    truth = (x.astype(np.longdouble) @ w.astype(np.longdouble)).astype(np.float64)
    model = model_of("y = MatMul(x, W)", x, W=w)
    result = ReferenceEvaluatorRunner(dtype="float64").open(model).infer({"x": x})["y"]
    np.testing.assert_allclose(result, truth, rtol=1e-12, atol=1e-13)


def test_int32_is_dequantized_without_float32() -> None:
    text = "g (int32[2] x) => (float[2] y) { y = DequantizeLinear(x, s) }"
    model = Model(parsed(text, opset=13, s=np.float32(0.5)))
    x = np.array([16777217, -16777219], np.int32)
    result = ReferenceEvaluatorRunner(dtype="float64").open(model).infer({"x": x})["y"]
    assert result.tolist() == [8388608.5, -8388609.5]


def test_any_tensor_can_be_fetched_and_integers_keep_their_type() -> None:
    model = model_of("a = Exp(x) b = ArgMax<axis=1>(a) y = Log(a)", uniform(3, 4))
    session = ReferenceEvaluatorRunner(dtype="float64").open(model)
    x = uniform(3, 4)
    result = session.infer({"x": x}, ["b", "a", "x"])
    assert list(result) == ["b", "a", "x"]
    assert result["b"].dtype == np.int64
    np.testing.assert_array_equal(result["a"], np.exp(x.astype(np.float64)))
    assert [s.dtype for s in session.outputs] == [np.float64]


def test_names_and_refusals() -> None:
    assert ReferenceEvaluatorRunner().name == "reference-evaluator"
    assert ReferenceEvaluatorRunner.from_value("float64").name == "reference-evaluator:float64"
    with pytest.raises(UsageError, match="dtype=float16: expected float32 or float64"):
        ReferenceEvaluatorRunner(dtype="float16")
    session = ReferenceEvaluatorRunner().open(model_of("y = Exp(x)", uniform(2, 2)))
    with pytest.raises(RunnerError, match="no value for input 'x'"):
        session.infer({})
    with pytest.raises(RunnerError, match="has no tensor 'z'"):
        session.infer({"x": uniform(2, 2)}, ["z"])


def test_an_operator_that_the_evaluator_lacks_is_named() -> None:
    text = "g (float[2] x) => (float[2] y) { y = com.example.Mystery(x) }"
    with pytest.raises(RunnerError, match="Mystery"):
        ReferenceEvaluatorRunner().open(Model(parsed(text, domains=["com.example"])))
