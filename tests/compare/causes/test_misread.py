"""Integers that are written with one scale or zero point and read with another."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.quantized.misread import misread
from onnx import numpy_helper

from support.layerwise import compare, only
from support.models import normal, parsed
from support.quantized import exact, quantized

NETWORK = """g (float[N,3,12,12] x) => (float[N,4] y) {
    [one] a = Conv<pads=[1,1,1,1]>(x, v) [relu1] b = Relu(a) [two] c = Conv<pads=[1,1,1,1]>(b, w) [relu2] d = Relu(c)
    [pool] p = GlobalAveragePool(d) [flat] f = Flatten(p) [fc] y = MatMul(f, u) }"""
FLOAT = parsed(NETWORK, v=normal(8, 3, 3, 3, seed=1), w=normal(8, 8, 3, 3, seed=2), u=normal(8, 4, seed=3))
DATA = [{"x": normal(4, 3, 12, 12, seed=4)}]
FILES = {kind: quantized(FLOAT, kind, DATA) for kind in ("qdq", "qoperator")}


def changed(kind: str, node: str, position: int, change) -> onnx.ModelProto:
    """The quantized file, in which one node reads another scale or zero point than its neighbour."""
    proto = copy.deepcopy(FILES[kind])
    wanted = next(n for n in proto.graph.node if n.name == node)
    old = next(t for t in proto.graph.initializer if t.name == wanted.input[position])
    value = numpy_helper.to_array(old)
    wanted.input[position] = "its_own"
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(change(value), value.dtype), "its_own"))
    return proto


@pytest.mark.parametrize(
    ("kind", "node", "position", "change", "culprit"),
    [
        ("qdq", "b_DequantizeLinear", 1, lambda s: 2 * s, ("one", "relu1")),
        ("qdq", "x_DequantizeLinear", 2, lambda z: z + 12, ("one",)),
        ("qdq", "b_QuantizeLinear", 1, lambda s: s / 2, ("one", "relu1")),
        ("qoperator", "two_quant", 1, lambda s: 2 * s, ("one", "relu1")),
        ("qoperator", "one_quant", 7, lambda z: z + 30, ("one", "relu1")),
    ],
)
def test_one_fault_at_who_writes_what_is_read_otherwise(kind, node, position, change, culprit):
    file = changed(kind, node, position, change)
    report = compare(FLOAT, file, DATA, ort=exact(file))
    found = only(report)
    assert (found.node in culprit, found.cause) == (True, "scale")
    assert "reads it with scale" in found.evidence


@pytest.mark.parametrize("kind", FILES)
def test_a_healthy_file_reads_as_it_writes(kind):
    assert misread(GraphIndex(FILES[kind])) == ()
    assert not compare(FLOAT, FILES[kind], DATA, ort=exact(FILES[kind])).culprits


@pytest.mark.parametrize(("node", "layer"), [("d_DequantizeLinear", "two"), ("x_DequantizeLinear", "one")])
def test_what_rounding_would_explain_is_told_all_the_same(node, layer):
    """A zero point that is off by one: no scaling that another file has elsewhere is done so."""
    file = changed("qdq", node, 2, lambda z: z + 1)
    report = compare(FLOAT, file, DATA, ort=exact(file))
    assert [c.node for c in report.culprits if "reads it with scale" in c.evidence] == [layer]
    assert not [notice for notice in report.notices if notice.code == "read-otherwise"]


def test_a_scale_that_rounding_would_explain_is_a_warning_where_another_layer_makes_most():
    file = changed("qdq", "x_DequantizeLinear", 1, lambda scale: scale * np.float32(1.001))
    report = compare(FLOAT, file, DATA, ort=exact(file))
    assert not [c for c in report.culprits if "reads it with scale" in c.evidence]
    (notice,) = (notice for notice in report.notices if notice.code == "read-otherwise")
    assert "reads it with scale" in notice.text


def test_a_factor_that_is_folded_into_a_scale_is_no_misreading():
    """The reference has a Mul there, which the quantized file does by another scale."""
    read = {"w": normal(32, 16), "s": np.float32(0.03), "z": np.int8(0)}
    text = "g (float[8,32] x) => (float[8,16] y) {{ {} [mm] y = MatMul(d, w) }}"
    plain = parsed(text.format("[d] d = Mul(x, two)"), w=read["w"], two=np.float32(2))
    folded = "[q] q = QuantizeLinear(x, s, z) [dq] d = DequantizeLinear(q, twice, z)"
    report = compare(plain, parsed(text.format(folded), twice=np.float32(0.06), **read), [{"x": normal(8, 32, seed=1)}])
    assert not any("reads it with scale" in culprit.evidence for culprit in report.culprits)


def test_scales_that_are_computed_are_not_told():
    text = """g (float[4] x, float s) => (float[4] y) { a = QuantizeLinear(x, t, z) b = Add(s, s)
        y = DequantizeLinear(a, b, z) }"""
    assert misread(GraphIndex(parsed(text, t=np.float32(0.1), z=np.uint8(3)))) == ()
    named = parsed(text.replace("y = DequantizeLinear(a, b, z)", "y = DequantizeLinear(a, u, z)"),
                   t=np.float32(0.1), z=np.uint8(3), u=np.float32(0.2))  # fmt: skip
    (found,) = misread(GraphIndex(named))
    assert (found.tensor, found.written, found.read) == ("a", (pytest.approx(0.1), 3), (pytest.approx(0.2), 3))


@pytest.mark.parametrize(
    ("position", "change", "told"), [(1, lambda s: 2 * s, "scale"), (2, lambda z: z + 12, "zero point")]
)
def test_beside_a_quantized_reference_the_number_is_called_by_its_name_and_told_once(position, change, told):
    file = changed("qdq", "b_DequantizeLinear", position, change)
    report = compare(FILES["qdq"], file, DATA, ort=exact(file))
    culprit = only(report)
    assert culprit.evidence.startswith(f"{told} ")
    assert culprit.remedies[0].text.startswith(f"set the {told} of b_DequantizeLinear to ")
    assert not [notice for notice in report.notices if notice.code == "read-otherwise"]


def test_two_scales_that_one_node_has_from_each_other_are_told_together():
    text = """g (float[8,16] x) => (float[8,16] y) {{ h = Neg(x) a = QuantizeLinear(x, s, z) b = QuantizeLinear(h, t, z)
        [sum] c = com.microsoft.QLinearAdd(a, {}, z, b, {}, z, u, z) y = DequantizeLinear(c, u, z) }}"""
    numbers = {"s": np.float32(0.02), "t": np.float32(0.05), "u": np.float32(0.06), "z": np.uint8(128)}
    one, other = (parsed(text.format(*scales), domains=["com.microsoft"], **numbers) for scales in ("st", "ts"))
    culprit = only(compare(one, other, [{"x": normal(8, 16)}]))
    assert culprit.evidence.count("reads it with scale") == 2
    assert culprit.remedies[0].text.startswith("let QLinearAdd sum read '")
    assert culprit.remedies[0].text.endswith("as they are written")
