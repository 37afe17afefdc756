"""Layer by layer, as a specification: what breaks a naive version, on small networks, through the public API."""

from __future__ import annotations

import json
import sys
import tempfile

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, RunnerError
from layerdiff.compare.report.json import to_json
from onnx import helper, numpy_helper

from support import networks
from support.edits import edited, node, scaled
from support.layerwise import (
    BF16,
    FLOAT,
    FP16,
    INT8,
    LOOSE,
    NETWORKS,
    ORT,
    compare,
    data_of,
    mentions,
    only,
    two_products,
    verdicts,
)
from support.models import normal, parsed
from support.paths import DIGITS
from support.runners import Off

CHEAP = {"count", "max_abs", "rmse", "rel_l2", "snr_db", "cosine", "bias", "nan", "inf"}
CAUSES = {
    "overflow", "underflow", "saturation", "nan", "layout", "scale", "attribute", "weights", "wrong-op",
    "narrow-accumulator", "cancellation", "quantization", "bias", "amplified", "spread", "unknown",
}  # fmt: skip


# ---- healthy pairs: nobody is accused -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "candidate",
    [
        OnnxrtRunner(threads=1, optimization="disable"),
        *(EmulateRunner(format=f, threads=1) for f in ("fp16", "bf16", "tf32", "fp8", "e5m2", "int8")),
    ],
    ids=lambda runner: runner.name,
)
def test_a_healthy_pair_has_no_culprit(name, candidate):
    report = compare(NETWORKS[name](), candidate, data_of(name), **LOOSE)
    assert report.culprits == ()
    assert set(verdicts(report).values()) == {"ok"}
    assert report.layers


@pytest.mark.parametrize("name", ["residual", "transformer"])
def test_every_node_rounded_is_noise_too(name):
    report = compare(NETWORKS[name](), EmulateRunner(format="fp16", every_node=True, threads=1), data_of(name))
    assert report.culprits == ()


# ---- cuts and pieces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [None, 1 << 16, 1 << 13])
def test_a_transformer_with_few_single_tensor_cuts_is_cut_where_several_tensors_are_live(memory):
    model = networks.transformer()
    report = compare(model, edited(model, scaled("down1.w", 1.01)), data_of("transformer"), memory=memory)
    culprit = only(report)
    assert (culprit.node, culprit.op, culprit.cause) == ("n_down1.m", "MatMul", "weights")
    assert culprit.contribution == pytest.approx(1, abs=1e-3)
    pieces = {layer.piece for layer in report.layers}
    assert pieces == set(range(len(pieces)))


def test_a_piece_that_cannot_be_smaller_is_said_to_be():
    report = compare(networks.transformer(), ORT, data_of("transformer"), memory=1 << 15)
    assert len({layer.piece for layer in report.layers}) > 5
    assert mentions(report, "--memory, 32,768 bytes, is less than the largest layer needs: ", "more of")


def test_the_default_memory_is_nobodys_wish_and_only_what_the_machine_lacks_is_told(monkeypatch):
    prepare, notices = (sys.modules[f"layerdiff.compare.layers.{name}"] for name in ("prepare", "notices"))
    monkeypatch.setattr(prepare, "budget", lambda asked, usual=0: 1 << 15)
    report = compare(networks.transformer(), ORT, data_of("transformer"))
    assert len({layer.piece for layer in report.layers}) > 5
    assert not mentions(report, "than the largest layer needs")
    monkeypatch.setattr(notices, "free_memory", lambda: 1 << 15)
    report = compare(networks.transformer(), ORT, data_of("transformer"))
    assert mentions(report, "The free memory, 32,768 bytes, is less than the largest layer needs: ")


@pytest.mark.parametrize(
    ("name", "memory"),
    [("residual", 1 << 20), ("transformer", 1 << 17), ("recurrent", 1 << 15), ("unet", 1 << 20), ("dense", 1 << 20),
     ("control", 1 << 11)],
)  # fmt: skip
@pytest.mark.parametrize("candidate", [FP16, OnnxrtRunner(threads=1, optimization="disable")], ids=["fp16", "fp32"])
def test_many_pieces_give_the_local_errors_of_one_piece_exactly(name, memory, candidate):
    model, data = NETWORKS[name](), data_of(name)
    one = compare(model, candidate, data, memory=1 << 30)
    many = compare(model, candidate, data, memory=memory)
    assert len({layer.piece for layer in one.layers}) == 1 < len({layer.piece for layer in many.layers})
    assert {layer.tensor: layer.local for layer in many.layers} == {layer.tensor: layer.local for layer in one.layers}
    assert verdicts(many) == verdicts(one)


def test_tensors_beyond_the_memory_are_kept_on_disk_and_forgotten_after(monkeypatch, tmp_path):
    folders, made = [], tempfile.TemporaryDirectory
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **more: folders.append(made(**more)) or folders[-1])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model, data = networks.residual(), data_of("residual", 40)
    wrong = edited(model, scaled("b1.w", 1.01))
    little, plenty = compare(model, wrong, data, memory=1 << 19), compare(model, wrong, data)
    assert folders
    assert list(tmp_path.iterdir()) == []
    assert only(little).node == only(plenty).node == "n_b1"
    assert {layer.tensor: layer.local for layer in little.layers} == {
        layer.tensor: layer.local for layer in plenty.layers
    }


