"""Where values round in an emulated network. The oracle computes in float64 and rounds with NumPy."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from layerdiff.graph.cutting.fusion import fused_groups, static_tensors
from layerdiff.graph.errors import UsageError
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.load import load
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.emulation import needed_ranges, rewrite
from layerdiff.graph.rounding.rewrite import Note
from layerdiff.graph.rounding.round_array import EMULATED, resolve, round_array
from layerdiff.graph.rounding.round_nodes import write_rounding
from layerdiff.graph.writer import GraphWriter, Names
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from onnx import TensorProto, helper, numpy_helper

from support.models import assembled, infer, parsed, without_output_shapes

FLOATS = ("fp16", "bf16", "tf32", "e4m3", "e5m2")
Weights = dict[str, np.ndarray]


def uniform(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).uniform(-1, 1, shape) * scale).astype(np.float32)


def model_of(
    body: str,
    weights: Weights | None = None,
    inputs: str = "float[N,8] x",
    outputs: str = "float[N,8] y",
    opset: int = 17,
) -> Model:
    text = f"t ({inputs}) => ({outputs}) {{ {body} }}"
    return Model(without_output_shapes(parsed(text, opset=opset, **(weights or {}))))


def run(model: Model, feed: Weights, *fetch: str) -> list[np.ndarray]:
    return list(infer(OnnxrtRunner(), model, feed, fetch).values())


def rounded(model: Model, fmt: str, **options: object) -> Model:
    """The model as `rewrite` makes it."""
    return rewrite(model, fmt, **options).model  # type: ignore[arg-type]


def check(model: Model, full: bool = False) -> None:
    """ONNX's own checker; it wants shapes of outputs, which the small models here leave out."""
    proto = onnx.shape_inference.infer_shapes(model.proto)
    for output in () if full else proto.graph.output:
        output.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(proto, full_check=full)


def emulate(model: Model, fmt: str, feed: Weights, *fetch: str, **options: object) -> np.ndarray:
    rewritten = rounded(model, fmt, **options)  # type: ignore[arg-type]
    check(rewritten)
    (result,) = run(rewritten, feed, *fetch)
    return result


def assert_rounded_like(got: np.ndarray, exact: np.ndarray, fmt: str) -> None:
    """``got`` is ``exact`` (float64) rounded, but for the few that FP32 sums carried over a rounding boundary."""
    want = round_array(exact.astype(np.float32), fmt)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, round_array(got, fmt), "not rounded")
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    assert np.mean(same) > 0.98
    u = resolve(fmt).u
    np.testing.assert_allclose(got[~same], want[~same], rtol=2.1 * u, atol=resolve(fmt).smallest_subnormal)


# Rounding itself


