"""A converted graph gets the same names and the same order, whichever way the converter went."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from layerdiff.graph.sources.canonical_names import canonical_names
from onnx.reference import ReferenceEvaluator

from support.models import parsed

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def model(body: str) -> onnx.ModelProto:
    # the textual form has no colons in names: "_P0" stands for ":0"
    return rename(parsed(body), "_P0", ":0")


def rename(proto: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    def change(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.name = (node.name or node.output[0]).replace(old, new)
            node.input[:] = [n.replace(old, new) for n in node.input]
            node.output[:] = [n.replace(old, new) for n in node.output]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    change(attribute.g)
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = value.name.replace(old, new)

    change(proto.graph)
    return proto


ONE_WAY = """agraph (float[unk__7, 2] x) => (float[unk__9, 2] y__3)
    <float[2] w__40 = {1, 2}, float[2] b = {3, 4}> {
        Conv__34_P0 = Mul(x, w__40)
        Conv__35_P0 = Add(x, b)
        y__3 = Sub(Conv__34_P0, Conv__35_P0)
    }"""
OTHER_WAY = """agraph (float[unk__1, 2] x) => (float[unk__2, 2] y__3)
    <float[2] b = {3, 4}, float[2] w__8 = {1, 2}> {
        Conv__90_P0 = Add(x, b)
        Conv__12_P0 = Mul(x, w__8)
        y__3 = Sub(Conv__12_P0, Conv__90_P0)
    }"""


def test_two_ways_through_one_graph_give_the_same_bytes():
    assert canonical_names(model(ONE_WAY)).SerializeToString() == canonical_names(model(OTHER_WAY)).SerializeToString()


def test_numbers_follow_the_graph_and_outputs_keep_their_names():
    result = canonical_names(model(OTHER_WAY))
    assert [list(n.output) for n in result.graph.node] == [["Conv__1:0"], ["Conv__2:0"], ["y__3"]]
    assert [t.name for t in result.graph.initializer] == ["w__1", "b"]
    assert [v.type.tensor_type.shape.dim[0].dim_param for v in (*result.graph.input, *result.graph.output)] == [
        "unk__1",
        "unk__2",
    ]


def test_names_of_the_source_are_kept_and_never_taken():
    result = canonical_names(model(ONE_WAY.replace("Conv__35", "Conv__1")), kept={"Conv__1"})
    assert [list(n.output) for n in result.graph.node] == [["Conv__2:0"], ["Conv__1:0"], ["y__3"]]


def test_the_model_given_is_not_changed():
    before = model(ONE_WAY)
    bytes_before = before.SerializeToString()
    canonical_names(before)
    assert before.SerializeToString() == bytes_before


BODY = """agraph (float[2] x, bool c) => (float[2] y) {
    t__5_P0 = Neg(x)
    u__6_P0 = Abs(x)
    y = If (c) <
        then_branch = yes () => (float[2] r__1) { v__1 = Exp(t__5_P0)  r__1 = Add(v__1, u__6_P0) },
        else_branch = no () => (float[2] t__5_P0) { }
    >
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_bodies_follow_what_they_capture(condition):
    before = model(BODY)
    for node in before.graph.node:  # the parser cannot write a body that hands out a captured tensor
        for attribute in node.attribute:
            for output in attribute.g.output:
                output.name = output.name.replace("_P0", ":0")
    after = canonical_names(before)
    assert {o for n in after.graph.node for o in n.output} == {"t__1:0", "u__1:0", "y"}
    feed = {"x": np.array([1.5, -2], np.float32), "c": np.array(condition)}
    expected, got = (ReferenceEvaluator(m).run(None, feed)[0] for m in (before, after))
    np.testing.assert_array_equal(expected, got)
