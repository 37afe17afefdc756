"""What ONNX Runtime fuses, told from the graph that it writes."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.errors import BuildError
from layerdiff.graph.model import Model
from layerdiff.runners.onnxrt.groups import optimized_groups
from layerdiff.runners.onnxrt.runner import OnnxrtRunner
from onnx import TensorProto, helper

from support.models import assembled

pytest.importorskip("onnxruntime")


def make(*nodes, shape, **weights) -> Model:
    return Model(assembled(nodes, [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, None)], weights))


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def residual() -> Model:
    """0 Conv, 1 BatchNormalization, 2 Relu, 3 Conv, 4 Add, 5 Relu, 6 Identity, 7 Softmax."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(16, 16, 3, 3)).astype("f")
    return make(
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "a one zero zero one", "b"),
        node("Relu", "b", "c"),
        node("Conv", "c w", "d", pads=[1, 1, 1, 1]),
        node("Add", "d c", "e"),
        node("Relu", "e", "f"),
        node("Identity", "f", "g"),
        node("Softmax", "g", "y", axis=1),
        shape=[1, 16, 8, 8],
        w=kernel,
        one=np.ones(16, "f"),
        zero=np.zeros(16, "f"),
    )


def test_without_optimization_every_node_is_alone():
    assert optimized_groups(residual(), OnnxrtRunner(optimization="disable")) == [(i,) for i in range(8)]


def test_extended_fuses_normalization_and_activation():
    groups = optimized_groups(residual(), OnnxrtRunner(optimization="extended"))
    assert groups[0] == (0, 1, 2)
    assert sorted(i for group in groups for i in group) == list(range(8))
    assert groups[-1] == (6, 7)  # the Identity is gone


def test_as_deployed_the_addition_is_fused_too():
    """On a CPU with a blocked layout. Where there is none, `all` is `extended`."""
    groups = optimized_groups(residual())
    assert groups[0] == (0, 1, 2)
    assert (3, 4, 5) in groups or (3,) in groups
    assert sorted(i for group in groups for i in group) == list(range(8))


def test_a_linear_layer():
    model = make(
        node("MatMul", "x w", "a"),
        node("Add", "a b", "c"),
        node("Softmax", "c", "y"),
        shape=[4, 8],
        w=np.ones((8, 3), "f"),
        b=np.ones(3, "f"),
    )
    assert optimized_groups(model) == [(0, 1), (2,)]


def test_a_shape_path_stands_with_the_node_that_reads_it():
    model = make(
        node("Shape", "w", "s"),
        node("Gather", "s i", "n"),
        node("Unsqueeze", "n z", "u"),
        node("Reshape", "x u", "a"),
        node("Relu", "a", "y"),
        shape=[4, 2],
        w=np.ones((8, 3), "f"),
        i=np.array(0),
        z=np.array([0]),
    )
    assert optimized_groups(model) == [(0, 1, 2, 3), (4,)]


def test_the_model_itself_is_not_changed():
    model = residual()
    before = model.proto.SerializeToString()
    optimized_groups(model)
    assert model.proto.SerializeToString() == before


def test_a_model_that_does_not_build():
    model = make(node("Add", "x q", "y"), shape=[1])
    with pytest.raises(BuildError):
        optimized_groups(model)