def edge_values(fmt: str) -> np.ndarray:
    """Random bit patterns below 2^100, the neighbourhood of every boundary of one binade, and the ends of the range."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 400_000, dtype=np.uint32).view(np.float32)
    bits = bits[~(np.abs(bits) > 2.0**100)]
    binade = (np.arange(0, 2**24, 29, dtype=np.uint32) + np.uint32(127 << 23)).view(np.float32)
    ties = (np.arange(0, 2**12, dtype=np.uint32) * np.uint32(2**12) + np.uint32(120 << 23)).view(np.float32)
    number = resolve(fmt)
    ends = np.float32([number.smallest_subnormal, number.smallest_normal, 448, 464, 65504, 65519.99, 65520, 57344, 7e4])
    ends = np.concatenate([ends * f for f in np.float32([1, 0.5, 0.49, 0.51, 1.5])])
    special = np.float32([0, np.inf, np.nan])
    everything = np.concatenate([bits, binade, ties, ends, special])
    if fmt == "tf32":  # ties go either way there
        everything = everything[everything.view(np.uint32) & np.uint32(0x1FFF) != 0x1000]
        everything = everything[~(np.abs(everything) < 2.0**-126) | (everything == 0)]  # and subnormals keep their bits
    return np.concatenate([everything, -everything])


def rounding_graph(fmt: str, opset: int, weights: bool, scale: float | None) -> onnxruntime.InferenceSession:
    writer = GraphWriter(Names("xy"), opset)
    step = None if scale is None else writer.scalar(scale)
    write_rounding(writer, resolve(fmt), "x", "y", scale=step, weights=weights)
    model = assembled(writer.nodes, [("x", 1, ["n"])], [("y", 1, ["n"])], opset=opset)
    model.graph.initializer.extend(writer.initializers)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
@pytest.mark.parametrize("fmt", [*FLOATS, "int8"])
def test_the_graph_rounds_as_numpy_does(fmt: str, opset: int) -> None:
    x = edge_values(fmt)
    for weights in (False, True) if opset >= 9 and fmt != "int8" else (False,):
        for scale in (0.037,) if fmt == "int8" else (None, 0.037) if fmt in ("e4m3", "e5m2") else (None,):
            if weights and opset < 10:  # there is no IsInf: an infinite weight that the graph computes is clamped
                x = x[~np.isinf(x)]
            got = rounding_graph(fmt, opset, weights, scale).run(None, {"x": x})[0]
            want = round_array(x, fmt, weights=weights, scale=scale)
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("fmt", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16), ("e4m3", ml_dtypes.float8_e4m3fn)]
)
def test_every_value_of_a_format_is_kept(fmt: str, dtype: type) -> None:
    bits = np.arange(256 if fmt == "e4m3" else 65536)
    values = bits.astype(np.uint8 if fmt == "e4m3" else np.uint16).view(dtype).astype(np.float32)
    values = values[np.isfinite(values)]
    np.testing.assert_array_equal(round_array(values, fmt), values)


def test_ends_of_the_ranges() -> None:
    big = np.float32([65519, 65520, 1e6, -1e6])
    assert round_array(big, "fp16").tolist() == [65504, np.inf, np.inf, -np.inf]
    assert round_array(big, "fp16", weights=True).tolist() == [65504, 65504, 65504, -65504]
    assert round_array(big, "e4m3").tolist() == [448, 448, 448, -448]
    assert round_array(big, "e5m2").tolist() == [57344, 57344, 57344, -57344]
    tiny = np.float32([1e-8, -1e-8, 0])
    assert round_array(tiny, "fp16").tolist() == [0, 0, 0]
    assert round_array(tiny, "fp16", weights=True).tolist() == [2.0**-24, -(2.0**-24), 0]
    assert round_array(np.float32([-np.inf]), "fp16", weights=True).tolist() == [-np.inf]
    assert round_array(np.float32([1.26, -200, 200]), "int8", scale=0.5).tolist() == [1.5, -64, 63.5]


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UsageError, match="'fp4' cannot be emulated: not one of fp16, bf16"):
        rounded(model_of("y = Relu(x)"), "fp4")
    assert resolve("fp8").name == "e4m3"
    assert set(FLOATS) < set(EMULATED)


# Single operators in storage formats: inputs and weights round, sums do not, outputs round

IMAGE = uniform(2, 4, 9, 9)


def softmax(v: np.ndarray) -> np.ndarray:
    e = np.exp(v - v.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(v: np.ndarray) -> np.ndarray:
    return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)


W88, B8 = uniform(8, 8, seed=1), uniform(8, seed=2)
X = uniform(5, 8, scale=3, seed=3)
OPERATORS: dict[str, tuple[str, np.ndarray, Weights, Callable[..., np.ndarray]]] = {
    "MatMul": ("y = MatMul(x, W)", X, {"W": W88}, lambda x, W: x @ W),
    "MatMul of two activations": ("t = Transpose(x) y = MatMul(x, t)", X, {}, lambda x: x @ x.T),
    "Gemm": (
        "y = Gemm<transB=1>(x, W, b)",
        X,
        {"W": W88, "b": B8},
        lambda x, W, b: x @ W.T + b,
    ),
    "bias and activation are fused": (
        "a = MatMul(x, W) c = Add(a, b) y = Relu(c)",
        X,
        {"W": W88, "b": B8},
        lambda x, W, b: np.maximum(x @ W + b, 0),
    ),
    "the residual is fused": ("a = MatMul(x, W) y = Add(a, x)", X, {"W": W88}, lambda x, W: x @ W + x),
    "Add": ("y = Add(x, b)", X, {"b": B8}, lambda x, b: x + b),
    "an elementwise chain": (
        "a = Mul(x, b) c = Exp(a) y = Sub(c, x)",
        X,
        {"b": B8},
        lambda x, b: np.exp(x * b) - x,
    ),
    "Softmax": ("y = Softmax(x)", X, {}, softmax),
    "Softmax in pieces": (
        "m = ReduceMax<axes=[-1]>(x) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, k) y = Div(e, s)",
        X,
        {"k": np.int64([-1])},
        lambda x, k: softmax(x),
    ),
    "LayerNormalization": (
        "y = LayerNormalization(x, g, b)",
        X,
        {"g": B8, "b": B8},
        lambda x, g, b: layer_norm(x) * g + b,
    ),
    "LayerNormalization in pieces": (
        "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) p = Mul(d, d) v = ReduceMean<axes=[-1]>(p) f = Add(v, e) "
        "s = Sqrt(f) q = Div(d, s) r = Mul(q, g) y = Add(r, b)",
        X,
        {"g": B8, "b": B8, "e": np.float32(1e-5)},
        lambda x, g, b, e: layer_norm(x) * g + b,
    ),
    "pooling sums are FP32": ("y = GlobalAveragePool(x)", IMAGE, {}, lambda x: x.mean((2, 3), keepdims=True)),
    "a choice among values": ("y = MaxPool<kernel_shape=[9,9]>(x)", IMAGE, {}, lambda x: x.max((2, 3), keepdims=True)),
    "Resize": (
        'y = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(x, , s)',
        X,
        {"s": np.float32([1, 2])},
        lambda x, s: np.stack([x, np.concatenate([(x[:, :-1] + x[:, 1:]) / 2, x[:, -1:]], 1)], 2).reshape(5, 16),
    ),
}


@pytest.mark.parametrize("fmt", ["fp16", "bf16"])
@pytest.mark.parametrize("name", OPERATORS)
def test_storage_formats_round_inputs_weights_and_results(name: str, fmt: str) -> None:
    body, x, weights, oracle = OPERATORS[name]
    dims = ",".join(map(str, x.shape))
    model = model_of(body, weights, inputs=f"float[{dims}] x")
    got = emulate(model, fmt, {"x": x})
    rounded = {
        k: round_array(v, fmt, weights=True).astype(np.float64) if v.dtype == np.float32 and v.size > 1 else v
        for k, v in weights.items()
    }
    assert_rounded_like(got, oracle(round_array(x, fmt).astype(np.float64), **rounded), fmt)


@pytest.mark.parametrize("fmt", ["tf32", "e4m3", "e5m2", "int8"])
def test_operand_formats_round_operands_and_nothing_else(fmt: str) -> None:
    model = model_of("a = MatMul(x, W) c = Add(a, b) d = Relu(c) y = Mul(d, x)", {"W": W88, "b": B8})
    ranges = {"x": 3.0} if fmt != "tf32" else {}
    full = resolve(fmt).max
    per_column = np.abs(W88).max(0, keepdims=True) / full
    scale = {"tf32": None, "int8": per_column}.get(fmt, np.float32(np.abs(W88).max() / full))
    x = round_array(X, fmt, scale=3.0 / full if ranges else None).astype(np.float64)
    w = round_array(W88, fmt, scale=scale).astype(np.float64)
    want = np.maximum(x @ w + B8, 0) * X
    got = emulate(model, fmt, {"x": X}, ranges=ranges)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)
    assert np.abs(got - np.maximum(X.astype(np.float64) @ W88 + B8, 0) * X).max() > 1e-5


def test_int8_has_a_scale_for_each_output_channel() -> None:
    cases = {
        "MatMul": ("y = MatMul(x, W)", (8, 6), 1),
        "Gemm": ("y = Gemm(x, W)", (8, 6), 1),
        "Gemm, transposed": ("y = Gemm<transB=1>(x, W)", (6, 8), 0),
    }
    for body, shape, axis in cases.values():
        growing = (np.arange(6) + 1.0) ** 3
        w = (uniform(*shape) * growing.reshape([-1 if a == axis else 1 for a in (0, 1)])).astype(np.float32)
        rewritten = rounded(model_of(body, {"W": w}), "int8", ranges={"x": 3.0})
        (held,) = [numpy_helper.to_array(t) for t in rewritten.proto.graph.initializer if t.dims == list(shape)]
        assert np.all(np.abs(held - w).max(1 - axis) <= np.abs(w).max(1 - axis) / 127 / 2 * 1.001)


def test_a_product_without_a_range_is_not_quantized_and_said_so() -> None:
    model = model_of("a = MatMul(x, W) y = MatMul(a, W)", {"W": W88})
    assert needed_ranges(model.index, "int8") == ["x", "a"]
    assert needed_ranges(model.index, "fp16") == []
    rewritten = rewrite(model, "int8", ranges={"a": 4.0})
    assert rewritten.notes == (Note("INT8: no range was measured, not quantized: 'x'."),)
    (a,) = run(rewritten.model, {"x": X}, "a")
    np.testing.assert_array_equal(a, run(model, {"x": X}, "a")[0])


# What is folded, what passes, what is left alone


@pytest.mark.parametrize("form", ["BatchNormalization", "Mul and Add"])
def test_a_batchnorm_is_folded_before_its_convolution_rounds(form: str) -> None:
    w, b = uniform(6, 4, 3, 3), uniform(6)
    gamma, beta, mean, var = (
        uniform(6, seed=4),
        uniform(6, seed=5),
        uniform(6, seed=6),
        np.abs(uniform(6, seed=7)) + 0.1,
    )
    gain = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + 1e-5)
    shift = (b.astype(np.float64) - mean) * gain + beta
    if form == "BatchNormalization":
        body = "c = Conv(x, W, B) y = BatchNormalization(c, g, h, m, v)"
        weights = {"W": w, "B": b, "g": gamma, "h": beta, "m": mean, "v": var}
    else:
        body = "c = Conv(x, W, B) d = Mul(c, g) y = Add(d, h)"
        gain = gain.astype(np.float32).astype(np.float64)
        h = (beta - mean * gain).astype(np.float32)
        shift = b * gain + h
        weights = {"W": w, "B": b, "g": gain.astype(np.float32).reshape(6, 1, 1), "h": h.reshape(6, 1, 1)}
    model = model_of(body, weights, inputs="float[N,4,9,9] x")
    folded = round_array((w * gain[:, None, None, None]).astype(np.float32), "fp16", weights=True)
    shift = round_array(shift.astype(np.float32), "fp16", weights=True)
    plain = model_of("y = Conv(x, W, B)", {"W": folded, "B": shift}, inputs="float[N,4,9,9] x")
    (exact,) = run(plain, {"x": round_array(IMAGE, "fp16")})
    assert_rounded_like(emulate(model, "fp16", {"x": IMAGE}), exact.astype(np.float64), "fp16")


def test_data_movement_passes_values_and_weights_round() -> None:
    table = uniform(10, 8)
    model = model_of("g = Gather(T, i) y = Concat<axis=0>(g, x)", {"T": table}, inputs="float[N,8] x, int64[M] i")
    i = np.int64([3, 3, 9])
    got = emulate(model, "fp16", {"x": X, "i": i})
    np.testing.assert_array_equal(got[:3], round_array(table, "fp16")[i])
    np.testing.assert_array_equal(got[3:], X)


def test_integers_comparisons_and_shape_arithmetic_are_untouched() -> None:
    body = """s = Shape(x) f = Cast<to=1>(s) h = Mul(f, k) n = Cast<to=7>(h) r = Reshape(x, n) y = Identity(r)
              i = ArgMax(x) j = Mul(i, i)"""
    model = model_of(body, {"k": np.float32([1.0])}, inputs="float[4099] x", outputs="float[4099] y, int64[1] j")
    x = uniform(4099)
    rewritten = rounded(model, "fp16")
    y, j = run(rewritten, {"x": x}, "y", "j")
    assert y.shape == (4099,)  # FP16 would have made it 4100
    assert j.item() == round_array(x, "fp16").argmax() ** 2


def test_quantized_models_keep_their_steps() -> None:
    weights = {"s": np.float32(0.013), "z": np.int8(0), "t": np.float32(0.01), "Q": np.int8(uniform(8, 8) * 100)}
    body = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) w = DequantizeLinear(Q, t, z)
              a = MatMul(d, w) p = QuantizeLinear(a, t, z) y = DequantizeLinear(p, t, z)"""
    model = model_of(body, weights)
    np.testing.assert_array_equal(emulate(model, "fp16", {"x": X}), run(model, {"x": X})[0])


