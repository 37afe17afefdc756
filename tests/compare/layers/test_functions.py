"""Networks with local functions, on one side or on both: what differs inside is told at the node that it is in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx.inliner
import pytest
from layerdiff import Model
from layerdiff.compare.layers.opened import opened
from layerdiff.compare.sides import Side
from onnx import TensorProto, helper, numpy_helper

from support.layerwise import FP16, ORT, compare, only
from support.models import normal

OPSET = helper.make_opsetid("", 17)
DATA = [{"x": normal(5, 8, seed=1)}]
BLOCK = (("up", "MatMul", "xw", "a"), ("add", "Add", "ab", "c"), ("act", "Tanh", "c", "d"), ("rest", "Add", "xd", "y"))
BLOCKS = range(3)


def network(act: str = "Tanh", at: int = 1, **changed: np.ndarray) -> onnx.ModelProto:
    """Three calls of a function, one of them of a function with another activation."""
    weights = {f"w{i}": normal(8, 8, seed=i) / 3 for i in BLOCKS} | {f"b{i}": normal(8, seed=9 + i) for i in BLOCKS}
    names = {i: "Other" if i == at and act != "Tanh" else "Block" for i in BLOCKS}
    functions = []
    for name in sorted(set(names.values())):
        steps = [(n, act if n == "act" and name == "Other" else op, read, made) for n, op, read, made in BLOCK]
        nodes = [helper.make_node(op, list(read), [made], name=n) for n, op, read, made in steps]
        functions.append(helper.make_function("own", name, list("xwb"), ["y"], nodes, [OPSET]))
    calls = [
        helper.make_node(
            names[i], ["x" if not i else f"y{i - 1}", f"w{i}", f"b{i}"], [f"y{i}"], domain="own", name=f"block{i}"
        )
        for i in BLOCKS
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [5, 8])] for name in ("x", "y2")]
    held = [numpy_helper.from_array(value, name) for name, value in {**weights, **changed}.items()]
    graph = helper.make_graph(calls, "g", *ends, held)
    return helper.make_model(
        graph, functions=functions, opset_imports=[OPSET, helper.make_opsetid("own", 1)], ir_version=8
    )


def written_out(proto: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.inliner.inline_local_functions(proto)


@pytest.mark.parametrize("other", [lambda proto: proto, written_out], ids=["functions", "written out"])
def test_a_weight_that_a_function_is_given_is_told_at_the_node_that_reads_it(other):
    assert compare(network(), other(network()), DATA).verdict == "pass"
    culprit = only(compare(network(), other(network(w1=normal(8, 8, seed=1) / 2)), DATA))
    assert (culprit.node, culprit.cause) == ("block1/up", "weights")
    assert "all 1.5 times" in culprit.evidence
    culprit = only(compare(network(), other(network(b0=0 * normal(8))), DATA))
    assert (culprit.node, culprit.cause) == ("block0/add", "weights")


@pytest.mark.parametrize("other", [lambda proto: proto, written_out], ids=["functions", "written out"])
def test_a_node_that_differs_inside_of_a_function_is_told(other):
    culprit = only(compare(network(), other(network("Sigmoid")), DATA))
    assert (culprit.node, culprit.cause) == ("block1/act", "wrong-op")
    assert culprit.evidence.startswith("Tanh ")
    assert "against Sigmoid" in culprit.evidence


def test_the_reference_may_be_the_one_without_functions():
    culprit = only(compare(written_out(network()), network("Sigmoid"), DATA))
    assert culprit.cause == "wrong-op"
    assert culprit.candidate_node == "block1/act"


def test_calls_are_layers_where_single_nodes_can_be_kept_in_fp32():
    sides = Side("reference", ORT, Model(network())), Side("candidate", FP16, Model(network("Sigmoid")))
    assert all(side.model.proto.functions for side in opened(*sides))
    assert not any(side.model.proto.functions for side in opened(sides[0], replace(sides[1], runner=ORT)))
