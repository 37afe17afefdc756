"""Networks in which a format has nothing to round: the agreement of an emulation with them proves nothing."""

import numpy as np
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.graph.model import Model
from onnx import TensorProto, helper

from support.models import parsed

TREE = helper.make_node(
    "TreeEnsembleRegressor",
    ["x"],
    ["y"],
    domain="ai.onnx.ml",
    n_targets=1,
    nodes_falsenodeids=[2, 0, 0],
    nodes_featureids=[0, 0, 0],
    nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
    nodes_nodeids=[0, 1, 2],
    nodes_treeids=[0, 0, 0],
    nodes_truenodeids=[1, 0, 0],
    nodes_values=[0.5, 0.0, 0.0],
    target_ids=[0, 0],
    target_nodeids=[1, 2],
    target_treeids=[0, 0],
    target_weights=[0.12345678, 1.7654321],
)


def tree() -> Model:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return Model(helper.make_model(helper.make_graph([TREE], "t", [x], [y]), opset_imports=opsets, ir_version=8))


def network(body: str) -> Model:
    return Model(parsed(f"t (float[4,8] x) => (float[4,8] y) {{ {body} }}", w=np.eye(8, dtype=np.float32) / 3))


def outcome(model: Model, runner: EmulateRunner):
    data = [{"x": np.random.default_rng(0).uniform(0, 1, (4, 8)).astype(np.float32)}]
    return Comparator(model, [OnnxrtRunner(), runner], data_loader=data).compare().outputs[0]


EXPECTED = {
    "a tree": (tree, {"fp16", "bf16", "tf32", "e4m3", "int8"}),
    "moved values": (lambda: network("a = Transpose(x) y = Transpose(a)"), {"fp16", "bf16", "tf32", "e4m3", "int8"}),
    "no product": (lambda: network("a = Exp(x) y = Add(a, x)"), {"tf32", "e4m3", "int8"}),
    "a product": (lambda: network("y = MatMul(x, w)"), set()),
    "types of its own": (lambda: network("h = Cast<to=10>(x) a = Exp(h) y = Cast<to=1>(a)"), {"bf16", "tf32"}),
}


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "tf32", "e4m3", "int8"])
@pytest.mark.parametrize("case", EXPECTED)
def test_nothing_rounded_is_undecided(case: str, fmt: str) -> None:
    model, idle = EXPECTED[case]
    output = outcome(model(), EmulateRunner(format=fmt))
    said = f"nothing of this network was rounded to {fmt.upper()}, so that the agreement proves nothing"
    assert (output.reason == said) == (fmt in idle)
    if fmt in idle:
        assert output.verdict == "undecided"
