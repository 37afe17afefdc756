"""Activations, gates and weights between layers."""

from __future__ import annotations

import numpy as np
import onnx

from ..decoder import LENGTH, WIDTH, Form, decoder
from ..expectation import Pair, fault, healthy
from ..writing import CONTRIB, Drawn, File, beside, file, inputs, known, made, network, pair, set_attribute
from .attention import LAYERS


def _tanh_gelu(changed: File, layer: int) -> None:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) in a layer of minilm; the sum and the products stay."""
    x, at = f"l{layer}_up", f"l{layer}_g"
    changed.before(
        changed.node(f"{at}_div_Div"),
        made("Mul", x, x, name=f"{at}_square"),
        made("Mul", f"{at}_square", x, name=f"{at}_cube"),
        made("Mul", f"{at}_cube", "gelu_cubic", name=f"{at}_share"),
        made("Add", x, f"{at}_share", name=f"{at}_bent"),
        made("Mul", f"{at}_bent", "gelu_factor", name=f"{at}_argument"),
        made("Tanh", f"{at}_argument", name=f"{at}_tanh", makes=f"{at}_erf"),
    )
    changed.remove(changed.node(f"{at}_div_Div"), changed.node(f"{at}_erf_Erf"))


@fault("l?_g*", causes="wrong-op")
def gelu_by_tanh() -> Pair:
    """GELU by the hyperbolic tangent, in every layer"""
    net = known("minilm")
    changed = file(net.reference)
    changed.add("gelu_cubic", np.array([0.044715], np.float32))
    changed.add("gelu_factor", np.array([np.sqrt(2 / np.pi)], np.float32))
    for layer in range(LAYERS):
        _tanh_gelu(changed, layer)
    return beside(net, changed)


@healthy()
def gelu_as_an_operator() -> Pair:
    """GELU as one operator of ONNX Runtime"""
    net = known("minilm")
    changed = file(net.reference)
    changed.domain()
    for layer in range(LAYERS):
        at = f"l{layer}_g"
        one = made("Gelu", f"l{layer}_up", name=f"gelu{layer}", makes=at, domain=CONTRIB)
        pieces = [changed.node(f"{at}{end}") for end in ("_div_Div", "_erf_Erf", "_one_Add", "_mul_Mul", "_Mul")]
        changed.before(pieces[-1], one)
        changed.remove(*pieces)
    return beside(net, changed)


@fault("HardSigmoid@*", causes="attribute")
def hard_sigmoid_slope() -> Pair:
    """HardSigmoid with the slope 1/6 for 0.2, everywhere"""
    net = known("ppocr-cls")
    changed = file(net.reference)
    for node in changed.nodes(("HardSigmoid",)):
        set_attribute(node, "alpha", 1 / 6)
    return beside(net, changed)


@fault("Clip@2", causes="wrong-op saturation attribute")
def upper_bound_dropped() -> Pair:
    """A Clip between 0 and 6 written as a Relu"""
    net = known("ppocr-cls")
    changed = file(net.reference)
    clip = changed.node("Clip@2")
    changed.replace(clip, made("Relu", clip.input[0], name=clip.name, makes=clip.output[0]))
    return beside(net, changed)


def _gain(*, sigmoid: bool) -> onnx.ModelProto:
    drawn = Drawn()
    weights = {"w1": drawn.weight(32, 32), "three": np.float32(3), "w2": drawn.weight(32, 8)}
    pieces = "gate = Sigmoid(gain)  gated = Mul(gate, seven)"
    text = f"""gain (float[8,32] x) => (y) {{
      h = MatMul(x, w1)
      gain = Mul(h, three)
      {pieces if sigmoid else ""}
      y = MatMul({"gated" if sigmoid else "gain"}, w2)
    }}"""
    return network(text, **weights, **({"seven": np.float32(7)} if sigmoid else {}))


@fault("gate", "gated", causes="wrong-op")
def activation_and_gain_missing() -> Pair:
    """A Sigmoid and the factor behind it are missing"""
    return pair(_gain(sigmoid=True), _gain(sigmoid=False), inputs(8, 32))


@fault("l1_gate", "l1_up", causes="weights")
def gate_and_up_exchanged() -> Pair:
    """The weights of the two halves of a gated layer exchanged"""
    return pair(decoder(), decoder(Form(mistake="gate_and_up_exchanged")), inputs(1, LENGTH, WIDTH))


@fault("l1_gate", "l1_up", causes="weights")
def gate_and_up_read_each_others_weight() -> Pair:
    """The two halves of a gated layer read the weight of each other, under its own name"""
    changed = file(decoder())
    gate, up = changed.node("l1_gate"), changed.node("l1_up")
    gate.input[1], up.input[1] = up.input[1], gate.input[1]
    return pair(decoder(), changed, inputs(1, LENGTH, WIDTH))


def _experts(*, renormalized: bool = True, count: int = 2) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""experts (float[32,16] x) => (y) {{
      router = MatMul(x, wr)
      shares = Softmax<axis = -1>(router)
      top, chosen = TopK<axis = -1>(shares, count)
      {"total = ReduceSum(top, last)  used = Div(top, total)" if renormalized else ""}
      nothing = Mul(shares, zero)
      gate = ScatterElements<axis = 1>(nothing, chosen, {"used" if renormalized else "top"})
      each = Einsum<equation = "nd,edf->nef">(x, we)
      positive = Relu(each)
      mixed = Einsum<equation = "nef,ne->nf">(positive, gate)
      y = MatMul(mixed, wy)
    }}"""
    last = {"last": np.array([-1])} if renormalized else {}
    return network(
        text,
        wr=drawn.weight(16, 8),
        we=drawn.normal(8, 16, 16, scale=0.25),
        wy=drawn.weight(16, 8),
        count=np.array([count]),
        zero=np.float32(0),
        **last,
    )