# ---- fused groups ---------------------------------------------------------------------------------------------------


def test_a_convolution_is_not_cut_from_its_batch_normalization():
    report = compare(networks.residual(), FP16, data_of("residual"))
    stem = report.layers[0]
    assert (stem.tensor, stem.node, stem.op) == ("stem_relu", "n_stem", "Conv")
    assert stem.nodes == ("n_stem", "n_stem_bn", "n_stem_relu")
    residual = next(layer for layer in report.layers if layer.tensor == "out1")
    assert (residual.node, residual.nodes) == ("n_b1", ("n_b1", "n_b1_bn", "n_sum1", "n_out1"))


def test_within_a_group_fp32_runtimes_have_the_very_node_named():
    model = networks.residual()

    def epsilon(graph):
        node(graph, "n_b1_bn").attribute[0].f = 1e-2

    culprit = only(compare(model, edited(model, epsilon), data_of("residual")))
    assert (culprit.node, culprit.op, culprit.cause) == ("n_b1_bn", "BatchNormalization", "attribute")
    assert "1e-05 against 0.01" in culprit.evidence


def test_all_layers_are_single_nodes_and_guilty_ones_fused_groups():
    model, data = networks.residual(), data_of("residual")
    groups, nodes = compare(model, FP16, data), compare(model, FP16, data, layers="all")
    assert {layer.tensor for layer in groups.layers} < {layer.tensor for layer in nodes.layers}
    assert {layer.tensor for layer in nodes.layers} == {o for n in model.graph.node for o in n.output}
    assert all(len(layer.nodes) == 1 for layer in nodes.layers)
    assert {n for layer in groups.layers for n in layer.nodes} == {n.name for n in model.graph.node}


# ---- what is never a border -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer", "unet", "recurrent"])
@pytest.mark.parametrize("layers", ["guilty", "all"])
def test_shape_arithmetic_integers_and_constants_are_no_layers(name, layers):
    model = NETWORKS[name]()
    report = compare(model, FP16, data_of(name), layers=layers, memory=1 << 16)
    types = {i.name: i.type.tensor_type.elem_type for i in onnx.shape_inference.infer_shapes(model).graph.value_info}
    types |= {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    assert {types[layer.tensor] for layer in report.layers} == {FLOAT}
    assert not {layer.op for layer in report.layers} & {"Shape", "Constant"}


# ---- If, Loop, Scan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "inner"),
    [("n_chosen", "MatMul_0"), ("n_looped", "Mul_0"), ("n_rows", "Mul_1")],
    ids=["If", "Loop", "Scan"],
)
@pytest.mark.parametrize("memory", [None, 1 << 12])
def test_a_fault_inside_a_body_is_that_of_a_node_in_it(fault, inner, memory):
    """The bodies read tensors, weights and constants that their nodes do not list."""
    model = networks.control()

    def edit(graph):
        for attribute in node(graph, fault).attribute:
            for inner in attribute.g.node:
                inner.op_type = {"Mul": "Sub", "MatMul": "Add", "Relu": "Neg"}.get(inner.op_type, inner.op_type)

    culprit = only(compare(model, edited(model, edit), data_of("control"), memory=memory))
    assert (culprit.node, culprit.op, culprit.cause) == (inner, inner[:-2], "wrong-op")
    assert [enclosing.node for enclosing in culprit.inside] == [fault]


def test_a_captured_tensor_that_is_wrong_is_blamed_on_who_makes_it():
    model = networks.control()
    report = compare(model, edited(model, scaled("first.w", 1.01)), data_of("control"))
    assert only(report).node == "n_first.m"
    assert verdicts(report)["looped"] == "inherited"


# ---- sequences ------------------------------------------------------------------------------------------------------


def sequences() -> onnx.ModelProto:
    w = networks.Writer(1)
    w.node("SplitToSequence", [w.linear("x", "first", (16, 16))], "rows", axis=0)
    w.node("SequenceAt", ["rows", w.value("one", 1, np.int64)], "row")
    w.node("SequenceInsert", ["rows", "row"], "longer")
    w.linear(w.node("ConcatFromSequence", ["longer"], "joined", axis=0), "y", (16, 8))
    return w.model({"x": (FLOAT, [4, 16])}, ["y"])


@pytest.mark.parametrize("layers", ["guilty", "all"])
@pytest.mark.parametrize("fault", ["first", "y"])
def test_sequences_are_no_layers_and_hide_no_fault(layers, fault):
    model, data = sequences(), [{"x": normal(4, 16, seed=i)} for i in range(2)]
    report = compare(model, edited(model, scaled(f"{fault}.w", 1.01)), data, layers=layers, memory=1 << 12)
    assert only(report).node == f"n_{fault}.m"
    assert not {"rows", "longer"} & set(verdicts(report))
    assert verdicts(report)["joined"] == ("inherited" if fault == "first" else "ok")


