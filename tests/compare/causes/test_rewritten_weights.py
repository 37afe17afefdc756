"""Weights of nodes that one file writes with other operators, as runtimes do when they fuse."""

from __future__ import annotations

import re

import numpy as np
import pytest
from layerdiff.compare.causes import rewritten_weights
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.differences import Difference

from support.layer_cases import layer_case
from support.layerwise import compare, only
from support.models import normal, parsed

DATA = [{"x": normal(6, 8, seed=2)}]
PLAIN = """[add] b = Add(a, bias) [div] c = Div(b, root) [erf] d = Erf(c) [one] e = Add(d, unit) [gate] f = Mul(b, e)
    [half] g = Mul(f, half)"""
FUSED = "[fused] g = com.microsoft.BiasGelu(a, bias)"
BIAS = normal(16, seed=3)


def feed_forward(activation: str, bias: np.ndarray = BIAS):
    text = f"""g (float[6,8] x) => (float[6,4] y) {{
        [up] a = MatMul(x, w) {activation} [down] y = MatMul(g, v) }}"""
    numbers = {"root": np.float32(2**0.5), "unit": np.float32(1), "half": np.float32(0.5)}
    read = {name: value for name, value in numbers.items() if name in activation}
    return parsed(text, domains=["com.microsoft"], w=normal(8, 16), v=normal(16, 4, seed=1), bias=bias, **read)


@pytest.mark.parametrize("bias", [0 * BIAS, BIAS[::-1].copy(), 1.2 * BIAS])
@pytest.mark.parametrize("way", [1, -1], ids=["fused", "written out"])
def test_the_weight_is_named_where_the_other_operators_are_right(way, bias):
    forms = (PLAIN, FUSED)[::way]
    culprit = only(compare(feed_forward(forms[0]), feed_forward(forms[1], bias), DATA))
    assert (culprit.node, culprit.cause) == ("add" if way == 1 else "fused", "weights")
    assert "of 16 biases differ" in culprit.evidence


def test_weights_that_two_nodes_have_from_each_other_are_exchanged():
    def twice(activation: str, first: np.ndarray, second: np.ndarray):
        """The same function of two products, with a bias each."""
        up = "[up{i}] {i}a = MatMul(x, w{i}) {act} [out{i}] {i}y = Tanh({i}g)"
        text = ""
        for i in "pq":
            lines = activation
            for name in "bcdefga":
                lines = re.sub(rf"\b{name}\b", f"{i}{name}", lines)
            lines = re.sub(r"\[(\w+)\]", rf"[\1_{i}]", lines).replace("bias", f"bias{i}")
            text += up.format(i=i, act=lines)
        numbers = {"root": np.float32(2**0.5), "unit": np.float32(1), "half": np.float32(0.5)}
        read = {name: value for name, value in numbers.items() if name in activation}
        weights = {"wp": normal(8, 16), "wq": normal(8, 16, seed=1), "biasp": first, "biasq": second}
        head = "g (float[6,8] x) => (float[6,16] py, float[6,16] qy)"
        return parsed(f"{head} {{ {text} }}", domains=["com.microsoft"], **weights, **read)

    other = normal(16, seed=4)
    culprit = only(compare(twice(PLAIN, BIAS, other), twice(FUSED, other, BIAS), DATA))
    assert (culprit.node, culprit.cause) == ("add_p", "weights")
    assert culprit.evidence.startswith("Add add_p and Add add_q have each other's weights: they are exchanged")


def test_operators_that_compute_something_else_are_named_whatever_their_weights():
    relu = "[add] b = Add(a, bias) [relu] g = Relu(b)"
    culprit = only(compare(feed_forward(relu), feed_forward(FUSED, 1.01 * BIAS), DATA))
    assert culprit.cause == "wrong-op"
    assert "Add, Relu against BiasGelu" in culprit.evidence


def attention(product: str, weights: np.ndarray):
    """Two products of a tensor and itself, each of which is scaled."""
    steps = [
        f"[turn{n}] b{n} = Transpose<perm=[1,0]>(a{n}) {product.format(n=n)} [soft{n}] d{n} = Softmax(c{n})"
        f"[mix{n}] a{n + 1} = MatMul(d{n}, a{n})"
        for n in (0, 1)
    ]
    text = f"g (float[6,8] x) => (float[6,8] a2) {{ [first] a0 = MatMul(x, w) {' '.join(steps)} }}"
    read = {"scale": np.float32(4)} if "scale" in product else {}
    return parsed(text, domains=["com.microsoft"], w=weights, **read)


