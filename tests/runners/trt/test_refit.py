"""Engines that are given the weights of other layers, on a stand-in made from the bindings."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff.graph.errors import BuildError
from layerdiff.graph.model import Model
from layerdiff.runners.contract.session import SessionInfo
from layerdiff.runners.contract.workload import ShapeRange, Workload
from layerdiff.runners.trt.runner import TrtRunner

from support.models import normal, parsed
from support.trt_cases import ALL, ELEVEN, OLD, TEN

pytest.importorskip("onnxruntime")
SHAPE = (3, 8)

BLOCK = """g (float[3, 8] x) => (float[3, 8] y) {
    [product] p = MatMul(x, w)
    [sum] s = Add(p, b)
    [shape] r = Reshape(s, to)
    [act] y = Relu(r)
}"""
NORMALIZED = """g (float[3, 8] x) => (float[3, 8] y) {
    [product] p = MatMul(x, w)
    [norm] y = BatchNormalization(p, g, b, m, v)
}"""


def block(seed, to=SHAPE, node="product"):
    proto = parsed(BLOCK, w=normal(8, 8, seed=seed), b=normal(8, seed=seed + 1), to=np.array(to, np.int64))
    proto.graph.node[0].name = node
    return Model(proto)


def normalized(seed):
    one = np.ones(8, np.float32)
    return Model(parsed(NORMALIZED, w=normal(8, 8, seed=seed), g=one * seed, b=one, m=one, v=one))


def built(runner, model):
    return runner.build(model, Workload(shapes={"x": ShapeRange(SHAPE, SHAPE, SHAPE)}), True)


def outputs(runner, made, model, x):
    with runner.opened_on(made).open(model) as session:
        return session.infer({"x": x})["y"]


@pytest.mark.parametrize("version", ALL)
def test_an_engine_with_other_weights_computes_with_them(version, tensorrt):
    module, _ = tensorrt(version)
    runner = TrtRunner()
    one, other, x = block(1), block(5), normal(*SHAPE, seed=9)
    made = built(runner, one)
    assert module.BuilderFlag.REFIT in [c[2][0] for c in module.calls if c[1] == "set_flag"]
    again = runner.refit(other, made, one)
    alone = outputs(runner, built(runner, other), other, x)
    assert np.array_equal(outputs(runner, again, other, x), alone)
    assert not np.array_equal(outputs(runner, made, one, x), alone)


@pytest.mark.parametrize(
    ("one", "other", "config", "why"),
    [
        (block(1), block(2, to=(0, 8)), {}, "cannot replace the weight 'to'"),
        (normalized(1), normalized(2), {}, "made 4 weights of its own"),
        (block(1), block(2, node="other"), {"fp16": True, "keep": ("other",)}, "held to other formats"),
    ],
)
def test_what_cannot_be_replaced_is_built(one, other, config, why, tensorrt):
    tensorrt(OLD)
    runner = TrtRunner(**config)
    made = built(runner, one)
    with pytest.raises(BuildError, match=why):
        runner.refit(other, made, one)


def test_formats_of_the_deployed_engine_belong_to_their_layers(tensorrt):
    tensorrt(OLD)
    deployed = SessionInfo(node_formats={"product": ("FP16", "FP16"), "other": ("FP32", "FP32")})
    runner = TrtRunner(fp16=True).for_pieces(deployed)
    made = built(runner, block(1))
    runner.refit(block(2), made, block(1))
    with pytest.raises(BuildError, match="held to other formats"):
        runner.refit(block(2, node="other"), made, block(1))


@pytest.mark.parametrize(
    ("version", "options", "refits"),
    [
        (OLD, {}, True),
        (OLD, {"fp16": True}, True),
        (TEN, {"bf16": True}, True),
        (OLD, {"int8": True}, False),  # ranges are those of the layers that were calibrated
        (OLD, {"int8_qdq": "max"}, False),
        (ELEVEN, {"fp16": True}, False),  # types are written into the graph
        (TEN, {"fp16": True, "strongly_typed": True}, False),
        (ELEVEN, {}, True),
    ],
)
def test_what_is_refitted(version, options, refits, tensorrt):
    tensorrt(version)
    assert TrtRunner(**options).refits is refits
