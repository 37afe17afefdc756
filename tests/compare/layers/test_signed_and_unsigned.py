"""Two quantized files: of signed and of unsigned integers, of Q/DQ pairs and of operators that take scales along."""

from __future__ import annotations

import copy
import functools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from support.layerwise import compare, only
from support.models import normal, parsed
from support.quantized import exact, quantized
from support.rewrites import optimized

NETWORK = """g (float[2,3,16,16] x) => (float[2,5] y) {
    [stem] a = Conv<pads=[1,1,1,1]>(x, u, ub) [relu] b = Relu(a)
    [pool] p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)
    [one] c = Conv<pads=[1,1,1,1]>(p, v, vb) [relu1] d = Relu(c)
    [two] e = Conv<pads=[1,1,1,1]>(d, w, wb) [add] f = Add(e, p) [last] h = Relu(f)
    [mean] m = GlobalAveragePool(h) [flat] n = Flatten(m) [head] y = Gemm(n, t, tb) }"""
SIZES = {"u": (8, 3, 3, 3), "v": (8, 8, 3, 3), "w": (8, 8, 3, 3), "t": (8, 5)}
BIASES = {name: (5 if name == "tb" else 8,) for name in ("ub", "vb", "wb", "tb")}
WEIGHTS = {n: np.float32(0.3) * normal(*size, seed=i) for i, (n, size) in enumerate({**SIZES, **BIASES}.items())}
DATA = [{"x": normal(2, 3, 16, 16, seed=9)}]


@functools.cache
def file(kind: str, *, signed: bool) -> onnx.ModelProto:
    return quantized(parsed(NETWORK, **WEIGHTS), kind, DATA, signed=signed)


@functools.cache
def rewritten(level: str) -> onnx.ModelProto:
    """What ONNX Runtime makes of signed Q/DQ pairs: unsigned ones, and operators of scaled integers."""
    return optimized(file("qdq", signed=True), level.upper())


PAIRS = {
    "qdq": lambda: (file("qdq", signed=True), file("qdq", signed=False)),
    "qdq, unsigned first": lambda: (file("qdq", signed=False), file("qdq", signed=True)),
    "qoperator": lambda: (file("qoperator", signed=True), file("qoperator", signed=False)),
    "mixed": lambda: (file("qdq", signed=True), file("qoperator", signed=False)),
    "mixed, operators first": lambda: (file("qoperator", signed=False), file("qdq", signed=True)),
    "extended": lambda: (file("qdq", signed=True), rewritten("extended")),
    "all": lambda: (file("qdq", signed=True), rewritten("all")),
    "all, rewritten first": lambda: (rewritten("all"), file("qdq", signed=True)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_quantization_in_other_integers_is_the_same_network(pair):
    """Every layer is compared, and none is accused."""
    mine, other = PAIRS[pair]()
    report = compare(mine, other, DATA, ort=exact(mine))
    assert not report.culprits
    assert report.verdict == "pass"
    assert [n.text for n in report.notices if "not compared" in n.text and "reorder" not in n.text] == []
    assert {layer.verdict for layer in report.layers} <= {"ok", "unmatched"}
    assert len([layer for layer in report.layers if layer.verdict == "ok"]) >= 9


def changed(proto: onnx.ModelProto, name: str, change) -> onnx.ModelProto:
    """A file with another value of a constant."""
    other = copy.deepcopy(proto)
    tensor = next(t for t in other.graph.initializer if t.name == name)
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(value)).astype(value.dtype), name))
    return other


def constant(proto: onnx.ModelProto, node: str, position: int) -> str:
    return next(n for n in proto.graph.node if n.name == node).input[position]


def stored(proto: onnx.ModelProto, node: str, position: int) -> str:
    """The integers that an input of a node is stored as."""
    name = constant(proto, node, position)
    maker = next((n for n in proto.graph.node if name in n.output), None)
    return name if maker is None else maker.input[0]