def test_other_float_types_are_untouched() -> None:
    model = model_of("a = Cast<to=11>(x) y = Exp(a)", outputs="double[N,8] y")
    np.testing.assert_allclose(emulate(model, "bf16", {"x": X}), np.exp(X.astype(np.float64)), rtol=1e-14)


def test_constants_inside_a_fused_kernel_are_part_of_the_program() -> None:
    body = "a = MatMul(x, W) c = Mul(a, k) e = Erf(c) f = Add(e, o) g = Mul(a, f) y = Mul(g, h)"
    weights = {"W": W88, "k": np.float32(0.70710677), "o": np.float32(1), "h": np.float32(0.5)}
    x = X / 6  # where 1 + erf does not cancel
    got = emulate(model_of(body, weights), "bf16", {"x": x})
    from math import erf

    a = round_array(x, "bf16").astype(np.float64) @ round_array(W88, "bf16")
    assert_rounded_like(got, a * 0.5 * (1 + np.vectorize(erf)(a * 0.70710677)), "bf16")


# Overflow, underflow, saturation


def test_activations_overflow_and_weights_do_not() -> None:
    w = np.eye(8, dtype=np.float32) * np.float32(1e6)
    w[1, 1] = 1e-9
    model = model_of("y = MatMul(x, W)", {"W": w})
    ones = np.ones((1, 8), np.float32) / 2
    rewritten = rewrite(model, "fp16")
    got = run(rewritten.model, {"x": ones})[0][0]
    assert got.tolist() == [32752, 0] + [32752] * 6  # 65504 / 2; 2^-24 / 2 is a tie, to zero
    (clamped,) = (note for note in rewritten.notes if "7 weights in 'W' beyond its range" in note.text)
    assert clamped.setting == "cast_weights"
    assert emulate(model, "fp16", {"x": ones * 4})[0].tolist() == [np.inf, 2.0**-23] + [np.inf] * 6
    assert emulate(model, "fp16", {"x": ones}, cast_weights=True)[0].tolist() == [np.inf, 0] + [np.inf] * 6
    saturated = emulate(model_of("y = MatMul(x, W)", {"W": np.eye(8, dtype=np.float32)}), "fp8", {"x": ones * 1e4})
    assert saturated[0].tolist() == [448.0] * 8