DIVIDED = "[score{n}] s{n} = MatMul(a{n}, b{n}) [div{n}] c{n} = Div(s{n}, scale)"
SCALED = "[fused{n}] c{n} = com.microsoft.FusedMatMul<alpha=0.25>(a{n}, b{n})"


@pytest.mark.parametrize("forms", [(DIVIDED, SCALED), (SCALED, DIVIDED)], ids=["fused", "written out"])
def test_a_scale_inside_of_a_product_is_no_fault_behind_one(forms):
    weights = normal(8, 8)
    report = compare(attention(forms[0], weights), attention(forms[1], 1.5 * weights), DATA)
    assert only(report).node == "first"
    assert not compare(attention(forms[0], weights), attention(forms[1], weights), DATA).culprits


KERNEL, SHIFT = normal(16, 3, 3, 3, seed=4), normal(16, seed=5)
GAIN = 1.5 + normal(16, seed=7) ** 2
WRITTEN = "[conv] a = Conv(x, w) [norm] b = BatchNormalization(a, gain, bias, zeros, ones) [act] c = Relu(b)"
ONE = '[fused] c = com.microsoft.FusedConv<activation="Relu">(x, w, bias)'
CLIPPED = "[conv] a = Conv(x, w, bias) [act] c = Clip(a, low, high)"


def convolution(steps: str, kernel: np.ndarray = KERNEL, **read: np.ndarray):
    if steps == WRITTEN:
        kernel = kernel / GAIN.reshape(16, 1, 1, 1)
    text = f"g (float[2,3,9,9] x) => (float[2,4] y) {{ {steps} [pool] p = GlobalAveragePool(c) "
    ones = np.full(16, 1 - 1e-5, np.float32)
    given = {"bias": SHIFT, "gain": GAIN, "zeros": 0 * SHIFT, "ones": ones, "low": np.float32(0), **read}
    given = {name: value for name, value in given.items() if name in steps}
    text += "[flat] f = Flatten(p) [fc] y = MatMul(f, v) }"
    return parsed(text, domains=["com.microsoft"], w=kernel, v=normal(16, 4, seed=1), **given)


IMAGES = [{"x": normal(2, 3, 9, 9, seed=6)}]


@pytest.mark.parametrize("way", [1, -1], ids=["fused", "written out"])
def test_channels_that_are_off_throughout_beside_others_that_are_right_are_weights(way):
    other = KERNEL.copy()
    other[[3, 7]] *= 1.5
    other[3, 1] += 1
    forms = (WRITTEN, ONE)[::way]
    culprit = only(compare(convolution(forms[0]), convolution(forms[1], other), IMAGES))
    assert culprit.cause == "weights"
    assert "54 of 432 weights differ from the reference's after folding" in culprit.evidence
    assert not compare(convolution(forms[0]), convolution(forms[1]), IMAGES).culprits


def test_a_limit_that_some_channels_reach_is_another_operator():
    limited = convolution(CLIPPED, high=np.float32(np.abs(SHIFT).max() + 6))
    culprit = only(compare(convolution(ONE), limited, IMAGES))
    assert culprit.cause != "weights"


SPLIT = """s0, s1, s2, s3 = Split<axis=1>(z, fours) a0 = Conv(s0, w0) a1 = Conv(s1, w1) a2 = Conv(s2, w2)
    a3 = Conv(s3, w3) [join] a = Concat<axis=1>({order})"""


def grouped(steps: str):
    """A convolution of four groups, in one or in four."""
    kernel = normal(16, 4, 3, 3, seed=4)
    text = f"""g (float[2,16,9,9] x) => (float[2,4] y) {{ [start] z = Tanh(x) {steps} [act] c = Relu(a)
        [pool] p = GlobalAveragePool(c) [flat] f = Flatten(p) [fc] y = MatMul(f, v) }}"""
    read = {f"w{i}": kernel[4 * i : 4 * i + 4] for i in range(4)} | {"fours": np.array([4, 4, 4, 4])}
    read = {name: value for name, value in read.items() if name in steps} or {"w": kernel}
    return parsed(text, v=normal(16, 4, seed=1), **read)


def test_half_of_the_channels_in_another_order_are_no_other_weights():
    data = [{"x": normal(2, 16, 9, 9, seed=6)}]
    one = grouped("[conv] a = Conv<group=4>(z, w)")
    assert not compare(one, grouped(SPLIT.format(order="a0, a1, a2, a3")), data).culprits
    culprit = only(compare(one, grouped(SPLIT.format(order="a0, a2, a1, a3")), data))
    assert culprit.cause == "layout"
    assert "8 of 16 moved" in culprit.evidence