# ---- random operators -----------------------------------------------------------------------------------------------


def noisy(op: str) -> onnx.ModelProto:
    w = networks.Writer(1)
    x = w.linear("x", "first", (16, 16))
    drawn = w.node(op, [w.node("Sigmoid", [x], "chance")], "drawn")
    w.linear(w.node("Mul", [x, drawn], "dropped"), "y", (16, 8))
    return w.model({"x": (FLOAT, [64, 16])}, ["y"], opset=15)


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_behind_a_random_operator_the_candidate_gets_the_references_draw(op):
    model, data = noisy(op), [{"x": normal(64, 16, seed=i)} for i in range(2)]
    report = compare(model, FP16, data)
    assert report.culprits == ()
    found = verdicts(report)
    assert found.pop("drawn") == "unknown"
    assert set(found.values()) == {"ok"}
    assert mentions(report, "n_drawn draws random values")


def test_the_node_that_draws_is_told_where_its_layer_is_another_ones():
    """The second file draws otherwise, so that the layer is that of what reads the values."""
    mine, theirs = (
        parsed(
            f"g (float[8,16] x) => (float[8,4] y) {{ {drawing} [product] p = MatMul(s, w) [end] y = Relu(p) }}",
            w=normal(16, 4), k=np.float32(0.5), l=np.float32(-0.5),
        )
        for drawing in (
            "[draw] r = RandomNormalLike(x) [gain] s = Mul(r, k)",
            "[draw2] u = RandomUniformLike(x) [less] v = Add(u, l) [turn] t = Sin(v) [gain2] s = Tanh(t)",
        )
    )  # fmt: skip
    report = compare(mine, theirs, [{"x": normal(8, 16)}])
    assert mentions(report, "draw draws random values")


def test_a_fault_behind_a_random_operator_is_found():
    model, data = noisy("Bernoulli"), [{"x": normal(64, 16)}]
    assert only(compare(model, edited(model, scaled("y.w", 1.01)), data)).node == "n_y.m"


# ---- data-dependent shapes ------------------------------------------------------------------------------------------


def nonzero(level: float) -> onnx.ModelProto:
    w = networks.Writer(1)
    x = w.linear("x", "first", (16, 16))
    w.node("NonZero", [w.node("Greater", [x, w.value("level", level)], "large")], "places")
    w.node("Mul", [w.node("GatherND", [x, w.node("Transpose", ["places"], "rows")], "picked"), w.value("two", 2)], "y")
    return w.model({"x": (FLOAT, [8, 16])}, ["y"])


def boxes(threshold: float) -> onnx.ModelProto:
    w = networks.Writer(2)
    w.node("Sigmoid", [w.linear("x", "b", (8, 4))], "boxes")
    w.node("Transpose", [w.node("Sigmoid", [w.linear("x", "s", (8, 1))], "columns")], "scores", perm=[0, 2, 1])
    limits = [w.value("most", 50, np.int64), w.value("overlap", 0.3), w.value("threshold", threshold)]
    w.node("NonMaxSuppression", ["boxes", "scores", *limits], "kept")
    w.node("Gather", ["kept", w.value("column", 2, np.int64)], "numbers", axis=1)
    w.node("Gather", ["boxes", "numbers"], "y", axis=1)
    return w.model({"x": (FLOAT, [1, 40, 8])}, ["y", "kept"])


@pytest.mark.parametrize(
    ("make", "healthy", "wrong", "feed", "culprit"),
    [
        (nonzero, 0.0, 0.5, {"x": normal(8, 16)}, {"n_large", "n_places"}),
        (boxes, 0.5, 0.2, {"x": normal(1, 40, 8)}, {"n_kept"}),
    ],
    ids=["NonZero", "NonMaxSuppression"],
)
def test_a_differing_shape_is_a_verdict_and_no_crash(make, healthy, wrong, feed, culprit):
    report = compare(make(healthy), make(wrong), [feed])
    assert not report
    assert not any(runner.error for runner in report.runners)
    found = only(report)
    assert found.node in culprit
    assert found.contribution == 1
    assert verdicts(report)["y"] == "inherited"
    json.dumps(to_json(report), allow_nan=False)


def test_equal_data_dependent_shapes_are_compared():
    report = compare(nonzero(0.0), OnnxrtRunner(threads=1, optimization="disable"), [{"x": normal(8, 16)}])
    assert report
    assert set(verdicts(report).values()) == {"ok"}


# ---- what the candidate's format cannot hold ------------------------------------------------------------------------


def too_large() -> onnx.ModelProto:
    """FP32 is unharmed: what one product makes too large for FP16, the next makes small again."""
    w = networks.Writer(3)
    x = w.node("Relu", [w.linear("x", "first", (16, 16))], "relu")
    for name, factor in (("big", 2e4), ("small", 1e-4)):
        w.weight(f"{name}.w", 16, 16)
        w.weights[f"{name}.w"] *= factor
        x = w.node("MatMul", [x, f"{name}.w"], name)
    w.linear(x, "y", (16, 8))
    return w.model({"x": (FLOAT, [8, 16])}, ["y"])


