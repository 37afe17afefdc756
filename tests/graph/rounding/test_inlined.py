"""Local functions whose nodes stand in the place of their calls."""

from __future__ import annotations

import onnx
from layerdiff import Model
from layerdiff.graph.rounding.inlined import inlined
from onnx import TensorProto, helper

OPSET = helper.make_opsetid("", 17)


def network(inner: onnx.OperatorSetIdProto = OPSET, domain: str = "own") -> Model:
    """Two calls of a function that calls another one, and a node that has a name which a call would give."""
    nodes = [helper.make_node("Exp", ["u"], ["s"], name="act"), helper.make_node("Neg", ["s"], ["v"])]
    one = helper.make_function(domain, "Inner", ["u"], ["v"], nodes, [inner])
    nodes = [
        helper.make_node("Inner", ["u"], ["s"], domain=domain, name="part"),
        helper.make_node("Relu", ["s"], ["v"], name="act"),
    ]
    two = helper.make_function("own", "Outer", ["u"], ["v"], nodes, [OPSET, helper.make_opsetid(domain, 1)])
    calls = [
        helper.make_node("Outer", ["x"], ["a"], domain="own", name="first"),
        helper.make_node("Tanh", ["a"], ["b"], name="second/act"),
        helper.make_node("Outer", ["b"], ["y"], domain="own", name="second"),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])] for name in "xy"]
    opsets = [OPSET, *(helper.make_opsetid(name, 1) for name in sorted({"own", domain}))]
    return Model(helper.make_model(helper.make_graph(calls, "g", *ends), functions=[one, two], opset_imports=opsets))


def test_nodes_are_called_after_their_calls():
    model = inlined(network())
    assert not model.proto.functions
    assert [node.op_type for node in model.proto.graph.node] == ["Exp", "Neg", "Relu", "Tanh", "Exp", "Neg", "Relu"]
    names = [node.name for node in model.proto.graph.node]
    assert names[0::2][:2] == ["first/part/act", "first/act"]
    assert names[3:5] == ["second/act", "second/part/act"]
    assert len(set(names)) == len(names)


def test_a_model_without_functions_is_itself():
    model = inlined(network())
    assert inlined(model) is model


def test_functions_of_a_domain_may_stay():
    model = inlined(network(domain="theirs"), but=["theirs"])
    assert [function.name for function in model.proto.functions] == ["Inner"]
    assert [node.op_type for node in model.proto.graph.node] == ["Inner", "Relu", "Tanh", "Inner", "Relu"]
    assert model.proto.graph.node[0].name == "first/part"