@fault("total", "used", causes="wrong-op scale")
def shares_of_experts_not_renormalized() -> Pair:
    """The shares of the chosen experts do not add up to one"""
    return pair(_experts(), _experts(renormalized=False), inputs(32, 16))


@fault("top", causes="attribute weights")
def one_expert_for_two() -> Pair:
    """One expert is chosen for two"""
    return pair(_experts(), _experts(count=1), inputs(32, 16))


def _perceptron(*, first: bool = False, second: bool = False, fault_of_last: bool = False) -> onnx.ModelProto:
    """Two hidden layers; the units of the first in another order, in what makes them and in what reads them."""
    drawn = Drawn()
    w1, w2, w3 = drawn.weight(32, 64), drawn.weight(64, 64), drawn.weight(64, 16)
    b1, b2 = drawn.normal(64, scale=0.2), drawn.normal(64, scale=0.2)
    order = np.random.default_rng(5).permutation(64)
    if first:
        w1, b1 = w1[:, order], b1[order]
    if second:
        w2 = w2[order]
    if fault_of_last:
        w3[3] *= 2
    text = """units (float[8,32] x) => (y) {
      p1 = MatMul(x, w1)  h1 = Add(p1, b1)  r1 = Relu(h1)
      p2 = MatMul(r1, w2)  h2 = Add(p2, b2)  r2 = Relu(h2)
      y = MatMul(r2, w3)
    }"""
    return network(text, w1=w1, b1=b1, w2=w2, b2=b2, w3=w3)


@healthy()
def hidden_units_in_another_order() -> Pair:
    """Hidden units in another order, with the weights that read them"""
    return pair(_perceptron(), _perceptron(first=True, second=True), inputs(8, 32))


@fault("p1", "h1", "p2", causes="weights layout", also=("r1",))
def hidden_units_in_another_order_but_not_their_reader() -> Pair:
    """Hidden units in another order, but not the weights that read them"""
    return pair(_perceptron(), _perceptron(first=True), inputs(8, 32))