def test_who_makes_what_the_format_cannot_hold_is_blamed_not_who_reads_it():
    report = compare(too_large(), FP16, [{"x": normal(8, 16, scale=10)}])
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("n_big", "overflow")
    assert "65504" in culprit.evidence
    assert verdicts(report) == {"relu": "ok", "big": "culprit", "small": "inherited", "y": "inherited"}


def test_what_only_moves_such_values_is_not_blamed_either():
    model = networks.residual()
    report = compare(edited(model, scaled("b2.w", 1e7)), FP16, data_of("residual"))
    assert (only(report).node, only(report).cause) == ("n_b2", "overflow")
    assert verdicts(report)["flat"] == verdicts(report)["y"] == "inherited"


class EveryNode(EmulateRunner):
    """A runtime that tells that every node is a kernel of its own."""

    def kernels(self, model, deployed):
        return tuple(frozenset({p}) for p in range(len(model.index.nodes)))


def test_a_loss_that_kernels_hand_on_has_one_culprit_where_it_began():
    """Relu and Neg round among the subnormals too, by less than their step: what is behind cannot use their results."""
    w = networks.Writer(3)
    x = w.node("Relu", [w.linear("x", "first", (64, 64))], "relu")
    for name, factor in (("faint", 2e-7), ("strong", 5e4)):
        w.weight(f"{name}.w", 64, 64)
        w.weights[f"{name}.w"] *= factor
        x = w.node("MatMul", [x, f"{name}.w"], name)
        x = w.node("Neg", [w.node("Relu", [x], f"{name}.relu")], f"{name}.neg")
    w.linear(x, "y", (64, 8))
    report = compare(
        w.model({"x": (FLOAT, [64, 64])}, ["y"]), EveryNode(format="fp16", threads=1), [{"x": normal(64, 64)}]
    )
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("n_faint", "underflow")
    assert verdicts(report)["strong"] == "inherited"


@pytest.mark.parametrize(
    ("factors", "guilty"),
    [((2.5e4, 2.5e4), "n_sum"), ((2e6, 2.5e4), "n_left"), ((2.5e4, 2e6), "n_right")],
)
def test_of_two_sides_and_their_sum_that_are_one_kernel_the_one_that_overflows_is_named(factors, guilty):
    w = networks.Writer(3)
    x = w.node("Relu", [w.linear("x", "first", (16, 16))], "relu")
    for name, factor in zip(("left", "right"), factors, strict=True):
        w.weights[f"{name}.w"] = np.full((16, 16), factor / 16, np.float32)
        w.node("MatMul", [x, f"{name}.w"], name)
    x = w.node(
        "Mul", [w.node("Relu", [w.node("Add", ["left", "right"], "sum")], "sum.relu"), w.value("factor", 1e-5)], "less"
    )
    w.linear(x, "y", (16, 8))
    report = compare(w.model({"x": (FLOAT, [8, 16])}, ["y"]), FP16, [{"x": normal(8, 16, scale=3)}])
    assert not report
    assert (only(report).node, only(report).cause) == (guilty, "overflow")


def test_a_wider_range_has_no_overflow():
    assert compare(too_large(), BF16, [{"x": normal(8, 16, scale=10)}]).culprits == ()


def test_an_input_of_the_model_that_is_too_large_has_no_producer_to_blame():
    w = two_products()
    w.weights["first.w"] *= 1e-6
    report = compare(w.model({"x": (FLOAT, [8, 16])}, ["y"]), FP16, [{"x": normal(8, 16, scale=1e6)}])
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("n_first.m", "overflow")
    assert "'x'" in culprit.evidence


def test_the_one_sample_that_overflows_is_enough():
    data = [{"x": normal(8, 16, seed=i, scale=10 if i == 2 else 0.01)} for i in range(4)]
    report = compare(too_large(), FP16, data)
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("n_big", "overflow")
    assert culprit.local["inf"][1] > culprit.local["inf"][0] == 0


# ---- two files ------------------------------------------------------------------------------------------------------


def healing() -> networks.Writer:
    w = networks.Writer(4)
    x = w.node("MatMul", ["x", w.weight("a.w", 16, 16)], "kept_name")
    x = w.node("Softmax", [w.node("MatMul", [x, w.weight("b.w", 16, 16)], "scores")], "shares")
    w.linear(x, "y", (16, 8))
    return w


def test_a_tensor_that_kept_its_name_and_changed_its_meaning_heals():
    model = healing().model({"x": (FLOAT, [8, 16])}, ["y"])
    other = edited(model, scaled("a.w", 2), scaled("b.w", 0.5))
    report = compare(model, other, [{"x": normal(8, 16)}])
    assert report
    assert report.culprits == ()
    assert verdicts(report)["kept_name"] == "healed"
    assert verdicts(report)["y"] == "ok"
    assert mentions(report, "but the next layers agree again")