JOINED = "g (float[2,8,4,4] x, float[2,8,4,4] z) => (float[2,16,4,4] y) {{ {step} [join] y = Concat<axis=1>(u, z) }}"
WEIGHED = (
    "g (float[2,8,4,4] x, float[2,8,4,4] z) => (float[2,16,4,4] y) {{ {step} c = Concat<axis=1>(u, z) y = Mul(c, w) }}"
)


@pytest.mark.parametrize(("text", "weights"), [(JOINED, False), (WEIGHED, True)], ids=["a Concat", "weights"])
def test_a_layer_has_other_weights_only_where_it_has_any(text, weights):
    """Half of the channels are off: those of one of the tensors that are joined."""
    read = {"w": normal(16, 1, 1, seed=8)} if weights else {}
    first, second = (parsed(text.format(step=step), **read) for step in ("u = Tanh(x)", "u = Sigmoid(x)"))
    y = normal(2, 16, 4, 4)
    c = np.concatenate([1.5 * y[:, :8] + 1, y[:, 8:]], axis=1)
    change = OperatorChange((("Tanh", "u"),), (("Sigmoid", "u"),))
    case = layer_case(y, c, model=first, candidate=second, differences=(Difference(0, 0, change),))
    assert bool(rewritten_weights.find(case)) is weights


SIGNALS = [{"x": normal(8, 16, 12, seed=8)}]
K1, B1 = normal(16, 16, 1, seed=9) / 4, normal(16, seed=10)


def signals(steps: str, **read: np.ndarray):
    """A convolution of signals, or what takes its place, between two others and an activation."""
    text = f"""g (float[8,16,12] x) => (float[8,16,12] y) {{ [first] a = Conv(x, k) {steps} [act] c = Sin(b)
        [last] y = Conv(c, k) }}"""
    given = {"w": K1, "bias": B1, "axis": np.array([2]), **read}
    return parsed(text, k=K1, **{name: value for name, value in given.items() if f" {name}" in steps})


CONV = "[conv] b = Conv(a, w, bias)"
WIDE = "[up] u = Unsqueeze(a, axis) [conv] v = Conv(u, w, bias) [down] b = Squeeze(v, axis)"
TURNED = (
    "[t] u = Transpose<perm=[0,2,1]>(a) [mm] v = MatMul(u, w) [s] s = Add(v, bias) [r] b = Transpose<perm=[0,2,1]>(s)"
)
WAYS = {"wide": (WIDE, K1[:, :, None]), "as a product": (TURNED, np.ascontiguousarray(K1[:, :, 0].T))}


@pytest.mark.parametrize("way", WAYS)
def test_a_bias_that_a_rewriting_loses_is_told_and_not_its_operators(way: str) -> None:
    steps, weights = WAYS[way]
    assert not compare(signals(CONV), signals(steps, w=weights), SIGNALS).culprits
    lost = steps.replace("(u, w, bias)", "(u, w)").replace("[s] s = Add(v, bias) ", "").replace("(s)", "(v)")
    culprit = only(compare(signals(CONV), signals(lost, w=weights), SIGNALS))
    assert (culprit.node, culprit.cause) == ("conv", "weights")
    assert "each of 16 channels (axis 1) is the reference's plus one number" in culprit.evidence
    assert culprit.evidence.endswith("it is 'bias' that is not added")


@pytest.mark.parametrize("way", WAYS)
def test_factors_of_channels_in_a_rewriting_are_weights(way: str) -> None:
    steps, weights = WAYS[way]
    gains = np.linspace(0.5, 2, 16, dtype=np.float32)
    weights = weights * (gains if weights.ndim == 2 else gains.reshape(-1, 1, 1, 1))
    culprit = only(compare(signals(CONV), signals(steps, w=weights, bias=B1 * gains), SIGNALS))
    assert (culprit.node, culprit.cause) == ("conv", "weights")
    assert "is the reference's times one number" in culprit.evidence


def test_other_constants_in_operators_that_may_compute_the_same_are_thought_of() -> None:
    culprit = only(compare(signals(CONV), signals(TURNED, w=WAYS["as a product"][1][::-1].copy()), SIGNALS))
    assert (culprit.node, culprit.cause) == ("conv", "wrong-op")
    assert "these may compute the same: then a constant inside is wrong, that of" in culprit.evidence
    assert culprit.remedies[0].text.startswith("compare the constants of the second file's operators")


def test_operators_that_compute_something_else_are_not_said_to_be_right() -> None:
    steps = TURNED.replace("s = Add(v, bias)", "q = Add(v, bias) [tanh] s = Tanh(q)")
    culprit = only(compare(signals(CONV), signals(steps, w=WAYS["as a product"][1]), SIGNALS))
    assert culprit.cause == "wrong-op"
    assert "may compute the same" not in culprit.evidence


