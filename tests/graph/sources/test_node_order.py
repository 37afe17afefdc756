"""Files whose nodes stand in an order in which they cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.graph.load import load
from layerdiff.graph.sources.node_order import is_ordered, put_in_order

from support.models import normal, parsed

ORDERED = """g (float[4, 8] x, bool c) => (float[4, 8] y) {
    [a] a = MatMul(x, w)
    [b] b = Sin(x)
    [i] i = If(c) <then_branch = t () => (float[4, 8] v) { [s] s = Sin(a) [v] v = Neg(s) },
                   else_branch = e () => (float[4, 8] u) { [u] u = Neg(b) }>
    [y] y = Add(i, b)
}"""
NAMES = ["a", "b", "i", "y"]


def shuffled(order: list[int], inside: bool = False) -> onnx.ModelProto:
    proto = parsed(ORDERED, w=normal(8, 8))
    body = next(a.g for a in proto.graph.node[2].attribute if a.name == "then_branch")
    for graph, places in ((body, [1, 0] if inside else [0, 1]), (proto.graph, order)):
        nodes = [graph.node[p] for p in places]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    return proto


@pytest.mark.parametrize(("order", "inside"), [([3, 2, 1, 0], False), ([2, 0, 1, 3], True), ([0, 1, 2, 3], True)])
def test_nodes_come_after_what_they_read_also_what_a_body_reads(order: list[int], inside: bool) -> None:
    proto = shuffled(order, inside)
    assert not is_ordered(proto.graph)
    put_in_order(proto.graph)
    assert is_ordered(proto.graph)
    assert {node.name for node in proto.graph.node} == set(NAMES)


def test_an_order_that_is_right_is_kept() -> None:
    proto = shuffled([1, 0, 2, 3])
    put_in_order(proto.graph)
    assert [node.name for node in proto.graph.node] == ["b", "a", "i", "y"]


def test_nodes_in_a_circle_are_kept_for_the_runtime_to_refuse() -> None:
    proto = parsed("g (float[4] x) => (float[4] y) { [a] a = Add(x, b) [b] b = Neg(a) [y] y = Sin(x) }")
    put_in_order(proto.graph)
    assert [node.name for node in proto.graph.node] == ["y", "a", "b"]


@pytest.mark.parametrize("as_file", [True, False])
def test_an_unordered_second_file_is_compared_layer_by_layer(as_file: bool, tmp_path: Path) -> None:
    one, other = shuffled([0, 1, 2, 3]), shuffled([3, 2, 1, 0])
    weight = other.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(1.5 * onnx.numpy_helper.to_array(weight), "w"))
    before = other.SerializeToString()
    if as_file:
        onnx.save(other, tmp_path / "other.onnx")
    runners = [OnnxrtRunner(threads=1)]
    report = Comparator(
        one,
        runners,
        candidate_model=tmp_path / "other.onnx" if as_file else other,
        data_loader=[{"x": normal(4, 8), "c": np.array(True)}],
        layers="guilty",
    ).compare()
    assert [culprit.node for culprit in report.culprits] == ["a"]
    assert other.SerializeToString() == before
    assert is_ordered(load(other).proto.graph)