def test_a_tensor_that_changed_its_meaning_hides_no_fault_behind_it():
    model = healing().model({"x": (FLOAT, [8, 16])}, ["y"])
    other = edited(model, scaled("a.w", 2), scaled("b.w", 0.5), scaled("y.w", 1.01))
    report = compare(model, other, [{"x": normal(8, 16)}])
    assert not report
    assert report.culprits[0].node == "n_y.m"


def normalized(fused: bool) -> onnx.ModelProto:
    w = networks.Writer(1)
    x = w.linear("x", "first", (16, 32))
    w.layer_norm(x, "norm", 32)
    if fused:
        w.nodes = w.nodes[:2]
        w.node("LayerNormalization", [x, "norm.gamma", "norm.beta"], "norm", epsilon=1e-5)
    w.linear("norm", "y", (32, 8))
    return w.model({"x": (FLOAT, [8, 16])}, ["y"], opset=17)


def test_tensors_without_a_counterpart_are_counted_and_compared_at_the_borders_around_them():
    report = compare(normalized(False), normalized(True), [{"x": normal(8, 16)}], layers="all")
    assert report
    unmatched = [layer for layer in report.layers if layer.verdict == "unmatched"]
    assert {layer.tensor for layer in unmatched} == {
        f"norm.{part}" for part in ("mean", "centred", "square", "variance", "shifted", "root", "unit", "scaled")
    }
    assert all(layer.local is None and layer.cumulative is None for layer in unmatched)
    assert mentions(report, "8 tensors of the reference ('norm.", "and 5 more) have no counterpart")
    assert verdicts(report)["norm"] == "ok"


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_identities_and_transposes_in_between_are_no_fault_and_hide_none(factor):
    model = networks.residual()

    def insert(graph):
        nodes = list(graph.node)
        del graph.node[:]
        for original in nodes:
            if original.op_type == "Conv":
                name = original.name
                there, same, back = f"{name}/there", f"{name}/same", f"{name}/back"
                graph.node.append(helper.make_node("Transpose", [original.input[0]], [there], there, perm=[0, 2, 3, 1]))
                graph.node.append(helper.make_node("Identity", [there], [same], same))
                graph.node.append(helper.make_node("Transpose", [same], [back], back, perm=[0, 3, 1, 2]))
                original.input[0] = back
            graph.node.append(original)

    report = compare(model, edited(model, insert, scaled("b2.w", factor)), data_of("residual"))
    if factor == 1:
        assert report
        assert report.culprits == ()
    else:
        assert (only(report).node, only(report).cause) == ("n_b2", "weights")


def test_a_renamed_candidate_gives_its_name_beside_the_references():
    model = networks.residual()

    def rename(graph):
        for each in graph.node:
            each.name = f"other/{each.name}"
            each.output[:] = [o if o == "y" else f"other/{o}" for o in each.output]
            each.input[:] = [f"other/{i}" if any(i == o for n in model.graph.node for o in n.output) else i
                             for i in each.input]  # fmt: skip

    report = compare(model, edited(model, rename, scaled("b2.w", 1.01)), data_of("residual"))
    culprit = only(report)
    assert (culprit.node, culprit.candidate_node) == ("n_b2", "other/n_b2")
    assert to_json(report)["culprits"][0]["candidate_node"] == "other/n_b2"


# ---- operators that nobody knows ------------------------------------------------------------------------------------


def custom() -> onnx.ModelProto:
    """A product, an operator of a domain of its own, a product."""
    w = networks.Writer(1)
    x = w.linear("x", "first", (16, 16))
    w.nodes.append(helper.make_node("Wobble", [x], ["wobble"], name="n_wobble", domain="my.domain"))
    w.linear("wobble", "y", (16, 8))
    body = [
        helper.make_node("Constant", [], ["gain"], value_float=1.0),
        helper.make_node("Sin", ["u"], ["s"]),
        helper.make_node("Mul", ["s", "gain"], ["v"]),
    ]
    function = helper.make_function("my.domain", "Wobble", ["u"], ["v"], body, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(
        w.nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [8, 16])],
        [helper.make_tensor_value_info("y", FLOAT, [8, 8])],
        [numpy_helper.from_array(v, n) for n, v in w.weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[function])


def test_an_unknown_operator_has_no_expected_noise_and_is_said_to_have_none():
    report = compare(custom(), Off(threads=1, node="n_wobble", factor=1 + 1e-6), [{"x": normal(8, 16)}])
    assert report.culprits == ()
    layer = next(layer for layer in report.layers if layer.tensor == "wobble")
    assert (layer.verdict, layer.expected, layer.op) == ("unknown", None, "Wobble")
    assert layer.local["rel_l2"] > 0
    assert mentions(report, "expected noise", "unknown", "n_wobble")


def test_an_unknown_operator_that_explains_a_failure_is_named_without_a_cause():
    culprit = only(compare(custom(), Off(threads=1, node="n_wobble", factor=1.5), [{"x": normal(8, 16)}]))
    assert (culprit.node, culprit.cause) == ("n_wobble", "unknown")
    assert "expected noise is unknown" in culprit.evidence
    assert culprit.contribution == pytest.approx(1)


