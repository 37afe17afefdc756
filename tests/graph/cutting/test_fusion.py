"""Which nodes are one group. Graphs are written in ONNX's text form; a group is the set of its outputs' names."""

import onnx
import pytest
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.index import GraphIndex

from support.models import parsed

W = "float[8,8] W, float[8] b, float[8] g, float[8] m, float[8] v, float half, float one, float three, float k"


def index_of(body: str, outputs: str = "float[N,8] y", inputs: str = "float[N,8] x") -> GraphIndex:
    model = parsed(f"t ({inputs}) => ({outputs}) <{W}> {{ {body} }}")
    for name, dims in [("W", [8, 8]), *((n, [8]) for n in "bgmv"), *((n, []) for n in ("half", "one", "three", "k"))]:
        size = 64 if name == "W" else 8 if dims else 1
        model.graph.initializer.append(onnx.helper.make_tensor(name, 1, dims, [0.5] * size))
    return GraphIndex(model)


def groups_of(body: str, **parts: str) -> list[str]:
    index = index_of(body, **parts)
    groups = fused_groups(index)
    assert sorted(n for g in groups for n in g.nodes) == list(range(len(index.nodes)))
    assert [g.nodes[-1] for g in groups] == sorted(g.nodes[-1] for g in groups)
    assert all(g.main in g.nodes for g in groups)
    return [" ".join(index.nodes[n].output[0] for n in g.nodes) for g in groups]