def test_weights_that_the_graph_computes_follow_the_rule_for_weights() -> None:
    w = np.eye(8, dtype=np.float32) * np.float32(1e6)
    model = model_of("t = Mul(W, W) s = Sqrt(t) y = MatMul(x, s)", {"W": w})
    assert emulate(model, "fp16", {"x": np.ones((1, 8), np.float32) / 2})[0].tolist() == [32752] * 8


def test_overlapping_blocks_are_added_and_round() -> None:
    sizes = {"image": np.int64([1, 9]), "block": np.int64([1, 2])}
    model = model_of("y = Col2Im(x, image, block)", sizes, "float[1,2,8] x", "float[1,1,1,9] y", opset=18)
    x = uniform(1, 2, 8)
    held = round_array(x, "fp16")
    added = np.pad(held[0, 0], (0, 1)) + np.pad(held[0, 1], (1, 0))
    np.testing.assert_array_equal(emulate(model, "fp16", {"x": x}).ravel(), round_array(added, "fp16"))


@pytest.mark.parametrize("fmt", [*FLOATS, "int8"])
def test_weights_that_were_only_moved_round_as_if_they_had_been_stored_so(fmt: str) -> None:
    moved = model_of(
        "t = Transpose(W) r = Reshape(t, n) u = Unsqueeze(r, z) i = Identity(u) s = Squeeze(i, z) y = MatMul(x, s)",
        {"W": W88 * np.arange(1, 9, dtype=np.float32)[:, None], "n": np.int64([0, -1]), "z": np.int64([0])},
    )
    stored = model_of("y = MatMul(x, W)", {"W": (W88 * np.arange(1, 9, dtype=np.float32)[:, None]).T})
    got = emulate(moved, fmt, {"x": X}, ranges={"x": 3.0})
    np.testing.assert_array_equal(got, emulate(stored, fmt, {"x": X}, ranges={"x": 3.0}))


