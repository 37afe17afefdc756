"""Graphs that are typed FP16 or BF16: every tensor of an emulation holds what its type holds. The oracle is NumPy's."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from layerdiff.graph.errors import RunnerError
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.round_array import round_array
from layerdiff.graph.rounding.typed import typed
from layerdiff.runners.emulate import EmulateRunner
from onnx import TensorProto

from support.models import parsed

TYPES = {"fp16": ("float16", TensorProto.FLOAT16, np.float16), "bf16": ("bfloat16", 16, ml_dtypes.bfloat16)}
EMULATED = ("fp16", "bf16", "tf32", "int8")
BIG = {"fp16": 300.0, "bf16": 3e19}
"""Values whose square exceeds the format's greatest."""


def typed_model(
    body: str, fmt: str, inputs: str = "T[4,8] x", outputs: str = "T[4,8] y", **weights: np.ndarray
) -> Model:
    name, number, _ = TYPES[fmt]
    text = f"t ({inputs}) => ({outputs}) {{ {body} }}"
    text = text.replace("T[", f"{name}[").replace("=T>", f"={number}>")
    return Model(parsed(text, opset=17, **weights))


def values(fmt: str, *shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).normal(0, scale, shape)).astype(TYPES[fmt][2])


def emulated(
    model: Model, feed: dict[str, np.ndarray], emulate: str = "fp16", **options: bool
) -> dict[str, np.ndarray]:
    """Every tensor of an emulation."""
    runner = EmulateRunner(format=emulate, ranges=() if emulate == "int8" else None, **options)
    names = [n for node in model.proto.graph.node for n in node.output]
    with runner.open(model, fetch=names) as session:
        return session.infer(feed, names)


ELEMENTWISE = {
    "a chain": ("a = Mul(x, x) b = Sqrt(a) y = Div(b, x)", lambda x: np.sqrt(x * x) / x),
    "its own sum": ("a = Add(x, x) b = Mul(a, x) y = Sub(b, a)", lambda x: (x + x) * x - (x + x)),
    "moved between": (
        "a = Mul(x, x) b = Transpose<perm=[1,0]>(a) c = Transpose<perm=[1,0]>(b) d = Relu(c) y = Div(x, d)",
        lambda x: x / np.maximum(x * x, 0),
    ),
    "a reciprocal": ("a = Mul(x, x) b = Mul(a, a) y = Reciprocal(b)", lambda x: 1 / ((x * x) * (x * x))),
}


