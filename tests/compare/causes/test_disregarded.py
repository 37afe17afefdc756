"""A runtime that does not read an optional input or an attribute of a file is told with what it leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
import pytest
from layerdiff import OnnxrtRunner
from layerdiff.graph.model import Model
from layerdiff.graph.schemas import attribute_until, optional_inputs, settings_made

from support.layerwise import ORT, compare, only
from support.models import normal, parsed

NORM = """g (float[4,8,16] x) => (float[4,8,16] y) {
    [pow] p = Pow(x, two) [mean] m = ReduceMean(p, axes) [eps] e = Add(m, small) [root] s = Sqrt(e)
    [turn] r = Reciprocal(s) [scaled] n = Mul(x, r) [y] y = MatMul(n, w) }"""
POOL = """g (float[2,3,8,8] x) => (float[2,3,8,8] y) {
    [pool] p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x) [y] y = Sin(p) }"""
ROWS = normal(4, 8, 16) * normal(4, 8, 1, seed=3) ** 2


def norm() -> onnx.ModelProto:
    import numpy as np

    small, two, axes = np.float32(1e-6), np.float32(2), np.array([-1], np.int64)
    return parsed(NORM, opset=18, small=small, two=two, axes=axes, w=normal(16, 16))


@dataclass(frozen=True)
class Careless(OnnxrtRunner):
    """ONNX Runtime on a graph of which something was not read."""

    spoil: Callable[[onnx.NodeProto], None] = lambda node: None

    def open(self, model: Model, **rest: Any) -> Any:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        for node in proto.graph.node:
            self.spoil(node)
        return OnnxrtRunner(threads=1).open(model.derive(proto), **rest)


def no_axes(node: onnx.NodeProto) -> None:
    if node.op_type == "ReduceMean":
        del node.input[1:]


def no_padding(node: onnx.NodeProto) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != "count_include_pad"]
    del node.attribute[:]
    node.attribute.extend(kept)


def sum_for_mean(node: onnx.NodeProto) -> None:
    if node.op_type == "ReduceMean":
        node.op_type = "ReduceL1"


def careless(spoil: Callable[[onnx.NodeProto], None]) -> Careless:
    return Careless(threads=1, spoil=spoil)


@pytest.mark.parametrize("layers", ["all", "guilty"])
def test_the_axes_that_an_older_parser_does_not_read_are_told(layers):
    culprit = only(compare(norm(), careless(no_axes), [{"x": ROWS}], layers=layers))
    assert (culprit.node, culprit.cause) == ("mean", "wrong-op")
    assert culprit.evidence.startswith(
        "the candidate computes ReduceMean mean as if without its input axes ([-1]): without it, the reference makes"
    )
    assert culprit.remedies[0].text.startswith("export the model with opset 17 or a lower one")


def test_the_same_in_several_layers_is_one_fault():
    text = NORM.replace("(float[4,8,16] y)", "(float[4,8,16] z)").replace("[y] y", "[first] y").replace(" }", "")
    again = """[pow2] p2 = Pow(y, two)
        [mean2] m2 = ReduceMean(p2, axes) [eps2] e2 = Add(m2, small) [root2] s2 = Sqrt(e2)
        [turn2] r2 = Reciprocal(s2) [scaled2] n2 = Mul(y, r2) [z] z = MatMul(n2, w) }"""
    model = parsed(text + again, opset=18)
    model.graph.initializer.extend(norm().graph.initializer)
    culprit = only(compare(model, careless(no_axes), [{"x": ROWS}]))
    assert culprit.node == "mean"
    assert culprit.evidence.endswith("the same at ReduceMean mean2")


def test_an_attribute_that_is_not_read_is_told():
    culprit = only(compare(parsed(POOL, opset=18), careless(no_padding), [{"x": normal(2, 3, 8, 8)}]))
    assert culprit.node == "pool"
    assert "as if without its attribute count_include_pad (1)" in culprit.evidence
    assert culprit.remedies[0].text.startswith("run it on a version of the runtime that reads count_include_pad")


def test_another_error_is_not_told_as_one():
    culprit = only(compare(norm(), careless(sum_for_mean), [{"x": ROWS}]))
    assert culprit.node == "mean"
    assert "as if without" not in culprit.evidence


def test_of_two_files_nothing_is_disregarded():
    without = norm()
    no_axes(next(node for node in without.graph.node if node.op_type == "ReduceMean"))
    report = compare(norm(), without, [{"x": ROWS}], ort=ORT)
    assert report.culprits
    assert not any("as if without" in culprit.evidence for culprit in report.culprits)


def test_what_schemas_say_of_nodes():
    mean = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0, noop_with_empty_axes=0)
    assert list(optional_inputs(mean, 18)) == [(1, "axes")]
    assert list(settings_made(mean, 18)) == [("keepdims", 0)]
    assert attribute_until(mean, 20, "axes") == 17
    assert attribute_until(mean, 20, "data") is None
    assert not list(optional_inputs(onnx.helper.make_node("Mine", ["x"], ["y"], domain="mine"), 1))
