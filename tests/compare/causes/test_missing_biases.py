"""A fused attention that is not given the biases of the queries, keys and values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed

TEXT = """g (float[2,6,8] x) => (float[2,6,8] y) {{ {0} [merge] y = Tanh(o) }}"""
PROJECTED = """[q] q0 = MatMul(x, wq) [k] k0 = MatMul(x, wk) [v] v0 = MatMul(x, wv) """
APART = (
    PROJECTED
    + """[qb] q = Add(q0, bq) [kb] k = Add(k0, bk) [vb] v = Add(v0, bv)
    [q4] q1 = Reshape(q, heads) [k4] k1 = Reshape(k, heads) [v4] v1 = Reshape(v, heads)
    [qt] q2 = Transpose<perm=[0,2,1,3]>(q1) [kt] k2 = Transpose<perm=[0,2,3,1]>(k1)
    [vt] v2 = Transpose<perm=[0,2,1,3]>(v1) [score] s = MatMul(q2, k2) [scale] z = Div(s, two) [soft] p = Softmax(z)
    [mix] m = MatMul(p, v2) [back] t = Transpose<perm=[0,2,1,3]>(m) [flat] o = Reshape(t, whole)"""
)
BIASES = {f"b{name}": normal(8, seed=i + 4) for i, name in enumerate("qkv")}
WEIGHTS = {f"w{name}": normal(8, 8, seed=i) / 2 for i, name in enumerate("qkv")}
NUMBERS = {"heads": np.array([2, 6, 2, 4]), "whole": np.array([2, 6, 8]), "two": np.float32(2)}


def fused(bias: bool) -> onnx.ModelProto:
    proto = parsed(TEXT.format(PROJECTED + "[att] o = Tanh(q0)"), **WEIGHTS)
    position = next(i for i, node in enumerate(proto.graph.node) if node.name == "att")
    reads = ["q0", "k0", "v0", "packed"] if bias else ["q0", "k0", "v0"]
    node = onnx.helper.make_node("MultiHeadAttention", reads, ["o"], "att", domain="com.microsoft", num_heads=2)
    proto.graph.node[position].CopyFrom(node)
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    if bias:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.concatenate([*BIASES.values()]), "packed"))
    return proto


@pytest.mark.parametrize("bias", [True, False])
def test_biases_that_a_fused_attention_is_not_given_are_told_with_their_names(bias: bool) -> None:
    reference = parsed(TEXT.format(APART), **WEIGHTS, **BIASES, **NUMBERS)
    report = compare(reference, fused(bias), [{"x": normal(2, 6, 8, seed=9)}])
    if bias:
        assert (report.verdict, report.culprits) == ("pass", ())
        return
    culprit = only(report)
    assert culprit.cause == "wrong-op"
    assert culprit.evidence == (
        "MultiHeadAttention att does not add 'bq', 'bk' and 'bv' of the first file: it makes what the first file would "
        "if those were zero"
    )
    assert culprit.remedies[0].text == "give MultiHeadAttention att the biases 'bq', 'bk' and 'bv' of the first file"
