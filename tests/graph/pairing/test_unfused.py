"""A sum and the normalization behind it, where one file has them in one operator of ONNX Runtime's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

WIDE = 8
WEIGHTS = {
    **{name: normal(WIDE, WIDE, seed=i) / 2 for i, name in enumerate(("w", "v", "u"))},
    "gamma": 1 + normal(WIDE, seed=5) / 4, "beta": normal(WIDE, seed=6), "bias": normal(WIDE, seed=7),
}  # fmt: skip
DATA = [{"x": normal(2, 4, WIDE, seed=9)}]
MIDDLE = {
    "apart": """[biased] c = Add(b, bias) [sum] s = Add(a, c)
        [norm] n = LayerNormalization<epsilon={eps}>(s, gamma, beta)""",
    "fused": """[biased] c = Add(b, bias)
        [skip] n = com.microsoft.SkipLayerNormalization<epsilon={eps}>(a, c, gamma, beta)""",
    "with the bias": "[skip] n = com.microsoft.SkipLayerNormalization<epsilon={eps}>(a, b, gamma, beta, bias)",
    "with the sum": """[biased] c = Add(b, bias)
        [skip] n, , , s = com.microsoft.SkipLayerNormalization<epsilon={eps}>(a, c, gamma, beta)""",
}
ONE = [name for name in MIDDLE if name != "apart"]


def network(middle: str, eps: float = 1e-5, *, reads_sum: bool = False, **others: np.ndarray):
    end = "[more] t = Add(n, s) [last] y = MatMul(t, u)" if reads_sum else "[last] y = MatMul(n, u)"
    steps = MIDDLE[middle]
    text = f"""g (float[2,4,{WIDE}] x) => (float[2,4,{WIDE}] y) {{
        [first] a = MatMul(x, w) [second] b = MatMul(a, v) {steps.format(eps=eps)} {end} }}"""
    domains = [] if middle == "apart" else ["com.microsoft"]
    return parsed(text, domains=domains, **{**WEIGHTS, **others})


def pair(fused: str, turned: bool = False, eps: float = 1e-5, **others: np.ndarray):
    reads_sum = fused == "with the sum"
    first, second = network("apart", reads_sum=reads_sum), network(fused, eps, reads_sum=reads_sum, **others)
    return (second, first) if turned else (first, second)


@pytest.mark.parametrize("fused", ONE)
@pytest.mark.parametrize("turned", [False, True])
def test_both_in_one_operator_are_no_fault(fused, turned):
    report = compare(*pair(fused, turned), DATA)
    assert (report.verdict, report.culprits) == ("pass", ())


@pytest.mark.parametrize("fused", ONE)
def test_another_epsilon_is_told_with_both_values(fused):
    culprit = only(compare(*pair(fused, eps=0.1), DATA))
    assert (culprit.node, culprit.cause) == ("norm", "attribute")
    assert "epsilon 1e-05 against 0.1" in culprit.evidence
    culprit = only(compare(*pair(fused, turned=True, eps=0.1), DATA))
    assert (culprit.node, culprit.cause) == ("skip", "attribute")
    assert "epsilon 0.1 against 1e-05" in culprit.evidence


@pytest.mark.parametrize("fused", ONE)
@pytest.mark.parametrize(("name", "node"), [("gamma", "norm"), ("w", "first"), ("u", "last")])
def test_weights_are_compared_beside_it(fused, name, node):
    culprit = only(compare(*pair(fused, **{name: np.flip(WEIGHTS[name], -1)}), DATA))
    assert (culprit.node, culprit.cause) == (node, "weights")


@pytest.mark.parametrize(
    ("name", "node", "noun"), [("bias", "biased", "biases"), ("beta", "norm", "biases"), ("gamma", "norm", "weights")]
)
def test_each_of_its_weights_is_told_by_what_it_is(name, node, noun):
    """It adds its bias to whichever of the two: the other file may to the other one."""
    culprit = only(compare(*pair("with the bias", **{name: 0 * WEIGHTS[name]}), DATA))
    assert (culprit.node, culprit.cause) == (node, "weights")
    assert culprit.evidence.startswith(f"8 of 8 {noun} differ")
    first, second = pair("with the bias", turned=True)
    for weight in second.graph.initializer:
        if weight.name == name:
            weight.CopyFrom(onnx.numpy_helper.from_array(0 * WEIGHTS[name], name))
    culprit = only(compare(first, second, DATA))
    assert (culprit.node, culprit.cause) == ("skip", "weights")
    assert culprit.evidence.startswith(f"{name}: 8 of 8 {noun} differ")


def test_what_it_reads_in_place_of_another_tensor_is_told_by_its_own_name():
    middle = MIDDLE["with the bias"].format(eps=1e-5).replace("(a, b,", "(b, b,")
    apart = MIDDLE["apart"].format(eps=1e-5)
    both = [
        parsed(
            f"""g (float[2,4,{WIDE}] x) => (float[2,4,{WIDE}] y) {{
            [first] a = MatMul(x, w) [second] b = MatMul(a, v) {steps} [mid] m = Relu(n) [last] y = MatMul(m, u) }}""",
            domains=domains,
            **WEIGHTS,
        )
        for steps, domains in ((apart, []), (middle, ["com.microsoft"]))
    ]
    culprit = only(compare(*both, DATA))
    assert culprit.cause == "wrong-op"
    assert culprit.remedies[0].text == "let skip read 'a' in the second file"


EMBEDDING = {
    "apart": """[words] a = Gather(word, ids) [positions] b = Gather(position, places) [sum] c = Add(a, b)
        [kinds] d = Gather(segment, types) [total] e = Add(c, d)
        [norm] n = LayerNormalization<epsilon={eps}>(e, g, h)""",
    "fused": """[embed] n, m = com.microsoft.EmbedLayerNormalization<epsilon={eps}>(ids, types, word, position, segment,
        g, h)""",
    "without kinds": """[embed] n, m = com.microsoft.EmbedLayerNormalization<epsilon={eps}>(ids, , word, position, ,
        g, h)""",
}
TABLES = {
    "word": normal(9, WIDE, seed=1), "position": normal(4, WIDE, seed=2), "segment": normal(2, WIDE, seed=3),
    "g": 1 + normal(WIDE, seed=5) / 4, "h": normal(WIDE, seed=6), "u": normal(WIDE, WIDE, seed=7),
}  # fmt: skip
IDS = [{"ids": np.array([[1, 4, 8, 0], [2, 2, 7, 5]], np.int32), "types": np.array([[0, 0, 1, 1]] * 2, np.int32)}]


def embedded(form: str, eps: float = 1e-5, **others: np.ndarray):
    text = f"""g (int32[2,4] ids, int32[2,4] types) => (float[2,4,{WIDE}] y) {{
        {EMBEDDING[form].format(eps=eps)} [relu] r = Relu(n) [last] y = MatMul(r, u) }}"""
    known = {**TABLES, "places": np.arange(4)[None], **others}
    read = {name: value for name, value in known.items() if name in text.replace("positions", "")}
    return parsed(text, domains=[] if form == "apart" else ["com.microsoft"], **read)


@pytest.mark.parametrize("turned", [False, True])
def test_embeddings_and_their_normalization_in_one_operator_are_no_fault(turned):
    both = embedded("apart"), embedded("fused")
    report = compare(*(both[::-1] if turned else both), IDS)
    assert (report.verdict, report.culprits) == ("pass", ())


@pytest.mark.parametrize(
    ("fused", "node", "told"),
    [
        (embedded("fused", eps=0.1), "norm", "epsilon 1e-05 against 0.1"),
        (embedded("fused", g=TABLES["g"] * np.float32(1.1)), "norm", "8 of 8 weights differ"),
        (embedded("fused", h=TABLES["h"] * 0), "norm", "8 of 8 biases differ"),
        (embedded("fused", segment=TABLES["segment"][::-1].copy()), "kinds", "16 of 16 weights differ"),
        (embedded("without kinds"), "total", "Gather kinds and Add total are missing in the candidate"),
    ],
)
def test_what_is_wrong_of_embeddings_in_one_operator_is_told(fused, node, told):
    culprit = only(compare(embedded("apart"), fused, IDS))
    assert culprit.node == node
    assert culprit.evidence.startswith(told)


@pytest.mark.parametrize("turned", [False, True])
def test_a_gate_that_takes_the_other_half_is_told(turned):
    def gated(one: str, other: str, form: str):
        gate = {
            "apart": "[sigmoid] s = Sigmoid({}) [swish] t = Mul({}, s)",
            "fused": "[quick] t = com.microsoft.QuickGelu<alpha=1.0>({})",
        }[form].format(one, one)
        text = f"""g (float[2,4,{WIDE}] x) => (float[2,4,{WIDE // 2}] y) {{
            [up] h = MatMul(x, w) [split] a, b = Split<axis=-1>(h) {gate} [gate] m = Mul(t, {other})
            [down] y = MatMul(m, v) }}"""
        domains = [] if form == "apart" else ["com.microsoft"]
        return parsed(text, domains=domains, w=WEIGHTS["w"], v=normal(WIDE // 2, WIDE // 2, seed=4))

    forms = ("fused", "apart") if turned else ("apart", "fused")
    assert compare(gated("a", "b", forms[0]), gated("a", "b", forms[1]), DATA).verdict == "pass"
    culprit = only(compare(gated("a", "b", forms[0]), gated("b", "a", forms[1]), DATA))
    assert culprit.node == "gate"
    readers = "sigmoid and swish read" if turned else "quick read"
    assert culprit.remedies[0].text == f"let gate read 'b' and {readers} 'a' in the second file"


def test_what_is_behind_it_is_told_without_it():
    def network(*middle: str, domains=()):
        text = f"""g (float[2,4,{WIDE}] x) => (float[2,4,{WIDE}] y) {{
            [first] a = MatMul(x, w) [second] b = MatMul(a, v) {" ".join(middle)} [last] y = MatMul(m, u) }}"""
        return parsed(text, domains=domains, **WEIGHTS)

    apart = network(MIDDLE["apart"].format(eps=1e-5), "[gate] g = Sigmoid(n) [product] m = Mul(n, g)")
    quick = "[quick] m = com.microsoft.QuickGelu<alpha=1.7>(n)"
    fused = network(MIDDLE["with the bias"].format(eps=1e-5), quick, domains=["com.microsoft"])
    culprit = only(compare(apart, fused, DATA))
    assert (culprit.node, culprit.cause) == ("quick", "attribute")
    assert culprit.evidence == "alpha of QuickGelu quick is 1.7: with 1 it makes what the first file does"


FLAT = {
    "wide": "[up] h0 = MatMul(x, w) [up_bias] h = Add(h0, bias)",
    "flat": "[down_to_rows] r = Reshape(x, rows) [gemm] g = Gemm(r, w, bias) [back] h = Reshape(g, sizes)",
    "wide heads": """[up] h0 = MatMul(x, w) [up_bias] h1 = Add(h0, bias) [split] h2 = Reshape(h1, heads)
        [turn] h3 = Transpose<perm=[0,2,1,3]>(h2) [gate] h4 = Sigmoid(h3) [back] h5 = Transpose<perm=[0,2,1,3]>(h4)
        [join] h6 = Reshape(h5, sizes) [mix] h7 = MatMul(h6, v) [mix_bias] h = Add(h7, beta)""",
    "flat heads": """[r0] r = Reshape(x, rows) [g0] g = Gemm(r, w, bias) [split] h2 = Reshape(g, heads)
        [turn] h3 = Transpose<perm=[0,2,1,3]>(h2) [gate] h4 = Sigmoid(h3) [back] h5 = Transpose<perm=[0,2,1,3]>(h4)
        [r1] r6 = Reshape(h5, rows) [g1] h7 = Gemm(r6, v, beta) [back_] h = Reshape(h7, sizes)""",
}
GELU = {
    "pieces": """[div] e0 = Div(h, root) [erf] e1 = Erf(e0) [more] e2 = Add(e1, one) [times] e3 = Mul(h, e2)
        [half] e = Mul(e3, half)""",
    "one": "[gelu] e = com.microsoft.Gelu(h)",
    "fast": "[gelu] e = com.microsoft.FastGelu(h)",
}


def products(first: str, gelu: str = "pieces", norm: str = "whole", **others: np.ndarray):
    """A normalization, a product of all tokens, and an activation, before another product."""
    norms = {
        "whole": "[norm] x = LayerNormalization(a, gamma, beta)",
        "pieces": """[mean] n0 = ReduceMean<axes=[-1]>(a) [less] n1 = Sub(a, n0) [square] n2 = Mul(n1, n1)
            [var] n3 = ReduceMean<axes=[-1]>(n2) [eps] n4 = Add(n3, eps) [deviation] n5 = Sqrt(n4)
            [over] n6 = Div(n1, n5) [gain] n7 = Mul(n6, gamma) [shift] x = Add(n7, beta)""",
    }
    text = f"""g (float[2,4,{WIDE}] a) => (float[2,4,{WIDE}] y) {{
        {norms[norm]} {FLAT[first]} {GELU[gelu]} [last] y = MatMul(e, u) }}"""
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5, "eps": 1e-5}
    shapes = {"rows": [8, WIDE], "sizes": [2, 4, WIDE], "heads": [2, 4, 2, WIDE // 2]}
    values = {
        **WEIGHTS, **{name: np.array(shape) for name, shape in shapes.items()},
        **{name: np.array(value, np.float32) for name, value in numbers.items()}, **others,
    }  # fmt: skip
    read = {name: value for name, value in values.items() if f" {name})" in text or f" {name}," in text}
    return parsed(text, domains=["com.microsoft"] if "microsoft" in text else [], **read)


TOKENS = [{"a": normal(2, 4, WIDE, seed=9)}]


@pytest.mark.parametrize("heads", ["", " heads"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_of_rows_that_is_one_of_tokens_is_no_fault(heads, turned):
    pair = products(f"wide{heads}"), products(f"flat{heads}", "one", "pieces")
    report = compare(*(pair[::-1] if turned else pair), TOKENS)
    assert (report.verdict, report.culprits) == ("pass", ())


@pytest.mark.parametrize("heads", ["", " heads"])
def test_its_weights_are_compared(heads):
    wrong = WEIGHTS["w"] * np.where(np.arange(WIDE) == 3, np.float32(1.2), 1)
    report = compare(products(f"wide{heads}"), products(f"flat{heads}", "one", "pieces", w=wrong), TOKENS)
    assert (only(report).node, only(report).cause) == ("up", "weights")
    assert "8 of 64 weights differ" in only(report).evidence


def test_an_activation_between_such_products_is_told_alone():
    culprit = only(compare(products("wide"), products("flat", "fast", "pieces"), TOKENS))
    assert (culprit.node, culprit.cause) == ("gelu", "wrong-op")
    assert culprit.evidence == "with Gelu in place of FastGelu gelu it makes what the first file does"
    assert culprit.remedies[0].text == "put Gelu in place of FastGelu gelu"