PRODUCT = "a = MatMul(x, W) "
CASES = {
    "bias": ("a = MatMul(x, W) y = Add(a, b)", ["a y"]),
    "scale, bias, activation": ("a = MatMul(x, W) c = Mul(a, half) d = Add(c, b) y = Relu(d)", ["a c d y"]),
    "batchnorm": ("a = MatMul(x, W) c = BatchNormalization(a, g, b, m, v) y = LeakyRelu(c)", ["a c y"]),
    "silu": ("a = MatMul(x, W) s = Sigmoid(a) y = Mul(a, s)", ["a s y"]),
    "quick gelu": ("a = MatMul(x, W) q = Mul(a, k) s = Sigmoid(q) y = Mul(a, s)", ["a q s y"]),
    "gelu, erf": (
        "a = MatMul(x, W) c = Div(a, k) e = Erf(c) f = Add(e, one) h = Mul(a, f) y = Mul(h, half)",
        ["a c e f h y"],
    ),
    "gelu, erf, half first": (
        "a = MatMul(x, W) n = Mul(a, half) c = Div(a, k) e = Erf(c) f = Add(e, one) y = Mul(n, f)",
        ["a n c e f y"],
    ),
    "gelu, tanh": (
        "a = MatMul(x, W) p = Pow(a, three) q = Mul(p, k) r = Add(a, q) s = Mul(r, k) t = Tanh(s) "
        "u = Add(t, one) h = Mul(a, u) y = Mul(h, half)",
        ["a p q r s t u h y"],
    ),
    "residual, activation": ("a = MatMul(x, W) c = Add(a, b) d = Add(x, c) y = Relu(d)", ["a c d y"]),
    "activation, residual": ("a = MatMul(x, W) c = Relu(a) y = Add(c, x)", ["a c y"]),
    "residual joins the later product": (
        "a = MatMul(x, W) i = Identity(a) c = MatMul(x, W) d = Relu(c) e = MatMul(d, W) f = Add(a2, e) y = Relu(f)"
        "".replace("i = Identity(a)", "a2 = Tanh(a)"),
        ["a a2", "c d", "e f y"],
    ),
    "attention's scale": ("t = Transpose(x) a = MatMul(x, t) c = Mul(a, k) y = Softmax(c)", ["t", "a", "c", "y"]),
    "attention's mask": ("t = Transpose(x) a = MatMul(x, t) y = Add(a, k)", ["t", "a y"]),
    "one activation only": ("a = MatMul(x, W) c = Relu(a) y = Sigmoid(c)", ["a c", "y"]),
    "one residual only": ("a = MatMul(x, W) c = Add(a, x) y = Add(c, x)", ["a c", "y"]),
    "no gate": ("s = Sigmoid(x) a = MatMul(x, W) y = Mul(a, s)", ["a", "s y"]),
    "two readers": ("a = MatMul(x, W) c = Relu(a) d = MatMul(a, W) y = Sub(c, d)", ["a", "d", "c y"]),
    "layer norm": (
        "u = ReduceMean<axes=[-1]>(x) d = Sub(x, u) p = Pow(d, three) v2 = ReduceMean<axes=[-1]>(p) e = Add(v2, k) "
        "s = Sqrt(e) q = Div(d, s) r = Mul(q, g) y = Add(r, b)",
        ["u d p v2 e s q r y"],
    ),
    "layer norm, square by Mul": (
        "u = ReduceMean<axes=[-1]>(x) d = Sub(x, u) p = Mul(d, d) v2 = ReduceMean<axes=[-1]>(p) e = Add(v2, k) "
        "s = Sqrt(e) y = Div(d, s)",
        ["u d p v2 e s y"],
    ),
    "rms norm": (
        "p = Pow(x, three) v2 = ReduceMean<axes=[-1]>(p) e = Add(v2, k) s = Sqrt(e) q = Div(x, s) y = Mul(q, g)",
        ["p v2 e s q y"],
    ),
    "softmax": (
        "u = ReduceMax<axes=[-1]>(x) d = Sub(x, u) e = Exp(d) s = ReduceSum(e, axis) y = Div(e, s)".replace(
            ", axis", ""
        ),
        ["u d e s y"],
    ),
    "softmax without maximum": ("e = Exp(x) s = ReduceSum(e) y = Div(e, s)", ["e s y"]),
    "norm between products": (
        "a = MatMul(x, W) u = ReduceMean<axes=[-1]>(a) d = Sub(a, u) p = Mul(d, d) v2 = ReduceMean<axes=[-1]>(p) "
        "e = Add(v2, k) s = Sqrt(e) q = Div(d, s) y = MatMul(q, W)",
        ["a", "u d p v2 e s q", "y"],
    ),
    "elementwise chain": ("a = Sqrt(x) c = Exp(a) d = Neg(x) y = Add(c, d)", ["a c d y"]),
    "a chain ends at a reader outside": ("a = Sqrt(x) c = Exp(a) d = Softmax(c) y = Add(c, d)", ["a c", "d", "y"]),
    "nothing swallows a Transpose": ("a = MatMul(x, W) c = Transpose(a) d = Transpose(c) y = Relu(d)", list("acdy")),
}


@pytest.mark.parametrize("name", CASES)
def test_groups(name: str) -> None:
    body, expected = CASES[name]
    assert groups_of(body) == expected


def test_a_graph_output_is_never_swallowed() -> None:
    assert groups_of("a = MatMul(x, W) y = Relu(a)", outputs="float[N,8] y, float[N,8] a") == ["a", "y"]


def test_integer_arithmetic_is_not_fused() -> None:
    body = "a = Mul(i, i) c = Add(a, i) y = Neg(c)"
    assert groups_of(body, inputs="int64[N] i", outputs="int64[N] y") == ["a", "c", "y"]


def test_constant_arithmetic_is_not_fused() -> None:
    assert groups_of("a = Mul(W, half) c = Neg(a) d = MatMul(x, c) y = Relu(d)") == ["a", "c", "d y"]


@pytest.mark.parametrize(
    ("name", "main"), [("bias", "a"), ("layer norm", "q"), ("softmax", "y"), ("residual, activation", "a")]
)
def test_main_does_the_arithmetic(name: str, main: str) -> None:
    index = index_of(CASES[name][0])
    (group,) = fused_groups(index)
    assert index.nodes[group.main].output[0] == main
