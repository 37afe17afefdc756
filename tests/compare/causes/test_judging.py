"""What makes a layer guilty, and which of its outputs: the hard bound, types in the graph, weights that repeat."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare.report.json import to_json
from layerdiff.compare.report.terminal.show import show
from layerdiff.graph.model import Model
from layerdiff.graph.rounding.typed import typed
from onnx import helper, numpy_helper

from support import networks
from support.edits import edited, node, scaled
from support.layerwise import BF16, FLOAT, FP16, LOOSE, ORT, compare, data_of, mentions, only, verdicts
from support.models import normal
from support.runners import Off, spliced

# ---- the hard bound -------------------------------------------------------------------------------------------------


def by_node(report) -> dict[str, object]:
    return {layer.node: layer for layer in report.layers}


def test_judged_layers_say_how_much_of_the_hard_bound_they_use():
    report = compare(networks.residual(), FP16, data_of("residual"))
    uses = {layer.op: layer.expected["bound_use"] for layer in report.layers if layer.expected}
    assert set(uses) >= {"Conv", "Gemm"}
    assert all(0 < use <= 1 for use in uses.values())


def test_layers_that_plain_rounding_explains_are_not_held_against_it():
    model = networks.residual()
    layers = by_node(compare(model, edited(model, scaled("b2.w", 1.01)), data_of("residual")))
    assert layers["n_b2"].expected["bound_use"] > 100
    assert layers["n_a1"].expected is None or layers["n_a1"].expected["bound_use"] is None


@dataclass(frozen=True)
class OneOff(OnnxrtRunner):
    """ONNX Runtime in which one element of one node's result is another number."""

    node: str = ""
    place: tuple[int, ...] = (0,)
    by: float = 0.0
    output: int = 0
    exact: bool = True

    @property
    def name(self) -> str:
        return "one-off"

    @property
    def adds_exactly(self) -> bool:
        return self.exact

    def open(self, model, *, fetch=(), workload=None, progress=None):
        def one_off(graph: onnx.GraphProto, raw: str, made: str) -> list[onnx.NodeProto]:
            at, old, by, new = (f"{made}/{what}" for what in ("at", "old", "by", "new"))
            for name, value in ((at, np.array([self.place])), (by, np.array([self.by], np.float32))):
                graph.initializer.append(numpy_helper.from_array(value, name))
            return [
                helper.make_node("GatherND", [raw, at], [old], old),
                helper.make_node("Add", [old, by], [new], new),
                helper.make_node("ScatterND", [raw, at, new], [made], f"{made}/off"),
            ]

        proto = spliced(model.proto, self.node, one_off, self.output)
        return super().open(model.derive(proto), fetch=fetch, workload=workload, progress=progress)


@pytest.mark.parametrize(("node", "tensor"), [("n_stem", "stem_relu"), ("n_y", "y")])
def test_one_element_that_no_rounding_explains_is_a_wrong_operator(node, tensor):
    model = networks.residual()
    place = (1, 3, 5, 6) if node == "n_stem" else (1, 2)
    report = compare(model, OneOff(threads=1, node=node, place=place, by=0.5), data_of("residual"), layers="all")
    culprit = only(report)
    assert (culprit.node, culprit.cause) == (node, "wrong-op")
    assert "no rounding does this" in culprit.evidence
    assert f"[{', '.join(map(str, place))}]" in culprit.evidence
    assert "1 of" in culprit.evidence
    assert "float64 says the candidate is off" in culprit.evidence


def test_a_place_in_a_large_batch_is_that_of_the_whole_tensor():
    """Of large tensors one entry of the batch is judged: the one that is off the most."""
    model, place = networks.residual(), (100, 3, 5, 6)
    feed = {"x": normal(160, 3, 16, 16)}
    culprit = only(compare(model, OneOff(threads=1, node="n_stem", place=place, by=0.5), [feed], layers="all"))
    assert "at [100, 3, 5, 6]" in culprit.evidence


