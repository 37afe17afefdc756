"""Files that ONNX Runtime has written in its blocked layout, beside the plain ones that they were made from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from support.layerwise import compare, only
from support.models import normal, parsed
from support.rewrites import optimized

DATA = [{"x": normal(2, 3, 16, 16, seed=1)}]
TEXT = """g (float[2,3,16,16] x) => (float[2,5] y) {
    [c0] a = Conv<pads=[1,1,1,1]>(x, w0, b0) [r0] b = Relu(a)
    [c1] c = Conv(b, w1, b1) [gate] s = Sigmoid(c) [swish] d = Mul(c, s)
    [dw] e = Conv<pads=[1,1,1,1],group=32>(d, wd, bd) [six] f = Clip(e, low, high)
    [max] h = MaxPool<kernel_shape=[2,2],strides=[2,2]>(f)
    [c2] i = Conv<pads=[1,1,1,1]>(h, w2, b2) [r2] j = Relu(i)
    [group] k = Conv<pads=[1,1,1,1],group=2>(h, wg) [c3] l = Conv(k, w3)
    [c4] m = Conv<pads=[1,1,1,1]>(j, w4) [sum] n = Add(m, l) [r4] o = Relu(n)
    [up] p = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">(o, , twice)
    [c5] q = Conv(p, w5) [pool] u = GlobalAveragePool(q) [flat] v = Flatten(u) [fc] y = MatMul(v, w) }"""
SIZES = {
    "w0": (24, 3, 3, 3), "b0": (24,), "w1": (32, 24, 1, 1), "b1": (32,), "wd": (32, 1, 3, 3), "bd": (32,),
    "w2": (20, 32, 3, 3), "b2": (20,), "wg": (32, 16, 3, 3), "w3": (28, 32, 1, 1), "w4": (28, 20, 3, 3),
    "w5": (16, 28, 1, 1), "w": (16, 5),
}  # fmt: skip
WEIGHTS = {n: normal(*s, seed=i) / np.sqrt(np.prod(s[1:]) or 1) for i, (n, s) in enumerate(SIZES.items())}
WEIGHTS = {name: value.astype(np.float32) for name, value in WEIGHTS.items()}
CONSTANTS = {"low": np.float32(0), "high": np.float32(6), "twice": np.array([1, 1, 2, 2], np.float32)}


def network(old: str = "", new: str = "", **changed: np.ndarray) -> onnx.ModelProto:
    assert old in TEXT
    return parsed(TEXT.replace(old, new), **{**WEIGHTS, **CONSTANTS, **changed})


def blocked(proto: onnx.ModelProto) -> onnx.ModelProto:
    found = optimized(proto, "ALL")
    if not any(node.domain == "com.microsoft.nchwc" for node in found.graph.node):
        pytest.skip("ONNX Runtime has no blocked layout on this processor")
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_a_blocked_file_is_no_fault(turned):
    report = compare(*[network(), blocked(network())][:: -1 if turned else 1], DATA)
    assert (report.verdict, report.culprits) == ("pass", ())
    compared = {layer.tensor for layer in report.layers if layer.verdict == "ok"}
    assert len(compared) > 6
    assert turned or all(output.bit_identical for output in report.fidelity)


NODES = {"w0": "c0", "b0": "c0", "w1": "c1", "wd": "dw", "bd": "dw", "w2": "c2", "wg": "group", "w3": "c3", "w4": "c4"}


@pytest.mark.parametrize("name", NODES)
def test_weights_in_blocks_are_compared(name):
    culprit = only(compare(network(), blocked(network(**{name: WEIGHTS[name] * np.float32(1.1)})), DATA))
    assert (culprit.node, culprit.cause) == (NODES[name], "weights")
    assert "all 1.1 times the reference's" in culprit.evidence


@pytest.mark.parametrize(
    ("old", "new", "node", "text"),
    [
        (
            "pads=[1,1,1,1],group=2",
            "pads=[2,2,2,2],dilations=[2,2],group=2",
            "group",
            "dilations [1, 1] against [2, 2]",
        ),
        ("strides=[2,2]>(f)", "strides=[2,2],pads=[1,1,0,0]>(f)", "max", "pads [0, 0, 0, 0] against [1, 1, 0, 0]"),
        ("[r2] j = Relu(i)", "[r2] j = Identity(i)", "r2", "Relu r2 is missing in the candidate"),
        ("[r4] o = Relu(n)", "[r4] o = Tanh(n)", "r4", "Relu r4 against Tanh m_nchwc"),
        ("GlobalAveragePool", "GlobalMaxPool", "pool", "GlobalAveragePool pool against GlobalMaxPool u_nchwc"),
    ],
)
def test_what_differs_in_blocks_is_told(old, new, node, text):
    culprit = only(compare(network(), blocked(network(old, new)), DATA))
    assert culprit.node == node
    assert text in culprit.evidence


def test_a_filter_in_blocks_that_differs_in_both_files_is_told_alone():
    changed = WEIGHTS["w2"].copy()
    changed[7] = -changed[7]
    culprit = only(compare(blocked(network()), blocked(network(w2=changed)), DATA))
    assert culprit.cause == "weights"
    assert "288 of 5,760 weights differ" in culprit.evidence