@pytest.mark.parametrize("pair", ["qdq", "qdq, unsigned first"])
@pytest.mark.parametrize(
    ("node", "position", "change", "culprit", "said"),
    [
        ("one", 1, lambda w: np.roll(w, 1, 0), "one", "weights differ"),
        ("one", 2, lambda b: 0 * b, "one", "biases differ"),
    ],
)
def test_stored_weights_that_are_wrong_are_named_alone(pair, node, position, change, culprit, said):
    mine, other = PAIRS[pair]()
    found = only(compare(mine, changed(other, stored(other, node, position), change), DATA, ort=exact(mine)))
    assert (found.node, found.cause) == (culprit, "weights")
    assert said in found.evidence


def values_of(proto: onnx.ModelProto, node: str) -> tuple[float, int]:
    read = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    scale, zero = (read[constant(proto, node, i)] for i in (1, 2))
    return float(scale), int(zero)


QUANTIZER = "h_QuantizeLinear"
READER = "p_DequantizeLinear"


def test_a_zero_point_that_is_another_one_is_told_in_the_integers_of_the_second_file():
    mine, other = PAIRS["qdq"]()
    _, zero = values_of(other, QUANTIZER)
    assert zero == values_of(mine, QUANTIZER)[1] + 128
    wrong = changed(other, constant(other, QUANTIZER, 2), lambda z: z.astype(int) + 60)
    found = only(compare(mine, wrong, DATA, ort=exact(mine)))
    assert found.node == QUANTIZER
    assert f"zero point {zero} against {zero + 60}" in found.evidence or "values stop at" in found.evidence


def test_a_scale_that_is_another_one_is_named_once():
    """Its quantizer and all who read the integers have it: one constant, one culprit."""
    mine, other = PAIRS["qdq"]()
    scale, _ = values_of(other, QUANTIZER)
    found = only(compare(mine, changed(other, constant(other, QUANTIZER, 1), lambda s: 3 * s), DATA, ort=exact(mine)))
    assert found.node == QUANTIZER
    assert found.evidence == f"scale {scale:.6g} against {3 * scale:.6g}"


def test_a_scale_that_several_tensors_have_is_told_of_who_rounds_to_it():
    """What a MaxPool makes is quantized by the scale of what it reads, and holds such numbers already."""
    mine, other = PAIRS["qdq"]()
    wrong = changed(other, constant(other, "p_QuantizeLinear", 1), lambda s: 3 * s)
    assert only(compare(mine, wrong, DATA, ort=exact(mine))).node == "b_QuantizeLinear"


@pytest.mark.parametrize("pair", ["qdq", "extended"])
def test_integers_that_are_misread_are_told_of_who_reads_them(pair):
    mine, other = PAIRS[pair]()
    wrong = copy.deepcopy(other)
    reader = next(n for n in wrong.graph.node if n.name == READER)
    value = next(numpy_helper.to_array(t) for t in wrong.graph.initializer if t.name == reader.input[1])
    wrong.graph.initializer.append(numpy_helper.from_array(2 * value, "its_own"))
    reader.input[1] = "its_own"
    found = only(compare(mine, wrong, DATA, ort=exact(mine)))
    assert (found.node, found.cause) == (READER, "quantization")
    assert found.evidence == f"scale {value:.6g} against {2 * value:.6g}"


def test_who_reads_integers_of_another_scale_is_not_at_fault():
    """Between operators of scaled integers, too: a constant that both read, the one that writes them is told of."""
    mine, other = PAIRS["qoperator"]()
    wrong = changed(other, constant(other, "add_quant", 6), lambda s: 2 * s)
    found = only(compare(mine, wrong, DATA, ort=exact(mine)))
    names = {n.name for proto in (mine, wrong) for n in proto.graph.node}
    assert found.node in names
    assert found.node == "add_quant"
    assert "scale" in found.evidence