def test_a_constant_fill_rounds() -> None:
    fill = helper.make_node("ConstantOfShape", ["n"], ["W"], value=numpy_helper.from_array(np.float32([0.1])))
    model = model_of("y = MatMul(x, W)", {"n": np.int64([8, 8])})
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    proto.graph.node.insert(0, fill)
    want = round_array(X, "fp16").astype(np.float64) @ np.full((8, 8), np.float64(np.float16(0.1)))
    assert_rounded_like(emulate(Model(proto), "fp16", {"x": X}), want, "fp16")


SQUARES = (
    "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) p = Mul(d, d) v = ReduceMean<axes=[-1]>(p) s = Sqrt(v) y = Div(d, s)"
)


@pytest.mark.parametrize("body", ["y = LayerNormalization(x, g)", SQUARES])
def test_layer_normalization_squares_in_fp32_unless_decomposed(body: str) -> None:
    x = X * 1000
    model = model_of(body, {"g": np.ones(8, np.float32)})
    fused = emulate(model, "fp16", {"x": x})
    np.testing.assert_allclose(fused, layer_norm(x.astype(np.float64)), atol=2e-3)
    assert not emulate(model, "fp16", {"x": x}, decomposed=True).any()  # x^2 is infinite, x / inf zero


def test_softmax_decomposed_rounds_at_every_step() -> None:
    model = model_of("y = Softmax(x)")
    x = round_array(X, "bf16")

    def r(v: np.ndarray) -> np.ndarray:
        return round_array(v, "bf16")

    e = r(np.exp(r(x - x.max(-1, keepdims=True))))
    assert_rounded_like(
        emulate(model, "bf16", {"x": X}, decomposed=True), (e / r(e.sum(-1, keepdims=True))).astype(np.float64), "bf16"
    )


PIECES = """u = ReduceMean<axes=[-1]>({0}) d = Sub({0}, u) p = Pow(d, two) v = ReduceMean<axes=[-1]>(p) f = Add(v, e)
            s = Sqrt(f) q = Div(d, s) r = Mul(q, g) z = Add(r, b) """
RMS = "p = Pow({0}, two) v = ReduceMean<axes=[-1]>(p) f = Add(v, e) s = Sqrt(f) q = Div({0}, s) z = Mul(q, g) "
WHAT_ORT_FUSES = {
    "a graph input": PIECES.format("x") + "y = MatMul(z, W)",
    "a product": "a = MatMul(x, W) " + PIECES.format("a") + "y = MatMul(z, W)",
    "a graph output": PIECES.format("x") + "y = Identity(z)",
    "a residual": "a = MatMul(x, W) h = Add(a, x) " + PIECES.format("h") + "c = MatMul(z, W) y = Add(c, h)",
    "RMS, a product": "a = MatMul(x, W) " + RMS.format("a") + "y = MatMul(z, W)",
    "RMS, a residual": "a = MatMul(x, W) h = Add(a, x) " + RMS.format("h") + "c = MatMul(z, W) y = Add(c, h)",
    "transpositions": "t = Transpose(x) a = MatMul(t, x) c = Transpose(a) y = MatMul(c, W)",
    "gelu": "a = MatMul(x, W) c = Mul(a, k) f = Erf(c) d = Add(f, one) h = Mul(a, d) q = Mul(h, half) y = MatMul(q, W)",
    "softmax": "a = MatMul(x, W) m = Mul(a, half) c = Add(m, b) s = Softmax(c) y = MatMul(s, W)",
}