@fault("y", causes="weights")
def hidden_units_in_another_order_and_a_weight() -> Pair:
    """Hidden units in another order, with the weights that read them, and one row of a later weight doubled"""
    changed = _perceptron(first=True, second=True, fault_of_last=True)
    return pair(_perceptron(), changed, inputs(8, 32))


def _tied(*, apart: bool) -> onnx.ModelProto:
    drawn = Drawn()
    words = drawn.normal(100, 32, scale=0.2)
    text = f"""tied (int64[1,12] words) => (y) {{
      embedded = Gather(table, words)
      p = MatMul(embedded, w)
      r = Relu(p)
      h = Add(embedded, r)
      turned = Transpose<perm = [1, 0]>({"head" if apart else "table"})
      y = MatMul(h, turned)
    }}"""
    head = words.copy()
    head[:7] = 0
    return network(text, table=words, w=drawn.weight(32, 32), **({"head": head} if apart else {}))


@fault("turned", "y", causes="weights")
def tied_weight_torn() -> Pair:
    """A weight of embedding and head, seven rows of which are zero in the head alone"""
    words = np.random.default_rng(1).integers(0, 100, (1, 12))
    return pair(_tied(apart=False), _tied(apart=True), [{"words": words}])


def _dropout(training: bool) -> onnx.ModelProto:
    drawn = Drawn()
    text = """dropout (float[4,32] x) => (y) {
      h = MatMul(x, w1)
      r = Relu(h)
      d = Dropout(r, ratio, training)
      y = MatMul(d, w2)
    }"""
    weights = {"w1": drawn.weight(32, 64), "w2": drawn.weight(64, 8)}
    return network(text, ratio=np.float32(0.1), training=np.array(training), **weights)


@fault("d", causes="attribute", verdicts="pass fail")
def dropout_that_trains() -> Pair:
    """A Dropout in training mode, which ONNX Runtime's optimizations remove"""
    return pair(_dropout(False), _dropout(True), inputs(4, 32))


def _steps(*, rounded: bool) -> onnx.ModelProto:
    drawn = Drawn()
    text = f"""steps (float[1,128] x) => (y) {{
      h = MatMul(x, w1)
      up = Mul(h, eight)
      {"near = Round(up)" if rounded else ""}
      whole = Cast<to = 6>({"near" if rounded else "up"})
      back = Cast<to = 1>(whole)
      down = Mul(back, eighth)
      t = Tanh(down)
      y = MatMul(t, w2)
    }}"""
    weights = {"w1": drawn.weight(128, 64), "w2": drawn.weight(64, 8)}
    return network(text, eight=np.float32(8), eighth=np.float32(1 / 8), **weights)


@fault("near", "whole", causes="wrong-op")
def cut_off_for_rounded() -> Pair:
    """Values are cut off where they were rounded"""
    return pair(_steps(rounded=True), _steps(rounded=False), inputs(1, 128))


def _table(*, half: bool) -> onnx.ModelProto:
    drawn = Drawn()
    angles = np.arange(64)[:, None] / 10000 ** (np.arange(32) / 32)
    positions = np.sin(angles.astype(np.float16)).astype(np.float16) if half else np.sin(angles)
    text = """positions (float[1,64,32] x) => (y) {
      placed = Add(x, positions)
      h = MatMul(placed, w1)
      t = Tanh(h)
      y = MatMul(t, w2)
    }"""
    weights = {"w1": drawn.weight(32, 32), "w2": drawn.weight(32, 8)}
    return network(text, positions=positions.astype(np.float32), **weights)


@fault("placed", causes="weights")
def table_computed_in_fp16() -> Pair:
    """A table of positions computed in FP16 before it was stored"""
    return pair(_table(half=False), _table(half=True), inputs(1, 64, 32))
