"""Which layers are run side by side, in which pieces, and which node of a layer a finding about it is about."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.compare.lockstep.plan import plan
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.model import Model

from support import networks
from support.models import parsed

NETWORKS = {f.__name__: f for f in networks.FEEDS}


def layout(name: str, memory: int = 1 << 30, every: bool = False):
    index = Model(NETWORKS[name]()).index
    names = {n: n for n in (*index.producer, *index.inputs)}
    return index, plan(index, index, names, every=every, memory=memory)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("memory", [1 << 10, 1 << 15, 1 << 30])
def test_layers_run_after_what_they_read_and_are_numbered_in_order(name, every, memory):
    index, laid = layout(name, memory, every)
    ready = set(index.inputs)
    for number, step in enumerate(laid.steps):
        assert step.index == number
        made = [n for pair in step.layers for n in pair.reference.outputs]
        assert set(step.reference.inputs) <= ready
        assert set(step.reference.outputs) == set(made)
        for pair in step.layers:
            assert set(pair.reference.inputs) <= ready | set(made)
            assert pair.main in pair.reference.nodes
        ready.update(made)
    assert [u.number for u in sorted(laid.layers, key=lambda u: u.number)] == list(range(len(laid.layers)))
    assert set(index.outputs) <= ready
    assert laid.unmatched == ()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_that_an_output_needs_is_in_a_layer(name):
    index, laid = layout(name)
    inside = {p for pair in laid.layers for p in pair.reference.nodes}
    needed, stack = set(), list(index.outputs)
    while stack:
        position = index.producer.get(stack.pop())
        if position is not None and position not in needed:
            needed.add(position)
            stack.extend(index.reads[position])
    assert needed <= inside


def repeating(count):
    """Blocks of four layers, one after the other, each with weights of its own."""
    lines, weights, last = [], {}, "x"
    for block in range(count):
        for function in ("Relu", "Tanh", "Sigmoid", "Softplus"):
            name = f"{function}{block}"
            weights[f"w{name}"] = np.ones((16, 16), np.float32)
            lines += [f"p{name} = MatMul({last}, w{name})", f"{name} = {function}(p{name})"]
            last = name
    text = "\n".join((*lines, f"y = Identity({last})"))
    return Model(parsed(f"g (float[16, 16] x) => (float[16, 16] y) {{\n{text}\n}}", **weights)).index


def test_pieces_hold_whole_blocks_where_engines_are_of_use_to_others():
    index = repeating(12)
    names = {n: n for n in (*index.producer, *index.inputs)}

    def sizes(memory, engines):
        laid = plan(index, index, names, memory=memory, engines=engines)
        return [sum(len(pair.reference.nodes) for pair in step.layers) for step in laid.steps]

    assert sizes(30_000, 8) == [8] * 11 + [9]
    assert sizes(1 << 20, 12) == [24, 24, 24, 25]
    assert sizes(30_000, 0) == [18, 18, 18, 18, 18, 7]
    assert sizes(1 << 20, 8) == [8] * 11 + [9]
    assert sizes(8_000, 8) == sizes(8_000, 0)  # none fits


def test_what_has_no_counterpart_is_no_border():
    index = Model(networks.residual()).index
    names = {n: n for n in (*index.producer, *index.inputs) if n != "out1"}
    laid = plan(index, index, names, memory=1 << 30)
    assert laid.unmatched == ("out1",)
    around = next(pair for pair in laid.layers if pair.reference.outputs == ("a2_relu",))
    assert {index.names[p] for p in around.reference.nodes} >= {"n_out1", "n_a2", "n_a2_bn", "n_a2_relu"}


MAIN = {  # only y is observed, so that all of it is one layer
    "a product and its bias": ("a = MatMul(x, w) y = Add(a, b)", "MatMul"),
    "an Einsum and its bias": ('a = Einsum <equation = "ij,jk->ik"> (x, w) y = Add(a, b)', "Einsum"),
    "the last of two products": ("a = MatMul(x, w) c = Relu(a) y = Gemm(c, w)", "Gemm"),
    "a function that is moved": ("a = Tanh(x) t = Transpose(a) y = Reshape(t, s)", "Tanh"),
    "a shuffle": ("a = Tanh(x) r = Reshape(a, s) d = DepthToSpace <blocksize = 2> (r) y = Identity(d)", "Tanh"),
}


@pytest.mark.parametrize("name", MAIN)
def test_the_arithmetic_of_a_layer_is_its_last_product_or_what_is_not_mere_movement(name):
    body, op = MAIN[name]
    weights = {"w": np.eye(4), "b": np.ones(4), "s": np.array([1, 4, 2, 2])}
    index = GraphIndex(parsed(f"g (float[4, 4] x) => (float y) {{ {body} }}", **weights))
    (pair,) = plan(index, index, {"x": "x", "y": "y"}, memory=1 << 20).layers
    assert index.nodes[pair.main].op_type == op