@pytest.mark.parametrize("fmt", ["fp16", "bf16"])
@pytest.mark.parametrize("name", WHAT_ORT_FUSES)
def test_what_onnx_runtime_fuses_does_not_change_what_rounds(name: str, fmt: str) -> None:
    small = {"two": 2, "e": 1e-5, "k": 0.70710677, "one": 1, "half": 0.5}
    weights = {"W": W88, "g": B8, "b": B8, **{k: np.float32(v) for k, v in small.items()}}
    model = model_of(WHAT_ORT_FUSES[name], weights, inputs="float[8,8] x")
    x = uniform(8, 8, seed=12)
    names = model.index.names
    for options in (
        {},
        {"every_node": True},
        {"decomposed": True},
        {"keep": names[1:]},
        {"keep": [names[0], *names[3:]]},
    ):
        rewritten = rounded(model, fmt, **options)  # type: ignore[arg-type]
        results = {}
        for level in ("disable", "basic", "extended", "all"):
            (results[level],) = OnnxrtRunner(optimization=level).open(rewritten).infer({"x": x}).values()
        for level, result in results.items():
            # other orders of FP32 sums may carry a value over a rounding boundary: by one unit, in few places
            far = 4 * resolve(fmt).u * np.abs(results["disable"]).max()
            np.testing.assert_allclose(result, results["disable"], rtol=0, atol=far, err_msg=f"{level} {options}")
            assert np.mean(np.abs(result - results["disable"]) > 1e-6) < 0.1, (level, options)


# Options


def test_every_node_rounds_inside_groups_too() -> None:
    model = model_of("a = MatMul(x, W) c = Add(a, b) y = Relu(c)", {"W": W88, "b": B8})
    for fmt in ("fp16", "tf32"):
        a = round_array(round_array(X, fmt) @ round_array(W88, fmt), fmt)
        got = emulate(model, fmt, {"x": X}, every_node=True)
        assert_rounded_like(got, np.maximum(a + round_array(B8, fmt), 0).astype(np.float64), fmt)


def test_groups_that_hold_a_kept_node_stay_fp32() -> None:
    body = "a = MatMul(x, W) c = Relu(a) d = MatMul(c, W) e = Relu(d) y = MatMul(e, W)"
    model = model_of(body, {"W": W88})
    plain = dict(zip("cey", run(model, {"x": X}, *"cey"), strict=True))
    names = model.index.names
    for either in (0, 1):  # either node of a group stands for it
        rewritten = rounded(model, "fp16", keep=[names[either], names[4]])
        c, e, y = run(rewritten, {"x": X}, *"cey")
        np.testing.assert_array_equal(c, plain["c"])
        assert_rounded_like(
            e, np.maximum(round_array(c, "fp16").astype(np.float64) @ round_array(W88, "fp16"), 0), "fp16"
        )
        np.testing.assert_allclose(y, e @ W88, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(run(rounded(model, "fp16", keep=names), {"x": X}, "y")[0], plain["y"])


def test_a_piece_computes_what_the_whole_does() -> None:
    whole = model_of("a = MatMul(x, W) c = Relu(a) d = MatMul(c, W) y = Add(d, c)", {"W": W88})
    piece = model_of("d = MatMul(c, W) y = Add(d, c)", {"W": W88}, inputs="float[N,8] c")
    for fmt in FLOATS:
        ranges = {"x": 3.0, "c": 9.0}
        c, y = run(rounded(whole, fmt, ranges=ranges), {"x": X}, "c", "y")
        np.testing.assert_array_equal(emulate(piece, fmt, {"c": c}, ranges=ranges), y)


def test_tensors_keep_their_names_and_weights_may_be_inputs() -> None:
    model = model_of("a = MatMul(x, W) c = Relu(a) y = Exp(c)", {"W": W88}, inputs="float[N,8] x, float[8,8] W")
    old = onnx.ModelProto.FromString(model.proto.SerializeToString())
    old.ir_version = 3
    rewritten = rounded(Model(old), "fp16")
    assert [i.name for i in rewritten.inputs] == ["x"]
    a, c, y = run(rewritten, {"x": X}, *"acy")
    assert np.any(a != round_array(a, "fp16"))  # inside the group
    assert_rounded_like(c, np.maximum(a, 0).astype(np.float64), "fp16")
    assert_rounded_like(y, np.exp(c.astype(np.float64)), "fp16")


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 21])
@pytest.mark.parametrize("fmt", [*FLOATS, "int8"])
def test_every_opset(fmt: str, opset: int) -> None:
    model = model_of(
        "a = MatMul(x, W) c = Add(a, b) d = Relu(c) e = Transpose(d) y = MatMul(e, d)", {"W": W88, "b": B8}, opset=opset
    )
    want, d = run(model, {"x": X}, "y", "d")
    got = emulate(model, fmt, {"x": X}, ranges={"x": 3.0, "e": float(d.max()), "d": float(d.max())})
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    u = resolve(fmt).u if fmt != "int8" else 1 / 127
    assert 0.02 * u < error < 4 * u


