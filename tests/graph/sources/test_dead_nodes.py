"""Nodes that nothing depends on are no part of the network, and their tensors' names mean nothing."""

from __future__ import annotations

import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from layerdiff.graph.load import load

from support.models import normal, parsed

WEIGHTS = {"w": normal(32, 32) / 4, "v": normal(32, 32) / 4}
GOOD = (
    "g (float[4, 32] x) => (float[4, 32] y) { [up] u = MatMul(x, w) [erf] e = Erf(u) [half] h = Mul(u, e) "
    "[down] y = MatMul(h, v) }"
)
LEFT = GOOD.replace("MatMul(h, v)", "MatMul(t, v)").replace("[down]", "[act] t = Tanh(u) [down]")


@pytest.mark.parametrize("as_file", [True, False])
def test_they_are_left_out(as_file, tmp_path):
    proto = parsed(LEFT, **WEIGHTS)
    onnx.save(proto, tmp_path / "left.onnx")
    model = load(tmp_path / "left.onnx" if as_file else proto)
    assert [node.name for node in model.index.nodes] == ["up", "act", "down"]
    assert len(proto.graph.node) == 5, "the caller's own"


def test_what_a_body_reads_is_alive():
    text = """g (bool c, float[2] x) => (float[2] y) {
        a = Relu(x) b = Tanh(x) d = Sin(x)
        y = If (c) <then_branch = t () => (float[2] p) { p = Neg(a) },
            else_branch = e () => (float[2] q) { q = Neg(b) }>
    }"""
    assert [node.op_type for node in load(parsed(text)).index.nodes] == ["Relu", "Tanh", "If"]


def test_a_replaced_operator_is_named_whose_old_nodes_were_left_in_the_file():
    data = [{"x": normal(4, 32)}]
    report = Comparator(
        parsed(GOOD, **WEIGHTS),
        [OnnxrtRunner()],
        candidate_model=parsed(LEFT, **WEIGHTS),
        data_loader=data,
        layers="all",
    ).compare()
    assert [(c.node, str(c.cause)) for c in report.culprits] == [("half", "wrong-op")]