@pytest.mark.parametrize(("exact", "found"), [(True, ["n_stem"]), (False, [])])
def test_a_broken_bound_alone_makes_a_layer_guilty_only_where_it_is_proven_to_hold(exact, found):
    """So small that only the bound of that one element is broken: Winograd's convolution may do that."""
    model, data = networks.residual(), data_of("residual")
    runner = OneOff(threads=1, node="n_stem", place=(1, 3, 5, 6), by=2e-5, exact=exact)
    report = compare(model, runner, data, layers="all")
    assert [c.node for c in report.culprits] == found
    use = next(layer.expected["bound_use"] for layer in report.layers if layer.node == "n_stem")
    assert 1 < use < 16


def test_where_the_bound_is_not_proven_breaking_it_by_far_is_evidence():
    runner = OneOff(threads=1, node="n_stem", place=(1, 3, 5, 6), by=0.5, exact=False)
    culprit = only(compare(networks.residual(), runner, data_of("residual"), layers="all"))
    assert culprit.cause == "wrong-op"
    assert "Winograd" in culprit.evidence


# ---- several outputs ------------------------------------------------------------------------------------------------


def split_in_two(w: networks.Writer) -> onnx.ModelProto:
    x = w.linear("x", "first", (16, 32))
    w.nodes.append(helper.make_node("Split", [x], ["left", "right"], name="n_split", axis=1))
    for name in ("left", "right"):
        w.linear(name, f"{name}.y", (16, 8))
    return w.model({"x": (FLOAT, [8, 16])}, ["left.y", "right.y"])


@pytest.mark.parametrize("output", [0, 1])
def test_of_a_layer_with_several_outputs_only_those_that_are_off_are_guilty(output):
    off, right = ("left", "right")[output], ("right", "left")[output]
    runner = OneOff(threads=1, node="n_split", place=(2, 3), by=0.5, output=output)
    report = compare(split_in_two(networks.Writer(1)), runner, [{"x": normal(8, 16)}], layers="all")
    culprit = only(report)
    assert culprit.tensors == (off,)
    assert "a difference of 0.5" in culprit.evidence
    assert culprit.local["max_abs"] == pytest.approx(0.5, rel=1e-6)
    assert verdicts(report) == {
        "first.m": "ok", "first": "ok", off: "culprit", right: "ok",
        f"{off}.y.m": "inherited", f"{off}.y": "inherited", f"{right}.y.m": "ok", f"{right}.y": "ok",
    }  # fmt: skip
    assert {layer.tensor: layer.cause for layer in report.layers if layer.cause} == {off: "wrong-op"}
    judged = {layer.tensor: layer.expected for layer in report.layers}
    assert judged[off]["bound_use"] > 1
    assert judged[right]["bound_use"] == 0


# ---- both graphs typed in 16 bits -----------------------------------------------------------------------------------