def test_external_weights_and_weights_too_large_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("a = MatMul(x, W) c = Add(a, b) y = Relu(c)", {"W": W88 * 1e5, "b": B8})
    path = tmp_path / "m.onnx"
    copy = onnx.ModelProto.FromString(model.proto.SerializeToString())
    onnx.save(copy, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    outside = load(path)
    for fmt in (*FLOATS, "int8"):
        ranges = {"x": 3.0}
        want = emulate(model, fmt, {"x": X}, ranges=ranges)
        (inline,) = run(rounded(outside, fmt, ranges=ranges), {"x": X})
        np.testing.assert_array_equal(inline, want)
        with monkeypatch.context() as patch:
            patch.setattr("layerdiff.graph.rounding.emulation.INLINE_LIMIT", 0)
            large = rounded(outside, fmt, ranges=ranges)
        if fmt != "int8":
            assert all(t.data_location == TensorProto.EXTERNAL for t in large.proto.graph.initializer if t.name == "W")
        (result,) = run(large, {"x": X})
        np.testing.assert_allclose(result, want, rtol=1e-5, atol=1e-3)


# Recurrent operators: the state rounds at every step

T, BATCH, IN, HIDDEN = 6, 3, 5, 4
SEQUENCE = uniform(T, BATCH, IN, seed=8)
LENGTHS = np.int32([6, 2, 4])


def cell_weights(gates: int, directions: int) -> Weights:
    return {
        "W": uniform(directions, gates * HIDDEN, IN, seed=9),
        "R": uniform(directions, gates * HIDDEN, HIDDEN, seed=10),
        "B": uniform(directions, 2 * gates * HIDDEN, seed=11),
    }


def lstm_oracle(x: np.ndarray, w: Weights, fmt: str, d: int, backwards: bool, lengths: np.ndarray | None) -> np.ndarray:
    """ONNX's LSTM with operands, h and c rounded at every step; float64 in between."""

    def r(v: np.ndarray) -> np.ndarray:
        return round_array(v.astype(np.float32), fmt).astype(np.float64)

    stores = fmt != "tf32"
    w_, r_, b = r(w["W"][d]), r(w["R"][d]), (r(w["B"][d]) if stores else w["B"][d].astype(np.float64))
    h, c = np.zeros((2, x.shape[1], HIDDEN))
    every = np.zeros((T, x.shape[1], HIDDEN))
    for t in reversed(range(T)) if backwards else range(T):
        i, o, f, g = np.split(r(x[t]) @ w_.T + r(h) @ r_.T + b[: 4 * HIDDEN] + b[4 * HIDDEN :], 4, -1)
        new_c = 1 / (1 + np.exp(-f)) * c + 1 / (1 + np.exp(-i)) * np.tanh(g)
        new_h = 1 / (1 + np.exp(-o)) * np.tanh(new_c)
        if stores:
            new_c, new_h = r(new_c), r(new_h)
        alive = np.ones((x.shape[1], 1), bool) if lengths is None else (t < lengths)[:, None]
        h, c = np.where(alive, new_h, h), np.where(alive, new_c, c)
        every[t] = np.where(alive, new_h, 0)
    return every


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_lstm_state_rounds_at_every_step(fmt: str, direction: str, lengths: np.ndarray | None) -> None:
    directions = 2 if direction == "bidirectional" else 1
    weights = cell_weights(4, directions)
    extra = {} if lengths is None else {"L": lengths}
    body = f'y, h, c = LSTM<hidden_size={HIDDEN}, direction="{direction}">(x, W, R, B{", L" if extra else ""})'
    model = model_of(body, {**weights, **extra}, inputs=f"float[T,N,{IN}] x")
    got = emulate(model, fmt, {"x": SEQUENCE})
    want = np.stack(
        [lstm_oracle(SEQUENCE, weights, fmt, d, direction == "reverse" or d == 1, lengths) for d in range(directions)],
        1,
    )
    u = resolve(fmt).u
    np.testing.assert_allclose(got, want, rtol=0, atol=0.6 * u)
    if fmt != "tf32":
        assert np.mean(got == want.astype(np.float32)) > 0.9
    unrounded = run(model, {"x": SEQUENCE}, "y")[0]
    assert np.abs(got - unrounded).max() > 0.1 * u


RECURRENT = {
    "LSTM, all inputs": (
        4,
        1,
        f"y, h, c = LSTM<hidden_size={HIDDEN}, clip=0.8, input_forget=0>(x, W, R, B, L, h0, c0, P)",
        {"L": LENGTHS, "h0": uniform(1, BATCH, HIDDEN), "c0": uniform(1, BATCH, HIDDEN), "P": uniform(1, 3 * HIDDEN)},
    ),
    "LSTM, activations": (
        4,
        2,
        f'y, h, c = LSTM<hidden_size={HIDDEN}, direction="bidirectional", '
        'activations=["Sigmoid","Relu","Tanh","HardSigmoid","Tanh","Softsign"]>(x, W, R, B)',
        {},
    ),
    "GRU": (3, 1, f"y, h = GRU<hidden_size={HIDDEN}>(x, W, R, B, L)", {"L": LENGTHS}),
    "GRU, linear before reset": (
        3,
        2,
        f'y, h = GRU<hidden_size={HIDDEN}, linear_before_reset=1, direction="bidirectional">(x, W, R, B)',
        {},
    ),
    "RNN": (1, 1, f'y, h = RNN<hidden_size={HIDDEN}, direction="reverse">(x, W, R, B)', {}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_one_step_at_a_time_is_the_same_operator(name: str) -> None:
    """With weights and inputs that TF32 holds, only h rounds; and the loop is the operator with all its attributes."""
    gates, directions, body, extra = RECURRENT[name]
    weights = {k: round_array(v, "tf32") if v.dtype == np.float32 else v for k, v in extra.items()}
    weights |= {k: round_array(v, "tf32") for k, v in cell_weights(gates, directions).items()}
    model = model_of(body, weights, inputs=f"float[T,N,{IN}] x")
    names = list(model.index.nodes[0].output)
    feed = {"x": round_array(SEQUENCE, "tf32")}
    for got, want in zip(run(rounded(model, "tf32"), feed, *names), run(model, feed, *names), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-3)
    for got, name_ in zip(run(rounded(model, "fp16"), feed, *names), names, strict=True):
        np.testing.assert_array_equal(got, round_array(got, "fp16"), name_)


# Old models and other domains


def test_a_model_of_opset_6_is_converted() -> None:
    model = model_of("a = MatMul(x, W) c = Relu(a) y = Mul(c, c)", {"W": W88}, inputs="float[5,8] x", opset=6)
    assert emulate(model, "tf32", {"x": X}).shape == X.shape


def test_trees_are_untouched() -> None:
    node = helper.make_node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml", threshold=0.1)
    infos = [helper.make_tensor_value_info(n, 1, [5, 8]) for n in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    model = Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 1)], ir_version=8))
    for fmt in ("fp16", "bf16", "tf32"):
        np.testing.assert_array_equal(emulate(model, fmt, {"x": X}, every_node=True), run(model, {"x": X})[0])


