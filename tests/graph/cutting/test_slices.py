"""Slices: what makes a tensor from given tensors, as a model of its own, or many of them side by side."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.cutting.dataflow import dataflow
from layerdiff.graph.cutting.fusion import fused_groups
from layerdiff.graph.cutting.slices import (
    SEPARATOR,
    Slice,
    backward,
    explode,
    exploded_name,
    original_name,
    renamed,
    slice_model,
)
from layerdiff.graph.errors import ModelError
from layerdiff.graph.model import Model
from layerdiff.graph.specs import TensorSpec
from onnx import helper

from support import networks
from support.models import parsed

NETWORKS = {f.__name__: f for f in networks.FEEDS}


def specs_of(feed) -> dict[str, TensorSpec]:
    return {n: TensorSpec(n, a.dtype, (None,) * a.ndim) for n, a in feed.items()}


def observed(model: Model) -> list[str]:
    """The outputs of fused groups that may be borders."""
    flow = dataflow(model.index)
    last = [model.index.nodes[g.nodes[-1]] for g in fused_groups(model.index)]
    return [o for n in last for o in n.output if o and flow.crossable(o) and not flow.recomputed(o)]


@pytest.fixture
def diamond() -> Model:
    """x -> a -> b, c -> d, with a weight and a constant path."""
    w = networks.Writer(1)
    w.node("Relu", ["x"], "a")
    w.node("Mul", ["a", w.value("w", 2.0)], "b")
    w.node("Neg", ["a"], "c")
    w.node("Reshape", ["c", w.node("Shape", ["b"], "shape")], "same")
    w.node("Add", ["b", "same"], "d")
    return Model(w.model({"x": (networks.FLOAT, [3])}, ["d"]))


@pytest.mark.parametrize(
    ("outputs", "given", "nodes", "inputs"),
    [
        (["d"], [], (0, 1, 2, 3, 4, 5), ("x",)),
        (["d"], ["a"], (1, 2, 3, 4, 5), ("a",)),
        (["d"], ["b", "same"], (5,), ("b", "same")),
        (["d"], ["b"], (0, 2, 3, 4, 5), ("x", "b")),  # a is made anew
        (["b", "c"], ["a"], (1, 2), ("a",)),
        (["b"], ["b"], (0, 1), ("x",)),  # an output that is itself given is made all the same
        (["b", "d"], ["b"], (0, 1, 2, 3, 4, 5), ("x",)),  # and then nobody needs it from outside
        (["a"], [], (0,), ("x",)),
    ],
)
def test_a_slice_stops_at_what_is_given(diamond, outputs, given, nodes, inputs):
    names = [n.name for n in diamond.index.nodes]
    assert names == ["n_a", "n_b", "n_c", "n_shape", "n_same", "n_d"]
    part = backward(diamond.index, outputs, given)
    assert part.outputs == tuple(outputs)
    assert part.nodes == nodes
    assert set(part.inputs) == set(inputs)
    assert "w" not in part.inputs


@pytest.mark.parametrize("name", ["x", "w", "nothing"])
def test_what_no_node_makes_is_refused(diamond, name):
    with pytest.raises(ModelError, match=name):
        backward(diamond.index, [name], [])


def test_a_slice_needs_the_types_of_its_inputs():
    model = parsed("g (float[2] x) => (float[2] y) { t = my.Op(x)  y = Relu(t) }", domains=["my"])
    part = Slice(("y",), (1,), ("t",))
    with pytest.raises(ModelError, match="'t'"):
        slice_model(Model(model), part, {})
    made = slice_model(Model(model), part, {"t": TensorSpec("t", np.dtype(np.float32), (2,))})
    assert [i.name for i in made.inputs] == ["t"]


def test_a_slice_carries_only_the_weights_it_reads():
    model = Model(networks.transformer())
    part = backward(model.index, ["down1"], ["gelu1"])
    made = slice_model(model, part, specs_of({"gelu1": np.zeros((2, 9, 64), np.float32)}))
    assert {t.name for t in made.proto.graph.initializer} == {"down1.w", "down1.b"}
    assert made.proto.ir_version == model.proto.ir_version
    assert list(made.proto.opset_import) == list(model.proto.opset_import)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_slice_on_the_models_own_values_gives_the_models_own_values(name):
    """The basis of all local errors: without a fault, there is none."""
    model, feed = Model(NETWORKS[name]()), networks.FEEDS[NETWORKS[name]](np.random.default_rng(0))
    values = networks.run_all(model.proto, feed)
    borders = observed(model)
    given = {*borders, *model.index.inputs}
    parts = [(i, backward(model.index, [n], given - {n})) for i, n in enumerate(borders)]
    for _, part in parts:
        inputs = {n: values[n] for n in part.inputs}
        made = networks.run(slice_model(model, part, specs_of(inputs)).proto, inputs)
        assert np.array_equal(made[part.outputs[0]], values[part.outputs[0]])
    inputs = {n: values[n] for _, part in parts for n in part.inputs}
    together = networks.run(explode(model, parts, specs_of(inputs)).proto, inputs)
    assert len(together) == len(borders)
    for number, part in parts:
        assert np.array_equal(together[exploded_name(part.outputs[0], number)], values[part.outputs[0]])


def test_a_slice_apart_is_fed_with_values_of_its_own_and_captures_them_in_bodies():
    proto = parsed(
        """g (float[4] x, bool c) => (float[4] y) {
            [a] a = Mul(x, x)
            [y] y = If (c) <
                then_branch = t () => (float[4] p) { p = Add(x, a) },
                else_branch = e () => (float[4] q) { q = Sub(x, a) }
            >
        }"""
    )
    model = Model(proto)
    part = backward(model.index, ["y"], ["a"])
    x, own = (np.arange(4, dtype=np.float32) + n for n in (1, 5))
    feed = {"x": x, "c": np.array(True), "a": x * 0}
    specs = specs_of({**feed, **{exploded_name(n, 7): v for n, v in feed.items()}})
    exploded = explode(model, [(0, part), (7, part)], specs, apart=(7,))
    given = {**feed, exploded_name("x", 7): own, exploded_name("c", 7): np.array(False), exploded_name("a", 7): x}
    made = networks.run(exploded.proto, given)
    assert np.array_equal(made[exploded_name("y", 0)], x)
    assert np.array_equal(made[exploded_name("y", 7)], own - x)


def test_in_an_exploded_model_no_slice_feeds_another():
    model, feed = Model(networks.control()), {"x": np.ones((4, 4), np.float32)}
    values = networks.run_all(model.proto, feed)
    borders = observed(model)
    given = {*borders, *model.index.inputs}
    parts = [(i, backward(model.index, [n], given - {n})) for i, n in enumerate(borders)]
    inputs = {n: values[n] for _, part in parts for n in part.inputs}
    exploded = explode(model, parts, specs_of(inputs))
    graph = exploded.proto.graph
    made = {o: n.name.partition(SEPARATOR)[2] for n in graph.node for o in n.output if o}
    for node, reads in zip(exploded.index.nodes, exploded.index.reads, strict=True):  # captured names count
        assert {made[r] for r in reads if r in made} <= {node.name.partition(SEPARATOR)[2]}
    # a wrong value for one input moves the layers that read it, and no other
    wrong = {**inputs, "looped": inputs["looped"] + 1}
    healthy, off = (networks.run(exploded.proto, f) for f in (inputs, wrong))
    moved = {original_name(n) for n in healthy if not np.array_equal(healthy[n], off[n])}
    readers = {part.outputs[0] for _, part in parts if "looped" in part.inputs}
    assert moved == readers


def test_names_of_exploded_tensors_lead_back():
    assert original_name(exploded_name("a/b:0", 17)) == "a/b:0"
    assert exploded_name("a", 1) != exploded_name("a", 2)
    assert original_name("plain") == "plain"


def test_renaming_reaches_captured_names_in_bodies_but_not_what_a_body_makes_itself():
    body = helper.make_graph(
        [helper.make_node("Add", ["outer", "hidden"], ["r"])],
        "b",
        [],
        [helper.make_tensor_value_info("r", 1, None)],
        [helper.make_tensor("hidden", 1, [1], [1.0])],
    )
    original = helper.make_node("If", ["c"], ["y"], "if", then_branch=body, else_branch=body)
    copy = renamed(original, {"outer": "outer#1", "hidden": "hidden#1", "c": "c#1", "y": "y#1", "r": "r#1"}, "if#1")
    (inner,) = copy.attribute[0].g.node
    assert (copy.name, list(copy.input), list(copy.output)) == ("if#1", ["c#1"], ["y#1"])
    assert list(inner.input) == ["outer#1", "hidden"]
    assert list(inner.output) == ["r"]
    assert original.name == "if"
    assert list(original.attribute[0].g.node[0].input) == ["outer", "hidden"]


def test_functions_of_a_model_travel_with_its_slices():
    text = """g (float[2] x) => (float[2] y) { t = my.Twice(x)  y = Relu(t) }
    <domain: "my", opset_import: ["": 17]> Twice (a) => (b) { b = Add(a, a) }"""
    model = Model(parsed(text, domains=["my"]))
    part = backward(model.index, ["t"], [])
    feed = {"x": np.array([1, -2], np.float32)}
    assert networks.run(slice_model(model, part, specs_of(feed)).proto, feed)["t"].tolist() == [2, -4]


def test_in_ir_version_3_weights_are_inputs_too():
    model = networks.residual()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    model = Model(model)
    feed = {"pool": np.ones((2, 8, 1, 1), np.float32)}
    made = slice_model(model, backward(model.index, ["y"], ["pool"]), specs_of(feed))
    assert {i.name for i in made.proto.graph.input} == {"pool", "fc.w", "fc.b"}
    assert [i.name for i in made.inputs] == ["pool"]
    assert networks.run(made.proto, feed)["y"].shape == (2, 5)