def test_a_fault_beside_an_unknown_operator_is_found():
    model = custom()
    assert only(compare(model, edited(model, scaled("first.w", 1.01)), [{"x": normal(8, 16)}])).node == "n_first.m"


# ---- candidates that fail -------------------------------------------------------------------------------------------


def test_a_layer_that_the_candidate_cannot_open_alone_is_not_compared_and_hides_no_other():
    runner = Off(threads=1, refuses="n_attention1", node="n_down2.m", factor=1.01)
    report = compare(networks.transformer(), runner, data_of("transformer"))
    assert only(report).node == "n_down2.m"
    assert mentions(report, "n_attention1 was not compared", "cannot open it by itself", "no kernel for Softmax")
    (closed,) = (layer for layer in report.layers if layer.local is None)
    assert (closed.node, closed.verdict, closed.cause) == ("n_attention1", "unknown", None)


def test_a_layer_that_does_not_take_the_references_values_is_named_and_hides_no_other():
    runner = Off(threads=1, refuses="n_attention1", late=True, node="n_down2.m", factor=1.01)
    report = compare(networks.transformer(), runner, data_of("transformer"))
    assert [(c.node, c.cause) for c in report.culprits][1:] == [("n_attention1", "wrong-op")]
    assert "cannot run it on the reference's values: off: no kernel for Softmax" in report.culprits[1].evidence
    assert report.culprits[1].local is None
    assert sum(layer.local is None for layer in report.layers) == 1


def test_a_candidate_that_refuses_all_layers_has_failed(function_runner):
    def fails(feed):
        raise RunnerError("no")

    w = two_products()
    report = compare(w.model({"x": (FLOAT, [8, 16])}, ["y"]), function_runner(function=fails), [{"x": normal(8, 16)}])
    assert report.verdict == "error"
    assert all("cannot run it on the reference's values: no" in culprit.evidence for culprit in report.culprits)


def test_layers_of_one_candidate_are_not_mixed_with_anothers():
    runners = [ORT, FP16, Off(threads=1, node="n_b2", factor=1.01)]
    report = Comparator(networks.residual(), runners, data_loader=data_of("residual"), layers="guilty").compare()
    assert [(c.candidate, c.node) for c in report.culprits] == [("off", "n_b2")]
    assert {layer.candidate for layer in report.layers} == {"emulate:fp16", "off"}


# ---- contribution ---------------------------------------------------------------------------------------------------


def test_one_fault_explains_the_whole_error():
    model = networks.residual()
    culprit = only(compare(model, edited(model, scaled("a1.w", 1.02)), data_of("residual")))
    assert culprit.contribution == pytest.approx(1, abs=1e-3)


def test_of_two_faults_each_explains_its_part_and_the_greater_comes_first():
    model, data = networks.residual(), data_of("residual")
    edits = {"n_a1": scaled("a1.w", 1.02), "n_b2": scaled("b2.w", 1.02)}
    both = compare(model, edited(model, *edits.values()), data)
    assert {c.node for c in both.culprits} == set(edits)
    shares = [c.contribution for c in both.culprits]
    assert shares == sorted(shares, reverse=True)
    # what each one does alone, over what both do together: measured again, from the outside
    whole = both.outputs[0].metrics["rel_l2"]
    for culprit in both.culprits:
        alone = compare(model, edited(model, edits[culprit.node]), data).outputs[0].metrics["rel_l2"]
        assert culprit.contribution == pytest.approx(alone / whole, rel=0.25)


# ---- rounding that breaks a tolerance -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "transformer", "unet"])
def test_healthy_noise_that_breaks_a_tight_tolerance_is_spread(name):
    report = compare(NETWORKS[name](), FP16, data_of(name), rtol=1e-5, atol=1e-6)
    assert not report
    assert {c.cause for c in report.culprits} == {"spread"}
    assert len(report.culprits) == 1
    assert "no layer is beyond rounding" in report.culprits[0].evidence


def test_a_layer_whose_inputs_cancel_is_named_though_its_noise_is_expected():
    w = networks.Writer(5)
    x = w.node("Add", [w.linear("x", "first", (32, 32)), w.value("up", np.full(32, 300.0))], "shifted")
    x = w.node("Sub", [w.node("MatMul", [x, w.value("eye", np.eye(32))], "same"), "up"], "back")
    w.linear(x, "y", (32, 8))
    report = compare(w.model({"x": (FLOAT, [16, 32])}, ["y"]), FP16, [{"x": normal(16, 32)}])
    assert not report
    culprit = only(report)
    assert culprit.cause == "cancellation"
    assert culprit.node in ("n_shifted", "n_same", "n_first.m")
    assert culprit.contribution > 0.7
    assert "raise the precision" in culprit.evidence


# ---- culprits and the verdict ---------------------------------------------------------------------------------------


def test_culprits_alone_do_not_fail_a_run_whose_outputs_agree():
    model = networks.residual()
    report = compare(model, edited(model, scaled("a1.w", 1.0005)), data_of("residual"), rtol=1e-2, atol=1e-2)
    assert (report.verdict, report.exit_status) == ("pass", 0)
    assert only(report).node == "n_a1"
    assert mentions(report, "the outputs agree", "n_a1")