FP16_U = 2.0**-11
TYPED = {
    name: typed(Model(getattr(networks, name)()), "fp16").model.proto for name in ("residual", "transformer", "dense")
}


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every inner tensor and every node under another name."""
    kept = {i.name for i in (*model.graph.input, *model.graph.output)} | {t.name for t in model.graph.initializer}

    def edit(graph: onnx.GraphProto) -> None:
        for each in graph.node:
            each.name = f"other/{each.name}"
            each.input[:] = [i if not i or i in kept else f"other/{i}" for i in each.input]
            each.output[:] = [o if not o or o in kept else f"other/{o}" for o in each.output]

    return edited(model, edit)


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize(
    "candidate",
    [renamed, OnnxrtRunner(threads=1, optimization="disable"), FP16],
    ids=["renamed", "optimization", "emulated"],
)
@pytest.mark.parametrize("every", ["guilty", "all"])
def test_a_healthy_pair_that_is_typed_fp16_has_expected_noise_and_no_culprit(name, candidate, every):
    other = candidate(TYPED[name]) if callable(candidate) else candidate
    report = compare(TYPED[name], other, data_of(name), layers=every, rtol=0.1, atol=0.1)
    assert report.culprits == ()
    assert set(verdicts(report).values()) == {"ok"}
    assert not mentions(report, "unknown")


def test_the_roundings_of_typed_layers_are_those_of_their_types():
    """A product that is rounded once more is noise where all is FP16; in FP32 it would be a thousand times too much."""
    model = two_typed_products(onnx.TensorProto.FLOAT16)

    def rounded_twice(graph):
        half = node(graph, "n_first.m")
        half.output[0] = "raw"
        position = next(i for i, n in enumerate(graph.node) if n.name == half.name)
        steps = [("Mul", ["raw", "up"], "larger"), ("Mul", ["larger", "down"], "first.m")]
        for name, value in (("up", 1.1), ("down", 1 / 1.1)):
            graph.initializer.append(numpy_helper.from_array(np.float16(value), name))
        for i, (op, inputs, output) in enumerate(steps):
            graph.node.insert(position + 1 + i, helper.make_node(op, inputs, [output], name=f"step_{output}"))

    off = {"rtol": 0.1, "atol": 0.1}
    report = compare(model, edited(model, rounded_twice), [{"x": normal(64, 16)}], **off)
    assert [runner.error for runner in report.runners] == [None, None]
    assert report.culprits == ()
    judged = max(report.layers, key=lambda layer: layer.local["rel_l2"] if layer.local else 0)
    assert judged.node == "n_first.m"
    assert 0.3 < judged.expected["rms_z"] < 3
    wide = two_typed_products(FLOAT)
    assert only(compare(wide, edited(wide, scaled("first.w", 1 + FP16_U)), [{"x": normal(64, 16)}], **off))


def two_typed_products(elem_type: int) -> onnx.ModelProto:
    """x (FP32) -> Cast -> first -> Relu -> second -> Cast -> y (FP32)."""
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    w = networks.Writer(1)
    x = w.node("Cast", ["x"], "half", to=elem_type)
    x = w.node("Relu", [w.node("MatMul", [x, w.weight("first.w", 16, 16)], "first.m")], "relu")
    w.node("Cast", [w.node("MatMul", [x, w.weight("second.w", 16, 32)], "second.m")], "y", to=FLOAT)
    for name in ("first.w", "second.w"):
        w.weights[name] = w.weights[name].astype(dtype)
    return w.model({"x": (FLOAT, [64, 16])}, ["y"])


@pytest.mark.parametrize("name", ["residual", "transformer"])
@pytest.mark.parametrize("candidate", [lambda m: m, renamed], ids=["same names", "renamed"])
def test_a_fault_between_two_typed_files_is_found(name, candidate):
    weight = {"residual": "b2.w", "transformer": "down1.w"}[name]
    stored = next(t.name for t in TYPED[name].graph.initializer if t.name.startswith(weight))
    culprit = only(compare(TYPED[name], candidate(edited(TYPED[name], scaled(stored, 1.05))), data_of(name)))
    assert culprit.node == {"residual": "n_b2", "transformer": "n_down1.m"}[name]
    assert culprit.cause in ("weights", "scale")


def test_what_vanishes_where_both_are_typed_fp16_did_not_underflow():
    """The same values in other places, zeros among them: the reference holds them in FP16 as well."""
    model = two_typed_products(onnx.TensorProto.FLOAT16)

    def turned(graph):
        weight = next(t for t in graph.initializer if t.name == "first.w")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[:, ::-1].copy(), "turned.w"))
        node(graph, "n_first.m").input[1] = "turned.w"

    assert only(compare(model, edited(model, turned), [{"x": normal(64, 16)}])).cause in ("weights", "layout")


def test_what_became_zero_and_was_not_tiny_did_not_underflow(tmp_path):
    """A Relu that the reference has not, in an emulated candidate: half of the values are zero, and none were small."""
    w = networks.Writer(1)
    w.node("Identity", [w.linear("x", "first", (16, 16))], "passed")
    w.linear("passed", "y", (16, 8))
    model = w.model({"x": (FLOAT, [32, 16])}, ["y"])
    other = edited(model, lambda graph: setattr(node(graph, "n_passed"), "op_type", "Relu"))
    onnx.save(model, tmp_path / "model.onnx")
    onnx.save(other, tmp_path / "other.onnx")
    pair = (ORT, tmp_path / "model.onnx"), (FP16, tmp_path / "other.onnx")
    runners = [dataclasses.replace(runner, model=path) for runner, path in pair]
    report = Comparator(None, runners, data_loader=[{"x": normal(32, 16)}], layers="guilty").compare()
    assert only(report).cause == "wrong-op"


# ---- weights that repeat --------------------------------------------------------------------------------------------


def tiled(kind: str, block: int, seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A product whose weights are a small block over and over, after a Relu, so that equal roundings add up."""
    rng = np.random.default_rng(seed)
    w = networks.Writer(seed)
    x = w.node("Relu", ["x"], "positive")
    if kind == "Conv":
        shape, values = [2, 56, 10, 10], rng.standard_normal((block, block, 1, 1)) / 50
        w.weights["w"] = np.tile(values, (32 // block, 56 // block, 3, 3)).astype(np.float32)
        w.node("Conv", [x, "w"], "y", pads=[1] * 4)
    else:
        shape, values = [64, 512], rng.standard_normal((block, block)) / 20
        repeats = {"MatMul": (512 // block, 64 // block), "columns": (1, 64 // block)}[kind]
        w.weights["w"] = np.tile(values if kind == "MatMul" else rng.standard_normal((512, block)), repeats)
        w.weights["w"] = w.weights["w"].astype(np.float32)
        w.node("MatMul", [x, "w"], "y")
    return w.model({"x": (FLOAT, shape)}, ["y"]), {"x": rng.standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("kind", ["MatMul", "Conv", "columns"])
@pytest.mark.parametrize("block", [1, 2, 4, 8])
@pytest.mark.parametrize("candidate", [FP16, BF16], ids=lambda runner: runner.name)
def test_equal_weights_are_rounded_alike_and_that_is_no_fault(kind, block, candidate):
    for seed in range(4):
        model, feed = tiled(kind, block, seed)
        report = compare(model, candidate, [feed], **LOOSE)
        assert report.culprits == ()
        assert all((layer.expected["gain_sigma"] or 0) <= 8 for layer in report.layers if layer.tensor == "y")


@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
def test_a_fault_in_weights_that_repeat_is_found(kind, tmp_path):
    model, feed = tiled(kind, 4, 0)
    off = Off(threads=1, node="n_y", factor=1.01)
    culprit = only(compare(model, off, [feed]))
    assert (culprit.node, culprit.cause) == ("n_y", "scale")
    onnx.save(model, tmp_path / "model.onnx")
    onnx.save(edited(model, scaled("w", 1.01)), tmp_path / "other.onnx")
    pair = (ORT, tmp_path / "model.onnx"), (FP16, tmp_path / "other.onnx")
    runners = [dataclasses.replace(runner, model=path) for runner, path in pair]
    report = Comparator(None, runners, data_loader=[feed], layers="guilty", **LOOSE).compare()
    assert (only(report).node, only(report).cause) == ("n_y", "weights")


# ---- what the deployed program does not show ------------------------------------------------------------------------


@dataclass(frozen=True)
class WideInside(EmulateRunner):
    """FP16 where a piece is looked at; the whole model runs as one FP32 kernel."""

    @property
    def name(self) -> str:
        return "wide-inside"

    def open(self, model, *, fetch=(), workload=None, progress=None):
        runner = super() if model.derived else ORT
        return runner.open(model, fetch=fetch, workload=workload, progress=progress)


def log_sum_exp() -> onnx.ModelProto:
    """log(sum(exp(x))) in pieces: exp(12) is more than FP16's greatest number, its logarithm is not."""
    w = networks.Writer(3)
    x = w.node("Add", [w.linear("x", "first", (16, 16)), w.value("twelve", 12.0)], "scores")
    total = w.node("ReduceSum", [w.node("Exp", [x], "exp"), w.value("axis", [1], np.int64)], "sum", keepdims=1)
    w.node("Log", [total], "y")
    return w.model({"x": (FLOAT, [8, 16])}, ["y"])


def test_what_the_deployed_outputs_do_not_show_is_said_to_be_in_pieces_only(capsys):
    report = compare(log_sum_exp(), WideInside(threads=1, format="fp16"), [{"x": normal(8, 16)}])
    assert report
    culprit = only(report)
    assert (culprit.node, culprit.cause, culprit.deployed) == ("n_exp", "overflow", False)
    assert "the outputs as deployed do not show it" in culprit.evidence
    assert not mentions(report, "the outputs agree, but")
    assert to_json(report)["culprits"][0]["deployed"] is False
    show(report)
    assert "overflow, in pieces only" in " ".join(capsys.readouterr().out.split())


def test_an_overflow_that_the_deployed_outputs_show_is_not_said_to_be_in_pieces_only():
    report = compare(log_sum_exp(), FP16, [{"x": normal(8, 16)}])
    assert not report
    culprit = only(report)
    assert (culprit.node, culprit.cause, culprit.deployed) == ("n_exp", "overflow", None)
    assert "deployed" not in to_json(report)["culprits"][0]


@dataclass(frozen=True)
class OtherInPieces(OneOff):
    """ONNX Runtime, which computes another number where a piece is looked at."""

    def open(self, model, *, fetch=(), workload=None, progress=None):
        runner = super() if model.derived else ORT
        return runner.open(model, fetch=fetch, workload=workload, progress=progress)


def test_a_layer_that_errs_in_pieces_alone_is_no_culprit_beside_outputs_that_are_equal():
    runner = OtherInPieces(threads=1, node="n_stem", place=(1, 3, 5, 6), by=0.5)
    report = compare(networks.residual(), runner, data_of("residual"))
    assert report
    assert [(c.node, c.cause) for c in report.culprits] == []
    assert verdicts(report)["stem_relu"] == "healed"
    assert mentions(report, "run in pieces", "this is another program")
    assert not mentions(report, "the next layers agree again")


def test_a_layer_that_errs_in_pieces_stays_a_culprit_where_the_outputs_differ():
    culprit = only(compare(networks.residual(), OneOff(threads=1, node="n_stem", by=0.5, place=(1, 3, 5, 6)),
                           data_of("residual")))  # fmt: skip
    assert culprit.node == "n_stem"


def test_a_fault_of_the_deployed_program_comes_before_what_only_pieces_show():
    @dataclass(frozen=True)
    class AndAFault(WideInside):
        def open(self, model, *, fetch=(), workload=None, progress=None):
            wrong = edited(model.proto, scaled("wide.w", 1.5)) if "wide.w" in model.index.initializers else model.proto
            return super().open(model.derive(wrong) if model.derived else Model(wrong), fetch=fetch, workload=workload)

    w = networks.Writer(3)
    x = w.node("Add", [w.linear("x", "first", (16, 16)), w.value("twelve", 12.0)], "scores")
    total = w.node("ReduceSum", [w.node("Exp", [x], "exp"), w.value("axis", [1], np.int64)], "sum", keepdims=1)
    w.node("Log", [total], "other")
    w.node("MatMul", ["x", w.weight("wide.w", 16, 16)], "y")
    model = w.model({"x": (FLOAT, [8, 16])}, ["y", "other"])
    report = compare(model, AndAFault(threads=1, format="fp16"), [{"x": normal(8, 16)}])
    assert not report
    assert report.culprits[0].node == "n_y"


# ---- spread ---------------------------------------------------------------------------------------------------------


def test_spread_is_an_entry_among_the_culprits_and_blames_no_layer(capsys):
    report = compare(networks.residual(), FP16, data_of("residual"), rtol=1e-5, atol=1e-6)
    assert not report
    entry = only(report)
    assert entry.cause == "spread"
    assert entry.contribution == max(layer.contribution or 0 for layer in report.layers)
    assert set(verdicts(report).values()) <= {"ok", "inherited"}
    assert not any(layer.cause for layer in report.layers)
    show(report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "no culprit: the error of emulate:fp16 is spread" in shown
    assert "culprit 1" not in shown


# ---- quantizers in the graph ----------------------------------------------------------------------------------------


def quantized(scale: float) -> onnx.ModelProto:
    """A Relu, whose zeros stand at the end of UINT8 already, quantized and taken back."""
    w = networks.Writer(2)
    x = w.node("Relu", [w.linear("x", "first", (16, 16))], "relu")
    pair = [w.value("scale", scale), w.value("zero", 0, np.uint8)]
    w.linear(w.node("DequantizeLinear", [w.node("QuantizeLinear", [x, *pair], "q"), *pair], "dq"), "y", (16, 8))
    return w.model({"x": (FLOAT, [64, 16])}, ["y"])


@pytest.mark.parametrize(
    ("factor", "cause"), [(1 / 3, "saturation"), (1 / 5, "saturation"), (1.2, "quantization"), (0.98, "quantization")]
)
def test_a_range_that_is_too_small_saturates_and_another_one_does_not(factor, cause):
    scale = 0.02
    culprit = only(compare(quantized(scale), quantized(factor * scale), [{"x": normal(64, 16)}], **LOOSE))
    assert (culprit.node, culprit.cause) == ("n_q", cause)