@pytest.mark.parametrize("scale", ["small", "one", "big"])
@pytest.mark.parametrize("emulate", EMULATED)
@pytest.mark.parametrize("fmt", TYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_result_rounds_to_its_type(name: str, fmt: str, emulate: str, scale: str) -> None:
    body, oracle = ELEMENTWISE[name]
    x = values(fmt, 4, 8, scale={"small": 1 / BIG[fmt], "one": 1.0, "big": BIG[fmt]}[scale])
    made = emulated(typed_model(body, fmt), {"x": x}, emulate)
    with np.errstate(all="ignore"):
        want = oracle(x)
    assert want.dtype == made["y"].dtype == x.dtype
    np.testing.assert_array_equal(made["y"].astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("fmt", TYPES)
def test_products_round_their_sums_and_never_heal(fmt: str) -> None:
    w = values(fmt, 8, 8, seed=1)
    made = emulated(typed_model("a = MatMul(x, w) b = Mul(a, a) y = Sqrt(b)", fmt, w=w), {"x": values(fmt, 4, 8)}, fmt)
    exact = values(fmt, 4, 8).astype(np.float64) @ w.astype(np.float64)
    a = made["a"].astype(np.float32)
    np.testing.assert_array_equal(a, round_array(a, fmt))
    np.testing.assert_allclose(a, exact, rtol=2.0 ** (-7 if fmt == "bf16" else -10), atol=1e-3)
    big = emulated(
        typed_model("a = MatMul(x, w) b = Mul(a, a) y = Sqrt(b)", fmt, w=w),
        {"x": values(fmt, 4, 8, scale=BIG[fmt])},
        fmt,
    )
    lost = ~np.isfinite(big["b"].astype(np.float32))
    assert lost.any()
    np.testing.assert_array_equal(~np.isfinite(big["y"].astype(np.float32)), lost)


BODIES = {
    "If": """c = Cast<to=9>(one)
             y = If (c) <then_branch = g () => (T[4,8] p) { q = Mul(x, x) p = Sqrt(q) },
                         else_branch = h () => (T[4,8] r) { r = Identity(x) }>""",
    "Loop": """yes = Cast<to=9>(one)
               y = Loop (n, yes, x) <body = b (int64 i, bool c, T[4,8] s) => (bool k, T[4,8] u)
                   { k = Identity(c) v = Mul(s, s) u = Sqrt(v) }>""",
    "Scan": """y = Scan <num_scan_inputs=1, body = b (T[8] s) => (T[8] u) { v = Mul(s, s) u = Sqrt(v) }> (x)""",
    "captured": """a = Mul(x, x) c = Cast<to=9>(one)
                   y = If (c) <then_branch = g () => (T[4,8] p) { p = Sqrt(a) },
                               else_branch = h () => (T[4,8] r) { r = Identity(x) }>""",
}


@pytest.mark.parametrize("scale", ["small", "one", "big"])
@pytest.mark.parametrize("fmt", TYPES)
@pytest.mark.parametrize("name", BODIES)
def test_bodies_round_as_their_types_say(name: str, fmt: str, scale: str) -> None:
    weights = {"one": np.float32(1).reshape(()), "n": np.int64(2).reshape(())}
    model = typed_model(BODIES[name], fmt, **weights)
    x = np.abs(values(fmt, 4, 8, scale={"small": 1 / BIG[fmt], "one": 1.0, "big": BIG[fmt]}[scale]))
    made = emulated(model, {"x": x}, fmt)["y"]
    with np.errstate(all="ignore"):
        want = np.sqrt(x * x)
        want = np.sqrt(want * want) if name == "Loop" else want
    np.testing.assert_array_equal(made.astype(np.float32), want.astype(np.float32))


CELLS = [("LSTM", 4), ("GRU", 3), ("RNN", 1)]


@pytest.mark.parametrize(("op", "gates"), CELLS)
@pytest.mark.parametrize("fmt", TYPES)
def test_the_state_of_a_recurrent_layer_rounds_at_every_step(op: str, gates: int, fmt: str) -> None:
    weights = {"w": values(fmt, 1, gates * 4, 8, seed=1), "r": values(fmt, 1, gates * 4, 4, seed=2)}
    model = typed_model(f"y = {op}<hidden_size=4>(x, w, r)", fmt, "T[5,2,8] x", "T[5,1,2,4] y", **weights)
    x = values(fmt, 5, 2, 8)
    made = emulated(model, {"x": x}, "fp16")["y"].astype(np.float32)
    np.testing.assert_array_equal(made, round_array(made, fmt))
    wide = Model(parsed(f"t (float[5,2,8] x) => (float[5,1,2,4] y) {{ y = {op}<hidden_size=4>(x, w, r) }}",
                        **{n: w.astype(np.float32) for n, w in weights.items()}))  # fmt: skip
    with EmulateRunner(format=fmt).open(wide) as session:
        want = session.infer({"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(made, want)


@pytest.mark.parametrize("fmt", TYPES)
@pytest.mark.parametrize("decomposed", [False, True])
def test_softmax_rounds_inside_only_where_asked_to(fmt: str, decomposed: bool) -> None:
    model, x = typed_model("y = Softmax<axis=1>(x)", fmt), values(fmt, 4, 8)
    made = emulated(model, {"x": x}, decomposed=decomposed)["y"].astype(np.float32)
    power = np.exp(x.astype(np.float64) - x.astype(np.float64).max(1, keepdims=True))
    once = round_array((power / power.sum(1, keepdims=True)).astype(np.float32), fmt)
    assert np.array_equal(made, once) != decomposed


def test_types_of_fp32_neighbours_stay_the_emulated_format_s_matter() -> None:
    """FP32 between two typed parts rounds as the emulation says, the typed parts as their types say."""
    model = typed_model("a = Cast<to=T>(x) b = Mul(a, a) c = Cast<to=1>(b) y = Exp(c)", "fp16", "float[4,8] x",
                        "float[4,8] y")  # fmt: skip
    x = values("fp16", 4, 8).astype(np.float32)
    half = x.astype(np.float16)
    square = (half * half).astype(np.float32)
    made = {fmt: emulated(model, {"x": x}, fmt) for fmt in ("bf16", "tf32")}
    for fmt in made:
        np.testing.assert_array_equal(made[fmt]["b"].astype(np.float32), square)
    np.testing.assert_array_equal(made["bf16"]["y"], round_array(made["bf16"]["y"], "bf16"))
    np.testing.assert_allclose(made["tf32"]["y"], np.exp(square), rtol=1e-6)


@pytest.mark.parametrize("emulate", EMULATED)
def test_mixed_types_round_each_to_its_own(emulate: str) -> None:
    model = typed_model("a = Mul(x, x) b = Cast<to=1>(a) c = Cast<to=16>(b) d = Mul(c, c) y = Cast<to=10>(d)", "fp16")
    x = values("fp16", 4, 8)
    bf16 = (x * x).astype(ml_dtypes.bfloat16)
    made = emulated(model, {"x": x}, emulate)
    np.testing.assert_array_equal(made["y"], (bf16 * bf16).astype(np.float16))


@pytest.mark.parametrize("fmt", TYPES)
def test_constants_that_the_graph_computes_round_too(fmt: str) -> None:
    w = np.asarray([BIG[fmt]], TYPES[fmt][2])
    model = typed_model("a = Mul(w, w) b = Reciprocal(a) y = Add(x, b)", fmt, w=w)
    x = np.zeros((4, 8), TYPES[fmt][2])
    np.testing.assert_array_equal(emulated(model, {"x": x})["y"], x)


def test_what_the_project_types_itself_rounds_as_its_types_say() -> None:
    weights = {"w": values("bf16", 8, 8).astype(np.float32)}
    model = Model(
        parsed("t (float[4,8] x) => (float[4,8] y) { a = MatMul(x, w) b = Mul(a, a) y = Sqrt(b) }", **weights)
    )
    x = values("fp16", 4, 8, scale=200).astype(np.float32)
    half = typed(model, "fp16").model
    with EmulateRunner(format="fp16").open(half) as session:
        assert np.isinf(session.infer({"x": x})["y"]).any()


def test_inputs_keep_the_type_of_the_model() -> None:
    model = typed_model("y = Exp(x)", "fp16")
    with EmulateRunner(format="fp16").open(model) as session:
        assert [spec.dtype for spec in (*session.inputs, *session.outputs)] == [np.float16, np.float16]
        with pytest.raises(RunnerError, match=r"input 'x' is float16, the value given float32"):
            session.infer({"x": np.zeros((4, 8), np.float32)})


def test_weights_in_another_file_are_read_in_their_type(tmp_path) -> None:
    w = values("fp16", 8, 8)
    onnx.save_model(
        typed_model("y = MatMul(x, w)", "fp16", w=w).proto,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    from layerdiff.graph.load import load

    x = values("fp16", 4, 8)
    made = emulated(load(tmp_path / "m.onnx"), {"x": x})["y"]
    np.testing.assert_allclose(made, x.astype(np.float32) @ w.astype(np.float32), rtol=1e-3, atol=1e-3)