def test_without_layers_nothing_is_localized():
    model = networks.residual()
    report = compare(model, edited(model, scaled("a1.w", 1.02)), data_of("residual"), layers=None)
    assert not report
    assert (report.layers, report.culprits) == ((), ())


def test_where_both_sides_give_nan_the_layer_that_makes_the_first_is_named():
    w = networks.Writer(5)
    w.linear(w.node("Log", [w.linear("x", "first", (16, 16))], "log"), "y", (16, 16))
    report = compare(w.model({"x": (FLOAT, [8, 16])}, ["y"]), FP16, [{"x": normal(8, 16)}])
    assert not report
    assert (only(report).node, only(report).cause) == ("n_log", "nan")
    assert "in the reference itself" in only(report).evidence


# ---- types and shapes at the edge -----------------------------------------------------------------------------------


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    def edit(graph):
        for weight in graph.initializer:
            value = numpy_helper.to_array(weight).astype(np.float64)
            weight.CopyFrom(numpy_helper.from_array(value, weight.name))
        for info in (*graph.input, *graph.output):
            info.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    return edited(model, edit)


@pytest.mark.parametrize(("factor", "found"), [(1, []), (1 + 1e-9, ["n_first.m"])])
def test_fp64_layers_are_held_against_the_roundings_of_fp64(factor, found):
    model = in_double(two_products().model({"x": (FLOAT, [8, 16])}, ["y"]))
    data = [{"x": normal(8, 16).astype(np.float64)}]
    report = compare(model, edited(model, scaled("first.w", factor)), data)
    assert [(c.node, c.cause) for c in report.culprits] == [(node, "weights") for node in found]


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("layers", ["guilty", "all"])
def test_empty_tensors_scalars_and_passed_inputs_are_layers_like_others(rows, layers):
    w = networks.Writer(2)
    x = w.linear("x", "first", (4, 4))
    w.node("Tanh", [w.node("ReduceSum", [x], "sum", keepdims=0)], "y")
    w.node("Identity", ["x"], "same")
    w.node("Sin", [x], "unread")
    report = compare(w.model({"x": (FLOAT, ["N", 4])}, ["y", "same"]), FP16, [{"x": normal(rows, 4)}], layers=layers)
    assert report.verdict == ("pass" if rows else "undecided")
    assert report.culprits == ()
    assert verdicts(report)["y"] == "ok"


def test_a_mask_of_minus_infinity_is_no_culprit():
    w = networks.Writer(4)
    x = w.linear("x", "first", (16, 16))
    scores = w.node("MatMul", [x, w.node("Transpose", [x], "turned", perm=[1, 0])], "scores")
    mask = w.value("mask", np.triu(np.full((8, 8), -np.inf), 1))
    w.node("MatMul", [w.node("Softmax", [w.node("Add", [scores, mask], "masked")], "shares"), x], "y")
    model = w.model({"x": (FLOAT, [8, 16])}, ["y"])
    for candidate in (FP16, BF16, INT8, OnnxrtRunner(threads=1, optimization="disable")):
        report = compare(model, candidate, [{"x": normal(8, 16)}], layers="all", **LOOSE)
        assert report.culprits == ()


# ---- float64 as the arbiter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_is_reference", [False, True])
def test_between_two_fp32_runtimes_float64_says_which_is_off(off_is_reference):
    off = Off(threads=1, node="n_attention1", factor=1.001)
    report = Comparator(
        networks.transformer(),
        [off, ORT],
        reference="off" if off_is_reference else "onnxrt",
        data_loader=data_of("transformer"),
        layers="guilty",
    ).compare()
    culprit = only(report)
    assert culprit.node == "n_attention1"
    who = "reference" if off_is_reference else "candidate"
    assert f"float64 says the {who} is off" in culprit.evidence
    assert f"1.0e-03 in the {who}" in culprit.evidence


def test_a_gain_of_three_hundredths_of_a_percent_is_found():
    culprit = only(
        compare(networks.transformer(), Off(threads=1, node="n_up1.m", factor=1.0003), data_of("transformer"))
    )
    assert (culprit.node, culprit.cause) == ("n_up1.m", "scale")
    assert "1.0003 x reference" in culprit.evidence


# ---- TensorFlow as the reference ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tensorflow():
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf2onnx")
    from layerdiff import TfRunner

    images = np.load(DIGITS / "heldout.npz")["image"]
    return TfRunner(), [{"image": images[:8]}, {"image": images[8:16]}]


@pytest.mark.tf
@pytest.mark.parametrize("layers", ["guilty", "all"])
def test_tensorflow_that_opens_no_pieces_is_fetched_from_and_has_no_false_culprit(tensorflow, layers):
    runner, data = tensorflow
    report = Comparator(str(DIGITS / "digits.pb"), [runner, ORT, FP16], data_loader=data, layers=layers).compare()
    assert report
    assert report.reference == "tf"
    assert report.culprits == ()
    assert set(verdicts(report).values()) <= {"ok", "unmatched"}
    assert sum(layer.local is not None for layer in report.layers) >= 20