# Subgraphs


def test_both_branches_of_an_if_are_rewritten() -> None:
    body = """y = If(c) <then_branch = f () => (float[N,8] t) { t = MatMul(x, W) },
                         else_branch = g () => (float[N,8] e) { s = MatMul(x, W) e = Exp(s) }>"""
    model = model_of(body, {"W": W88}, inputs="float[N,8] x, bool c")
    product = round_array(X, "fp16").astype(np.float64) @ round_array(W88, "fp16")
    rounded = round_array(product.astype(np.float32), "fp16").astype(np.float64)
    assert_rounded_like(emulate(model, "fp16", {"x": X, "c": np.array(True)}), product, "fp16")
    assert_rounded_like(emulate(model, "fp16", {"x": X, "c": np.array(False)}), np.exp(rounded), "fp16")


def test_the_state_of_a_loop_rounds_at_every_step() -> None:
    body = """n = Constant<value = int64 {5}>() c = Constant<value = bool {1}>()
              y = Loop(n, c, x) <body = g (int64 i, bool k, float[N,8] s) => (bool o, float[N,8] t)
                                        { o = Identity(k) m = MatMul(s, W) t = Tanh(m) }>"""
    w = uniform(8, 8) / 2
    got = emulate(model_of(body, {"W": w}), "bf16", {"x": X})
    state = round_array(X, "bf16")
    for _ in range(5):
        exact = np.tanh(state.astype(np.float64) @ round_array(w, "bf16"))
        state = round_array(exact.astype(np.float32), "bf16")
    np.testing.assert_allclose(got, state, rtol=0, atol=2.0**-9)
    np.testing.assert_array_equal(got, round_array(got, "bf16"))


def test_the_rewritten_graph_is_well_formed_everywhere() -> None:
    body = """a = MatMul(x, W) y = If(c) <then_branch = f () => (float[N,8] t) { q = Add(a, b) t = MatMul(q, W) },
                                          else_branch = g () => (float[N,8] e) { e = Softmax(a) }>"""
    model = model_of(body, {"W": W88, "b": B8}, inputs="float[N,8] x, bool c")
    for fmt in (*FLOATS, "int8"):
        for every in (False, True):
            rewritten = rounded(model, fmt, every_node=every, ranges={"x": 3.0, "a": 9.0, "y": 9.0})
            check(rewritten, full=True)
            names = [o for n in rewritten.proto.graph.node for o in n.output]
            assert len(names) == len(set(names))
            for value in (True, False):
                assert np.isfinite(run(rewritten, {"x": X, "c": np.array(value)})[0]).all()


def test_groups_can_be_given_and_models_are_not_changed() -> None:
    model = model_of("a = MatMul(x, W) c = Add(a, b) y = Relu(c)", {"W": W88, "b": B8})
    before = model.proto.SerializeToString(deterministic=True)
    groups = fused_groups(model.index)
    given = emulate(model, "fp16", {"x": X}, groups=groups)
    np.testing.assert_array_equal(given, emulate(model, "fp16", {"x": X}))
    assert model.proto.SerializeToString(deterministic=True) == before
    assert static_tensors(GraphIndex(model.proto)) == {"W", "b"}