@pytest.mark.parametrize("change", [None, np.zeros_like, np.flip])
def test_the_bias_of_a_gemm_that_is_written_as_a_product_is_compared(change) -> None:
    text = "g (float[6,8] x) => (float[6,16] y) {{ [first] a = Tanh(x) {} [last] y = Softmax(b) }}"
    bias, weights = 0.01 * normal(16, seed=3), normal(16, 8)
    whole = parsed(text.format("[fc] b = Gemm<transB=1>(a, w, bias)"), w=weights, bias=bias)
    added = "[mm] m = MatMul(a, w) [add] b = Add(m, bias)" if change is not np.zeros_like else "[mm] b = MatMul(a, w)"
    read = {} if change is np.zeros_like else {"bias": bias if change is None else change(bias)}
    report = compare(whole, parsed(text.format(added), w=np.ascontiguousarray(weights.T), **read), DATA)
    assert [(c.node, c.cause) for c in report.culprits] == ([] if change is None else [("fc", "weights")])
    if change is np.zeros_like:
        assert "all zero in the candidate" in report.culprits[0].evidence


def test_the_rest_of_a_product_that_was_split_is_missing() -> None:
    text = "g (float[6,8] x) => (float[6,4] y) {{ [first] a = MatMul(x, w) {} }}"
    weights = {"w": normal(8, 16), "v": normal(16, 4, seed=1)}
    whole = parsed(text.format("[act] h = Tanh(a) [down] y = MatMul(h, v)"), **weights)
    part = "[act] h = Tanh(a) [split] p, q = Split<axis=1>(h, sizes) [down] y = MatMul(q, v)"
    weights |= {"v": weights["v"][8:].copy(), "sizes": np.array([8, 8])}
    culprits = compare(whole, parsed(text.format(part), **weights), DATA).culprits
    assert "shape 16x4 against 8x4: those from 8 to 15 along axis 0, and not the others" in culprits[0].evidence
    assert culprits[0].remedies[0].text.startswith("compute with the rest of the first file's weights of down")


SHARES = """[top] t = ReduceMax<axes=[-1]>(s) [less] l = Sub(s, t) [power] p = {power}(l) [sum] z = ReduceSum(p, last)
    [share] k = Div(p, z)"""
DEVIATIONS = """[mean] m = ReduceMean<axes=[-1]>(a) [less] l = Sub(a, m) [square] q = Mul(l, l)
    [var] v = ReduceMean<axes=[-1]>(q) [more] e = Add(v, eps) [root] r = Sqrt(e) [over] k = Div(l, r)"""


@pytest.mark.parametrize(
    ("whole", "pieces", "culprit", "text"),
    [
        (
            "Softmax(a)",
            "[times] s = Mul(a, factor) " + SHARES.format(power="Exp"),
            ("times", "scale"),
            "Mul times is in the candidate alone: ReduceMax top and Sub less are given its result in place of 'a'",
        ),
        (
            "Softmax(a)",
            "[times] s = Mul(a, factor) " + SHARES.format(power="Sigmoid"),
            ("one", "wrong-op"),
            "Softmax against Mul, ReduceMax, Sub, Sigmoid, ReduceSum, Div",
        ),
        ("LayerNormalization(a, ones)", DEVIATIONS, ("one", "attribute"), "Add more: epsilon 1e-05 against 0.1"),
        (
            "LayerNormalization(a, ones)",
            DEVIATIONS.replace("Sqrt", "Tanh"),
            ("one", "wrong-op"),
            "LayerNormalization against ReduceMean, Sub, Mul, ReduceMean, Add, Tanh, Div",
        ),
    ],
)
def test_a_constant_in_the_pieces_of_a_softmax_or_a_normalization_is_named(whole, pieces, culprit, text) -> None:
    def network(middle: str):
        text = f"g (float[6,8] x) => (float[6,4] y) {{ [up] a = MatMul(x, w) {middle} [down] y = MatMul(k, u) }}"
        values = {
            "ones": np.ones(16, np.float32), "factor": np.float32(0.9), "eps": np.float32(0.1), "last": np.array([-1]),
        }  # fmt: skip
        read = {name: value for name, value in values.items() if f", {name})" in text}
        return parsed(text, w=normal(8, 16), u=normal(16, 4), **read)

    found = only(compare(network(f"[one] k = {whole}"), network(pieces), DATA))
    assert (found.node, found.cause) == culprit
    assert found.evidence.startswith(text)