@pytest.mark.tf
@pytest.mark.parametrize(
    ("weight", "culprit"),
    [
        ("widen_conv/convolution/merged_input:0", "Conv__4"),
        ("logits/Cast/ReadVariableOp:0", "logits/MatMul"),
    ],
)
def test_a_fault_in_the_file_beside_tensorflow_is_found_with_its_contribution(tensorflow, weight, culprit):
    runner, data = tensorflow
    wrong = edited(onnx.load(DIGITS / "digits.onnx"), scaled(weight, 1.01))
    pair = [runner, ORT]
    report = Comparator(
        str(DIGITS / "digits.pb"), pair, candidate_model=wrong, data_loader=data, layers="guilty"
    ).compare()
    found = only(report)
    assert (found.node, found.cause) == (culprit, "weights")
    assert found.contribution == pytest.approx(1, abs=0.02)


# ---- the JSON contract ----------------------------------------------------------------------------------------------

NUMBER = (int, float)
LAYER = {
    "candidate": str, "tensor": str, "node": str, "nodes": list, "op": str, "index": int, "piece": int,
    "local": (dict, type(None)), "cumulative": (dict, type(None)), "expected": (dict, type(None)),
    "contribution": (*NUMBER, type(None)), "verdict": str, "cause": (str, type(None)),
}  # fmt: skip
CULPRIT = {
    "candidate": str, "node": str, "op": str, "tensors": list, "cause": str, "local": (dict, type(None)),
    "contribution": (*NUMBER, type(None)), "evidence": str,
}  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: compare(networks.residual(), FP16, data_of("residual")),
        lambda: compare(too_large(), FP16, [{"x": normal(8, 16, scale=10)}]),
        lambda: compare(nonzero(0.0), nonzero(0.5), [{"x": normal(8, 16)}]),
        lambda: compare(normalized(False), normalized(True), [{"x": normal(8, 16)}], layers="all"),
        lambda: compare(noisy("Bernoulli"), FP16, [{"x": normal(64, 16)}]),
        lambda: compare(networks.transformer(), Off(threads=1, refuses="n_attention1"), data_of("transformer")),
    ],
    ids=["healthy", "overflow", "shape", "unmatched", "random", "refused"],
)
def test_the_json_report_keeps_its_contract(make):
    report = json.loads(json.dumps(to_json(make()), allow_nan=False))
    assert report["layers"]
    for layer in report["layers"]:
        assert set(layer) - {"candidate_node", "inputs", "origin", "portrait"} == set(LAYER)
        assert all(isinstance(layer[key], kind) for key, kind in LAYER.items())
        assert layer["verdict"] in {"ok", "culprit", "inherited", "healed", "unmatched", "unknown"}
        assert layer["node"] in layer["nodes"] or layer["verdict"] == "unmatched"
        assert all(metrics is None or set(metrics) >= CHEAP for metrics in (layer["local"], layer["cumulative"]))
        assert layer["expected"] is None or set(layer["expected"]) == {"rms_z", "gain_sigma", "bound_use"}
        assert layer["cause"] is None or layer["cause"] in CAUSES
    for culprit in report["culprits"]:
        assert set(culprit) - {"candidate_node", "remedies"} == set(CULPRIT)
        assert all(isinstance(culprit[key], kind) for key, kind in CULPRIT.items())
        assert culprit["cause"] in CAUSES
        assert culprit["evidence"]
        assert culprit["tensors"]
        assert culprit["local"] is None or set(culprit["local"]) > CHEAP
    indexes = [layer["index"] for layer in report["layers"] if layer["verdict"] != "unmatched"]
    assert indexes == sorted(indexes)


def test_a_culprit_has_all_metrics_and_a_layer_may_have_the_cheap_ones():
    model = networks.residual()
    report = to_json(compare(model, edited(model, scaled("b2.w", 1.01)), data_of("residual")))
    assert set(report["culprits"][0]["local"]) >= set(report["outputs"][0]["metrics"]) - {"mismatched"}


def test_metrics_count_every_element_of_every_sample():
    report = compare(networks.residual(), FP16, data_of("residual", 3))
    stem = report.layers[0]
    assert stem.local["count"] == stem.cumulative["count"] == 3 * 2 * 8 * 16 * 16


def test_the_first_layer_has_no_inherited_error():
    first, second, *_ = compare(networks.residual(), FP16, data_of("residual")).layers
    assert first.local == first.cumulative
    assert second.cumulative["rel_l2"] > second.local["rel_l2"] > 0


def test_only_floating_tensors_have_expected_noise():
    layers = compare(boxes(0.5), FP16, [{"x": normal(1, 40, 8)}], layers="all", **LOOSE).layers
    kept = next(layer for layer in layers if layer.tensor == "kept")
    assert kept.op == "NonMaxSuppression"
    assert (kept.verdict, kept.expected) == ("ok", None)
    assert all(layer.expected for layer in layers if layer.op == "MatMul")
