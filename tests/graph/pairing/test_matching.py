"""Matching two graphs: what is found, that nothing found is wrong, and what differs without running.

Every transformation is applied to small networks of different build. Tensors are told to correspond by their values:
where the candidate is the same function, two matched tensors hold the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from layerdiff.graph.cutting.dataflow import Kind, dataflow
from layerdiff.graph.index import GraphIndex
from layerdiff.graph.nodes import attribute
from layerdiff.graph.pairing.changes import OperatorChange
from layerdiff.graph.pairing.matching import Matching, match
from onnx import TensorProto, helper

from support import networks
from support.models import parsed
from support.rewrites import SAME, chunked, folded, half, renamed, weights_of, with_nodes

NETWORKS = {f.__name__: f for f in networks.FEEDS}
Proto = onnx.ModelProto
NUMBERS = {name: np.int64(value) for name, value in (("two", 2), ("three", 3), ("five", 5))}


def feed_of(name: str) -> dict[str, np.ndarray]:
    return networks.FEEDS[NETWORKS[name]](np.random.default_rng(0))


MISSING = {
    # what a folded or fused network does not compute any more; everything else is to be found
    ("residual", "folded"): r"(stem|a1|a2|b1|b2)",
    ("residual", "optimized"): r"(stem|a1|a2|b1|b2)",
    ("unet", "folded"): r"down\d",
    ("unet", "optimized"): r"down\d",
    ("dense", "folded"): r"conv\d|stem",
    ("transformer", "fused normalizations"): r".*norm\d\..*",
    ("recurrent", "optimized"): r"tags\.m",
    ("control", "optimized"): r"first\.m",
}


def unmatched(proto: Proto, found: Matching) -> list[str]:
    """Tensors that depend on the data and correspond to nothing."""
    index = GraphIndex(proto)
    kind = dataflow(index).kind
    made = [name for node in index.nodes for name in node.output if name and kind[name] != Kind.CONSTANT]
    return [name for name in (*index.inputs, *made) if name not in found.tensors]


@pytest.mark.parametrize("names", ["names kept", "renamed"])
@pytest.mark.parametrize("change", SAME)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_function_is_matched_whole_and_never_wrongly(name: str, change: str, names: str) -> None:
    if (name, change) == ("control", "float16") or (name, change) == ("unet", "float16"):
        pytest.skip("the bodies are typed; Resize takes no float16 here")
    proto = NETWORKS[name]()
    other = SAME[change](proto)
    other = renamed(other) if names == "renamed" else other
    found = match(GraphIndex(proto), GraphIndex(other))
    feed = feed_of(name)
    mine, theirs = networks.run_all(proto, feed), networks.run_all(other, feed)
    for a, b in found.tensors.items():
        if a in mine and b in theirs:
            loose = change == "float16"
            x, y = np.asarray(mine[a], np.float64), np.asarray(theirs[b], np.float64)
            scale = np.abs(x).max(initial=1e-3)
            np.testing.assert_allclose(y, x, rtol=0, atol=(2e-2 if loose else 1e-5) * scale, err_msg=f"{a} is not {b}")
    import re

    pattern = MISSING.get((name, change), "$^")
    assert [t for t in unmatched(proto, found) if not re.fullmatch(pattern, t)] == []
    assert [d for d in found.differences if d.expected_by_format is None and d.kind != "op"] == []
    if change not in ("chunked products", "fused normalizations", "transposes"):
        assert [d for d in found.differences if d.kind == "op"] == []


def test_one_file_is_matched_with_itself_without_looking() -> None:
    index = GraphIndex(networks.transformer())
    found = match(index, index)
    assert found.nodes == {p: p for p in range(len(index.nodes))}
    assert all(a == b for a, b in found.tensors.items())
    assert not found.differences


def test_outputs_are_matched_by_exact_name_only() -> None:
    proto = networks.recurrent()
    other = Proto.FromString(proto.SerializeToString().replace(b"summary", b"summari"))
    found = match(GraphIndex(proto), GraphIndex(other))
    assert "summary" not in found.tensors
    assert found.tensors["tags"] == "tags"
    assert found.tensors["both"] == "both"


def test_names_that_moved_on_by_one_do_not_mislead() -> None:
    """An exporter that numbers tensors gives all later ones another number after one insertion."""
    w = networks.Writer()
    x = "x"
    for i in range(6):
        x = w.node("Relu", [w.linear(x, f"l{i}", (8, 8))], f"r{i}")
    proto = w.model({"x": (TensorProto.FLOAT, [2, 8])}, ["r5"])
    chain = [n.output[0] for n in proto.graph.node]
    old = {t: str(10 + i) for i, t in enumerate(chain[:-1])}
    new = {t: str(13 + i) for i, t in enumerate(chain[:-1])}  # three further: the same operators in the same shapes
    numbered = [
        with_nodes(
            proto,
            [
                helper.make_node(n.op_type, [t.get(i, i) for i in n.input], [t.get(o, o) for o in n.output])
                for n in proto.graph.node
            ],
        )
        for t in (old, new)
    ]
    found = match(*map(GraphIndex, numbered))
    assert {a: b for a, b in found.tensors.items() if a in old.values()} == {old[t]: new[t] for t in old}


def test_of_two_nodes_of_which_one_is_left_the_single_number_tells_which() -> None:
    """An exporter that numbers nodes gives the second the name of the first, where that is not needed."""
    text = "g (int64[4] x) => (int64[4] y) { %s y = Add(b, a) }"
    both = parsed(text % "[m] m = Mod(x, three)  a = Abs(m)  [m_1] m_1 = Mod(x, five)  b = Mul(m_1, two)", **NUMBERS)
    one = parsed(text % "[d] d = Div(x, three)  a = Abs(d)  [m] m = Mod(x, five)  b = Mul(m, two)", **NUMBERS)
    found = match(GraphIndex(both), GraphIndex(one))
    assert found.tensors.get("m_1") == "m"
    assert found.tensors.get("m") != "m"


def test_queries_keys_and_values_are_told_apart_behind_a_changed_node() -> None:
    proto = networks.transformer()
    nodes = [
        helper.make_node("Sigmoid", n.input, n.output) if n.output[0] == "attention1" else n for n in proto.graph.node
    ]
    truth = with_nodes(proto, nodes)
    found = match(GraphIndex(proto), GraphIndex(truth))
    assert not unmatched(proto, found)
    found = match(GraphIndex(proto), GraphIndex(renamed(truth)))
    assert not unmatched(proto, found)
    (difference,) = found.differences
    assert (difference.kind, difference.detail) == ("op", "Softmax n_attention1 against Sigmoid Sigmoid_24")


def test_where_a_readers_inputs_are_exchanged_the_branches_stay_what_they_are() -> None:
    """By their place alone, each convolution would be the other: another kernel, other attributes, other weights."""
    w = networks.Writer()
    for name, size in (("a", 1), ("b", 3)):
        w.node("Conv", ["x", w.weight(f"{name}.w", 8, 8, size, size)], name, pads=[size // 2] * 4)
    w.node("Concat", ["a", "b"], "y", axis=1)
    proto = w.model({"x": (TensorProto.FLOAT, [1, 8, 6, 6])}, ["y"])
    nodes = [
        helper.make_node("Concat", ["b", "a"], ["y"], axis=1) if n.output[0] == "y" else n for n in proto.graph.node
    ]
    exchanged = renamed(with_nodes(proto, nodes))
    found = match(GraphIndex(proto), GraphIndex(exchanged))
    assert set(found.tensors) >= {"a", "b", "y"}
    assert {d.node for d in found.differences} <= {2}
    size = {n.output[0]: len(attribute(n, "pads", [])) and attribute(n, "pads", [])[0] for n in exchanged.graph.node}
    assert [size[found.tensors[name]] for name in ("a", "b")] == [0, 1]


def test_what_cannot_be_told_apart_is_left_unmatched() -> None:
    w = networks.Writer()
    for name in ("a", "b"):
        w.node("MatMul", ["x", w.weight(f"{name}.w", 8, 8)], name)
    w.node("Add", ["a", "b"], "y")
    proto = w.model({"x": (TensorProto.FLOAT, [2, 8])}, ["y"])
    other = renamed(with_nodes(proto, list(proto.graph.node), {n: v[::-1].copy() + 1 for n, v in w.weights.items()}))
    found = match(GraphIndex(proto), GraphIndex(other))
    assert unmatched(proto, found) == ["a", "b"]


# Planted faults: the difference is found at the node, and everything else is still matched.


def alter(proto: Proto, output: str, change: Callable[[onnx.NodeProto], None]) -> Proto:
    result = with_nodes(proto, list(proto.graph.node))
    change(next(n for n in result.graph.node if n.output[0] == output))
    return result


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def set_weight(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Proto], Proto]:
    return lambda p: with_nodes(p, list(p.graph.node), {name: change(weights_of(p)[name])})


def one_larger(w: np.ndarray) -> np.ndarray:
    w = w.copy()
    w[2, 3] += 0.5
    return w


def dropped(output: str) -> Callable[[Proto], Proto]:
    def make(proto: Proto) -> Proto:
        gone = next(n for n in proto.graph.node if n.output[0] == output)
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node if n.output[0] != output]
        for node in nodes:
            node.input[:] = [gone.input[0] if i == output else i for i in node.input]
        return with_nodes(proto, nodes)

    return make


def added(output: str) -> Callable[[Proto], Proto]:
    def make(proto: Proto) -> Proto:
        nodes = []
        for node in proto.graph.node:
            node = onnx.NodeProto.FromString(node.SerializeToString())
            node.input[:] = [f"{i}.more" if i == output else i for i in node.input]
            nodes.append(node)
            if node.output[0] == output:
                nodes.append(helper.make_node("Mul", [output, "k"], [f"{output}.more"], name="more"))
        return with_nodes(proto, nodes, {"k": np.array(0.999, np.float32)})

    return make


def to_op(output: str, op: str) -> Callable[[Proto], Proto]:
    def make(proto: Proto) -> Proto:
        nodes = [helper.make_node(op, n.input, n.output) if n.output[0] == output else n for n in proto.graph.node]
        return with_nodes(proto, nodes)

    return make


FAULTS = [
    # network, change, node (by its first output), kind, name, words of the detail
    (
        "residual",
        lambda p: alter(p, "a1_bn", lambda n: set_attribute(n, "epsilon", 0.01)),
        "a1_bn",
        "attribute",
        "epsilon",
        "epsilon 1e-05 against 0.01",
    ),
    (
        "residual",
        lambda p: alter(p, "b1", lambda n: set_attribute(n, "pads", [0, 0, 2, 2])),
        "b1",
        "attribute",
        "pads",
        "pads [1, 1, 1, 1] against [0, 0, 2, 2]",
    ),
    (
        "transformer",
        lambda p: alter(p, "attention2", lambda n: set_attribute(n, "axis", 1)),
        "attention2",
        "attribute",
        "axis",
        "against 1",
    ),
    (
        "transformer",
        set_weight("q1.w", one_larger),
        "q1.m",
        "weights",
        "b",
        "1 of 256 weights differ, greatest 0.5 at [2,3]",
    ),
    ("transformer", set_weight("k2.w", lambda w: w.T.copy()), "k2.m", "weights", "b", "equal to the transpose"),
    (
        "transformer",
        set_weight("o1.w", lambda w: w[::-1].copy()),
        "o1.m",
        "weights",
        "b",
        "the same in another order along axis 0",
    ),
    (
        "transformer",
        set_weight("v1.b", lambda w: w * np.float32(1.001)),
        "v1",
        "weights",
        "const",
        "all 1.001 times the reference's",
    ),
    (
        "transformer",
        set_weight("scale", lambda w: w * np.float32(1.5)),
        "scaled1",
        "weights",
        "const",
        "0.353553 against 0.53033",
    ),
    (
        "dense",
        set_weight("conv0.w", lambda w: w.astype(np.float16).astype(np.float32)),
        "conv0",
        "weights",
        "w",
        "rounded to FP16",
    ),
    (
        "dense",
        set_weight("conv1.w", lambda w: np.round(w / np.abs(w).max() * 7).astype(np.float32)),
        "conv1",
        "weights",
        "w",
        "differ",
    ),
    (
        "dense",
        lambda p: alter(p, "norm2", lambda n: n.input.__setitem__(slice(3, 5), [n.input[4], n.input[3]])),
        "norm2",
        "weights",
        "input_mean",
        "equal to the reference's input_var",
    ),
    ("recurrent", set_weight("lstm.r", lambda w: w * 1.1), "lstm", "weights", "r", "differ"),
    (
        "unet",
        lambda p: alter(p, "up1", lambda n: set_attribute(n, "coordinate_transformation_mode", "asymmetric")),
        "up1",
        "attribute",
        "coordinate_transformation_mode",
        "half_pixel against asymmetric",
    ),
    ("residual", to_op("out1", "Tanh"), "out1", "op", "", "Relu n_out1 against Tanh Tanh_9"),
    ("residual", dropped("a1_relu"), "a1_relu", "op", "", "Relu n_a1_relu is missing in the candidate"),
    ("residual", dropped("b1_bn"), "b1_bn", "op", "", "BatchNormalization n_b1_bn is missing in the candidate"),
    ("transformer", dropped("scaled1"), "scaled1", "op", "", "Mul n_scaled1 is missing in the candidate"),
    ("transformer", dropped("up2"), "up2", "op", "", "Add n_up2 is missing in the candidate"),
    ("unet", added("down1"), "down1", "op", "", "Mul"),
    ("control", set_weight("gain", lambda w: w + 1), "chosen", "weights", "captured1", "16 of 16 weights differ"),
]


@pytest.mark.parametrize("names", ["names kept", "renamed"])
@pytest.mark.parametrize(
    ("name", "change", "node", "kind", "slot", "words"), FAULTS, ids=[f"{f[0]}-{f[2]}-{f[5]}" for f in FAULTS]
)
def test_a_fault_is_found_and_hides_nothing_else(
    name: str, change: Callable[[Proto], Proto], node: str, kind: str, slot: str, words: str, names: str
) -> None:
    proto = NETWORKS[name]()
    index = GraphIndex(proto)
    other = change(proto)
    other = renamed(other) if names == "renamed" else other
    found = match(index, GraphIndex(other))
    assert set(unmatched(proto, found)) <= {node}
    first = [d for d in found.differences if index.nodes[d.node].output[0] == node and (d.kind, d.name) == (kind, slot)]
    if "n_" in words and names == "renamed":
        words = words.split(" ")[0]
    assert any(words in d.detail for d in first), found.differences
    elsewhere = {index.nodes[d.node].output[0] for d in found.differences} - {node}
    # a weight that several nodes read differs in all of them
    assert elsewhere <= {"scaled2", "looped"}


def test_two_faults_leave_what_lies_between_them() -> None:
    proto = networks.transformer()
    other = renamed(to_op("gelu1.erf", "Tanh")(to_op("first_norm1.root", "Exp")(proto)))
    found = match(GraphIndex(proto), GraphIndex(other))
    assert not unmatched(proto, found)
    assert {d.detail.split(" against ")[0].split()[0] for d in found.differences} == {"Erf", "Sqrt"}


def test_a_wrong_weight_under_a_fold_is_found_with_its_index() -> None:
    proto = networks.residual()
    other = folded(proto)
    weights = weights_of(other)["b2.w"].copy()
    weights[3, 1, 2, 0] += 0.25
    found = match(GraphIndex(proto), GraphIndex(with_nodes(other, list(other.graph.node), {"b2.w": weights})))
    (difference,) = found.differences
    assert difference.kind == "weights"
    assert "1 of 576 weights differ from the reference's after folding, greatest 0.25 at [3,1,2,0]" in difference.detail


def test_the_output_of_a_fold_is_that_of_the_last_node_that_was_multiplied_in() -> None:
    proto = networks.residual()
    other = renamed(folded(proto))
    found = match(GraphIndex(proto), GraphIndex(other))
    conv = next(n for n in other.graph.node if n.op_type == "Conv")
    assert found.tensors["stem_bn"] == conv.output[0]
    assert "stem" not in found.tensors
    assert found.differences == ()


def test_what_was_rewritten_between_matched_tensors_is_told_with_the_operators_of_both() -> None:
    proto = networks.transformer()
    found = match(GraphIndex(proto), GraphIndex(chunked(proto)))
    assert len(found.differences) > 1
    for difference in found.differences:
        assert isinstance(difference.change, OperatorChange)
        assert [op for op, _ in difference.change.reference] == ["MatMul"]
        assert [op for op, _ in difference.change.candidate] == ["Slice", "MatMul", "Slice", "MatMul", "Add"]
        assert proto.graph.node[difference.node].output[0] in found.tensors


def test_float16_weights_are_expected_of_a_float16_file() -> None:
    proto = networks.residual()
    found = match(GraphIndex(proto), GraphIndex(half(proto)))
    assert {d.expected_by_format for d in found.differences} == {"fp16"}
    assert all("rounded to FP16" in d.detail for d in found.differences)


@pytest.mark.parametrize(("zero", "missing"), [(0, False), (128, True)])
def test_a_relu_that_a_quantizer_does_is_not_missing(zero, missing):
    """A range that begins at zero cuts negative values off; quantizers leave the Relu before it out."""
    float_file = parsed(
        "g (float[4,8] x) => (float[4,8] y) { [one] a = MatMul(x, w) [act] r = Relu(a) [two] y = MatMul(r, w) }",
        w=np.eye(8, dtype=np.float32),
    )
    quantized = parsed(
        """g (float[4,8] x) => (float[4,8] y) {
            [one] a = MatMul(x, w) [q] i = QuantizeLinear(a, s, z) [dq] r = DequantizeLinear(i, s, z)
            [two] y = MatMul(r, w)
        }""",
        w=np.eye(8, dtype=np.float32),
        s=np.float32(0.02),
        z=np.array(zero, np.uint8),
    )
    found = match(GraphIndex(float_file), GraphIndex(quantized)).differences
    assert [str(d.change) for d in found if "missing" in str(d.change)] == (
        ["Relu act is missing in the candidate"] * missing
    )
