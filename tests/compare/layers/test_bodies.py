"""If, Loop and Scan entered, as a specification: one fault planted inside, and the node inside that is named for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner, TfRunner
from layerdiff.compare.lockstep.stepping import ITERATIONS
from layerdiff.compare.report.json import to_json
from layerdiff.graph.load import load
from layerdiff.runners.contract.capabilities import Capabilities
from onnx import TensorProto, helper, numpy_helper

from support.layerwise import FP16, LOOSE, ORT, compare, only
from support.models import assembled as model
from support.models import normal

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


# ---- tools ----------------------------------------------------------------------------------------------------------


def op(kind: str, inputs: Sequence[str], outputs: str | Sequence[str], name: str = "", **attributes) -> onnx.NodeProto:
    outputs = [outputs] if isinstance(outputs, str) else outputs
    return helper.make_node(kind, inputs, outputs, name=name or f"n_{outputs[0]}", **attributes)


def graph(name: str, nodes, inputs=(), outputs=(), weights=None) -> onnx.GraphProto:
    """A body. Inputs and outputs are (name, type, shape)."""
    infos = [[helper.make_tensor_value_info(*item) for item in items] for items in (inputs, outputs)]
    return helper.make_graph(nodes, name, *infos, [numpy_helper.from_array(v, n) for n, v in (weights or {}).items()])


def body_of(proto: onnx.ModelProto, name: str, attribute: str = "body") -> onnx.GraphProto:
    node = next(n for n in proto.graph.node if n.name == name)
    return next(a.g for a in node.attribute if a.name == attribute)


def changed(proto: onnx.ModelProto, edit: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    edit(copy)
    return copy


def scale(tensors, name: str, factor: float) -> None:
    (weight,) = (t for t in tensors if t.name == name)
    weight.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(weight) * factor).astype(np.float32), name))


# ---- networks -------------------------------------------------------------------------------------------------------

WIDTH = 8


def loop(trip: int | None = 12, until: float | None = None, outputs: bool = True) -> onnx.ModelProto:
    """h = tanh(h W + b + x) over and over, W inside the body, b and x captured; a scan output of every h.

    With ``until``, it goes on while the sum of |x| added up is below that."""
    nodes = [
        op("MatMul", ["h", "w"], "hw"),
        op("Add", ["hw", "b"], "hb"),
        op("Add", ["hb", "first"], "hx"),
        op("Tanh", ["hx"], "h_next"),
        op("Mul", ["h_next", "gain"], "row"),
    ]
    ins = [("i", INT64, []), ("go", BOOL, []), ("h", FLOAT, [2, WIDTH])]
    outs = [("on", BOOL, []), ("h_next", FLOAT, [2, WIDTH]), ("row", FLOAT, [2, WIDTH])]
    if until is None:
        nodes.append(op("Identity", ["go"], "on"))
    else:
        nodes += [
            op("Abs", ["first"], "size"),
            op("ReduceMean", ["size"], "mean", keepdims=0),
            op("Add", ["sum", "mean"], "sum_next"),
            op("Less", ["sum_next", "limit"], "on"),
        ]
        ins.append(("sum", FLOAT, []))
        outs.insert(2, ("sum_next", FLOAT, []))
    body = graph(
        "body", nodes, ins, outs, {"w": normal(WIDTH, WIDTH, seed=1, scale=0.5), "gain": np.asarray(1.5, np.float32)}
    )
    weights = {
        "b": normal(WIDTH, seed=2, scale=0.1),
        "w0": normal(WIDTH, WIDTH, seed=3),
        "zeros": np.zeros((2, WIDTH), np.float32),
        "zero": np.float32(0),
        "limit": np.float32(until or 0),
        "yes": np.asarray(True),
    }
    if trip is not None:
        weights["trip"] = np.asarray(trip, np.int64)
    if until is None:
        del weights["zero"], weights["limit"]
    states = ["zeros"] + (["zero"] if until is not None else [])
    made = ["last"] + (["total"] if until is not None else []) + ["rows"]
    whole = [
        op("MatMul", ["x", "w0"], "first", "n_first"),
        op("Loop", ["trip" if trip is not None else "", "yes", *states], made, "n_loop", body=body),
        op("Relu", ["rows"], "y", "n_y"),
    ]
    outs = [("y", FLOAT, None), ("last", FLOAT, None)]
    return model(whole, [("x", FLOAT, [2, WIDTH])], outs, weights)


def inputs(samples: int = 2) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(2, WIDTH, seed=i)} for i in range(samples)]


def scan(length: int = 10, backwards: bool = False, growth: float = 1.0) -> onnx.ModelProto:
    """c = c growth + x_t; y_t = tanh(c W): over axis 1 of x (2 x length x WIDTH), forwards or backwards."""
    body = graph(
        "body",
        [
            op("Mul", ["c", "growth"], "grown"),
            op("Add", ["grown", "x_t"], "c_next"),
            op("Mul", ["c_next", "small"], "less"),
            op("MatMul", ["less", "w"], "cw"),
            op("Tanh", ["cw"], "y_t"),
        ],
        [("c", FLOAT, [2, WIDTH]), ("x_t", FLOAT, [2, WIDTH])],
        [("c_next", FLOAT, [2, WIDTH]), ("y_t", FLOAT, [2, WIDTH])],
        {
            "w": normal(WIDTH, WIDTH, seed=4),
            "growth": np.asarray(growth, np.float32),
            "small": np.asarray(1e-3, np.float32),
        },
    )
    more = {"scan_input_directions": [1], "scan_output_directions": [1]} if backwards else {}
    node = op(
        "Scan", ["c0", "x"], ["c_last", "y"], "n_scan", body=body, num_scan_inputs=1, scan_input_axes=[1],
        scan_output_axes=[1], **more,
    )  # fmt: skip
    return model(
        [node],
        [("x", FLOAT, [2, length, WIDTH])],
        [("y", FLOAT, [2, length, WIDTH]), ("c_last", FLOAT, [2, WIDTH])],
        {"c0": np.zeros((2, WIDTH), np.float32)},
    )


def sequences(length: int = 10, scale: float = 1.0) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(2, length, WIDTH, seed=i, scale=scale)} for i in range(2)]


def branches() -> onnx.ModelProto:
    """If the mean of x is positive: x W1, tanh; else: x W2, relu; one more product behind."""

    def branch(name: str, activation: str, seed: int) -> onnx.GraphProto:
        nodes = [
            op("MatMul", ["x", f"w_{name}"], f"m_{name}"),
            op(activation, [f"m_{name}"], f"r_{name}"),
        ]
        return graph(name, nodes, [], [(f"r_{name}", FLOAT, None)], {f"w_{name}": normal(WIDTH, WIDTH, seed=seed)})

    then, other = branch("then", "Tanh", 1), branch("else", "Relu", 2)
    return model(
        [
            op("ReduceMean", ["x"], "mean", keepdims=0),
            op("Greater", ["mean", "zero"], "positive"),
            op("If", ["positive"], "r", "n_if", then_branch=then, else_branch=other),
            op("MatMul", ["r", "w"], "y"),
        ],
        [("x", FLOAT, [2, WIDTH])],
        [("y", FLOAT, [2, WIDTH])],
        {"zero": np.float32(0), "w": normal(WIDTH, WIDTH, seed=3)},
    )  # fmt: skip


def signed(*signs: int) -> list[dict[str, np.ndarray]]:
    """Samples whose mean is positive or negative."""
    return [{"x": (sign * np.abs(normal(2, WIDTH, seed=i))).astype(np.float32)} for i, sign in enumerate(signs)]


def nested() -> onnx.ModelProto:
    """The loop of `loop` in the then-branch of an If."""
    inner = loop(6)
    whole = inner.graph
    branch = graph(
        "then",
        [n for n in whole.node if n.name == "n_loop"] + [op("Relu", ["rows"], "y_then", "n_relu")],
        [],
        [("y_then", FLOAT, None)],
    )
    other = graph("else", [op("Unsqueeze", ["first", "axis"], "y_else")], [], [("y_else", FLOAT, None)])
    return model(
        [
            op("MatMul", ["x", "w0"], "first", "n_first"),
            op("ReduceMean", ["x"], "mean", keepdims=0),
            op("Greater", ["mean", "zero"], "positive"),
            op("If", ["positive"], "y", "n_if", then_branch=branch, else_branch=other),
        ],
        [("x", FLOAT, [2, WIDTH])],
        [("y", FLOAT, None)],
        {
            **{t.name: numpy_helper.to_array(t) for t in whole.initializer},
            "zero": np.float32(0),
            "axis": np.asarray([0], np.int64),
        },
    )


# ---- clean pairs ----------------------------------------------------------------------------------------------------

CLEAN = {
    "loop": (loop(), inputs()),
    "loop by condition": (loop(None, 10.0), inputs()),
    "long loop": (loop(300), inputs()),
    "no iteration": (loop(0), inputs()),
    "scan": (scan(), sequences()),
    "scan backwards": (scan(backwards=True), sequences()),
    "long scan": (scan(200, growth=0.9), sequences(200)),
    "branches": (branches(), signed(1, -1, 1)),
    "nested": (nested(), signed(1, -1)),
}


@pytest.mark.parametrize("layers", ["guilty", "all"])
@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize(
    "candidate",
    [OnnxrtRunner(threads=1, optimization="disable"), *(EmulateRunner(format=f, threads=1) for f in ("fp16", "bf16"))],
    ids=lambda runner: runner.name,
)
def test_a_clean_pair_has_no_culprit_inside_either(name, candidate, layers):
    proto, data = CLEAN[name]
    report = compare(proto, candidate, data, layers=layers, **LOOSE)
    assert report.culprits == ()
    assert {layer.verdict for layer in report.layers} <= {"ok"}
    inner = {layer.node for layer in report.layers if layer.inside}
    assert (bool(inner) and layers == "all") or name == "no iteration" or layers == "guilty"


def test_rounding_that_a_recurrence_amplifies_is_not_a_fault_of_the_loop():
    """A chaotic map: after 60 iterations nothing is left of the reference's state, though each iteration is right."""
    body = graph(
        "body",
        [
            op("Sub", ["one", "z"], "rest"),
            op("Mul", ["z", "rest"], "both"),
            op("Mul", ["both", "rate"], "z_next"),
            op("Identity", ["go"], "on"),
        ],
        [("i", INT64, []), ("go", BOOL, []), ("z", FLOAT, [64])],
        [("on", BOOL, []), ("z_next", FLOAT, [64])],
        {"one": np.asarray(1, np.float32), "rate": np.asarray(3.9, np.float32)},
    )
    proto = model(
        [op("Loop", ["trip", "", "x"], "y", "n_loop", body=body)],
        [("x", FLOAT, [64])],
        [("y", FLOAT, [64])],
        {"trip": np.asarray(60, np.int64)},
    )
    data = [{"x": np.random.default_rng(0).uniform(0.1, 0.9, 64).astype(np.float32)}]
    report = compare(proto, FP16, data, **LOOSE)
    (layer,) = (layer for layer in report.layers if not layer.inside)
    assert layer.local["rel_l2"] > 0.3
    assert layer.verdict == "ok"
    assert report.culprits == ()


# ---- one fault ------------------------------------------------------------------------------------------------------


def test_a_weight_inside_a_loop():
    proto = loop()
    wrong = changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "w", 1.01))
    report = compare(proto, wrong, inputs())
    culprit = only(report)
    assert (culprit.node, culprit.op, culprit.cause) == ("n_hw", "MatMul", "weights")
    (where,) = culprit.inside
    assert (where.node, where.op, where.body) == ("n_loop", "Loop", "body")
    assert (where.iterations, where.looked_at, where.begins) == (12, ITERATIONS, 1)  # the state begins with zeros
    assert culprit.contribution == pytest.approx(1, abs=1e-3)
    assert 0.001 < culprit.local["rel_l2"] < 0.011
    verdicts = {layer.node: layer.verdict for layer in report.layers if not layer.inside}
    assert verdicts == {"n_first": "ok", "n_loop": "inherited", "n_y": "inherited"}


def test_a_captured_weight_is_that_of_the_node_inside_that_reads_it():
    proto = loop()
    culprit = only(compare(proto, changed(proto, lambda m: scale(m.graph.initializer, "b", 1.5)), inputs()))
    assert (culprit.node, culprit.cause) == ("n_hb", "weights")
    assert culprit.inside[0].begins == 0


def test_a_captured_tensor_that_is_wrong_is_the_fault_of_who_makes_it():
    proto = loop()
    culprit = only(compare(proto, changed(proto, lambda m: scale(m.graph.initializer, "w0", 1.01)), inputs()))
    assert (culprit.node, culprit.inside) == ("n_first", ())


def test_a_scan_output_that_nothing_carries_on():
    proto = loop()
    wrong = changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "gain", 1.01))
    culprit = only(compare(proto, wrong, inputs()))
    assert (culprit.node, culprit.cause) == ("n_row", "scale")


def test_bodies_whose_tensors_have_other_names():
    """Inputs and outputs of bodies correspond by position, captured tensors as in the graphs around."""
    proto = loop()

    def edit(m: onnx.ModelProto) -> None:
        body = body_of(m, "n_loop")
        names = {"h": "h_next", "h_next": "h", "row": "i", "i": "r", "hw": "row", "first": "start", "on": "goes"}
        for node in body.node:
            node.input[:] = [names.get(n, n) for n in node.input]
            node.output[:] = [names.get(n, n) for n in node.output]
            node.name += "_b"
        for info in (*body.input, *body.output):
            info.name = names.get(info.name, info.name)
        m.graph.node[0].output[0] = "start"
        scale(body.initializer, "w", 1.01)

    culprit = only(compare(proto, changed(proto, edit), inputs()))
    assert (culprit.node, culprit.candidate_node, culprit.cause) == ("n_hw", "n_hw_b", "weights")


def test_of_two_names_for_one_value_each_graph_may_make_another():
    """The state and the row are one value: an Identity makes the row in one file, and the state in the other."""

    def network(first: str, second: str, activation: str = "Tanh") -> onnx.ModelProto:
        nodes = [
            op("MatMul", ["h", "w"], "hw"),
            op("Add", ["hw", "x"], "hx"),
            op(activation, ["hx"], first, "n_bent"),
            op("Identity", [first], second, "n_same"),
            op("Identity", ["go"], "on"),
        ]
        ins = [("i", INT64, []), ("go", BOOL, []), ("h", FLOAT, [2, WIDTH])]
        outs = [("on", BOOL, []), ("h_next", FLOAT, [2, WIDTH]), ("row", FLOAT, [2, WIDTH])]
        body = graph("body", nodes, ins, outs, {"w": normal(WIDTH, WIDTH, seed=1, scale=0.5)})
        weights = {"trip": np.asarray(5, np.int64), "yes": np.asarray(True), "zeros": np.zeros((2, WIDTH), np.float32)}
        node = op("Loop", ["trip", "yes", "zeros"], ["last", "y"], "n_loop", body=body)
        return model([node], [("x", FLOAT, [2, WIDTH])], [("y", FLOAT, None), ("last", FLOAT, None)], weights)

    one, other = network("h_next", "row"), network("row", "h_next")
    assert compare(one, other, inputs()).culprits == ()
    wrong = network("row", "h_next", "Softsign")
    for reference in (one, other):
        culprit = only(compare(reference, wrong, inputs()))
        assert (culprit.node, culprit.op) == ("n_bent", "Tanh")


def test_a_fault_in_late_iterations_is_found_there():
    """Only above 5.5, that is from iteration 6 on, is the counter replaced."""
    body = graph(
        "body",
        [
            op("Cast", ["i"], "t", to=FLOAT),
            op("Min", ["t", "most"], "capped"),
            op("Add", ["z", "capped"], "z_next"),
            op("Identity", ["go"], "on"),
        ],
        [("i", INT64, []), ("go", BOOL, []), ("z", FLOAT, [4])],
        [("on", BOOL, []), ("z_next", FLOAT, [4])],
        {"most": np.asarray(1000, np.float32)},
    )
    proto = model(
        [op("Loop", ["trip", "", "x"], "y", "n_loop", body=body)],
        [("x", FLOAT, [4])],
        [("y", FLOAT, [4])],
        {"trip": np.asarray(40, np.int64)},
    )
    wrong = changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "most", 0.0055))
    culprit = only(compare(proto, wrong, [{"x": normal(4)}]))
    assert culprit.node == "n_capped"
    assert culprit.inside[0].begins == 6
    assert culprit.inside[0].looked_at == ITERATIONS


def test_an_overflow_within_a_scan_begins_where_the_state_is_too_large():
    """Doubled at each step, 1.5 passes FP16's greatest, 65,504, in iteration 15: 1.5 (1 + 2 + ... + 2^15) = 98,302."""
    proto = scan(20, growth=2.0)
    data = [{"x": np.full((2, 20, WIDTH), 1.5, np.float32)}]
    culprit = only(compare(proto, FP16, data, **LOOSE))
    assert (culprit.node, culprit.cause) == ("n_c_next", "overflow")
    assert culprit.inside[0].begins == 15
    assert culprit.inside[0].iterations == 20


@pytest.mark.parametrize("backwards", [False, True])
def test_a_constant_inside_a_scan_forwards_and_backwards(backwards):
    proto = scan(backwards=backwards)
    wrong = changed(proto, lambda m: scale(body_of(m, "n_scan").initializer, "w", 1.02))
    culprit = only(compare(proto, wrong, sequences()))
    assert (culprit.node, culprit.cause) == ("n_cw", "weights")


def test_a_scan_in_the_other_direction_is_the_fault_of_the_scan_itself():
    proto, wrong = scan(), scan(backwards=True)
    culprit = only(compare(proto, wrong, sequences()))
    assert (culprit.node, culprit.inside) == ("n_scan", ())
    assert culprit.cause == "attribute"
    says = "scan_input_directions [0] against [1]; scan_output_directions [0] against [1]; no node inside is beyond"
    assert culprit.evidence.startswith(says)
    text = "set scan_input_directions to [0] and scan_output_directions to [0], as in the first file"
    assert culprit.remedies[0].text.startswith(text)


def test_one_iteration_more_is_the_fault_of_the_loop_itself():
    culprit = only(compare(loop(12), loop(13), inputs()))
    assert (culprit.node, culprit.cause, culprit.inside) == ("n_loop", "attribute", ())
    assert culprit.evidence.startswith("trip count 12 against 13; ")
    assert "the candidate makes 13 iterations, the reference 12" in culprit.evidence
    assert culprit.remedies[0].text.startswith("set the trip count of n_loop to 12, as in the first file")


def with_gemm(m: onnx.ModelProto) -> None:
    """The body of a loop with a product and the sum behind it in one."""
    body = body_of(m, "n_loop")
    first, second, *others = body.node
    one = op("Gemm", [*first.input, "b"], second.output[0])
    del body.node[:]
    body.node.extend([one, *others])


def test_how_often_a_loop_runs_is_told_alone_where_its_body_is_written_otherwise():
    same, wrong = (changed(loop(trip), with_gemm) for trip in (12, 13))
    assert compare(loop(12), same, inputs()).culprits == ()
    culprit = only(compare(loop(12), wrong, inputs()))
    assert (culprit.node, culprit.cause, culprit.inside) == ("n_loop", "attribute", ())
    assert culprit.evidence.startswith("trip count 12 against 13; ")
    assert "in its body" not in culprit.evidence


def test_an_iteration_more_that_rounding_decides_is_told():
    """0.01 added up a hundred times is 1.00000 in FP32, and less in FP16."""
    sums = [np.float16(0)]
    for _ in range(100):
        sums.append(sums[-1] + np.float16(0.01))
    end = (1 + float(sums[-1])) / 2
    nodes = [
        op("Add", ["z", "step"], "z_next"),
        op("ReduceMax", ["z_next"], "most", keepdims=0),
        op("Less", ["most", "end"], "on"),
    ]
    body = graph(
        "body",
        nodes,
        [("i", INT64, []), ("go", BOOL, []), ("z", FLOAT, [4])],
        [("on", BOOL, []), ("z_next", FLOAT, [4])],
        {"step": np.asarray(0.01, np.float32), "end": np.asarray(end, np.float32)},
    )
    proto = model([op("Loop", ["", "", "x"], "y", "n_loop", body=body)], [("x", FLOAT, [4])], [("y", FLOAT, [4])])
    culprit = only(compare(proto, FP16, [{"x": np.zeros(4, np.float32)}]))
    assert (culprit.node, culprit.cause) == ("n_loop", "unknown")
    assert "rounding decides when to stop" in culprit.evidence


def test_no_iteration_against_one():
    culprit = only(compare(loop(0), loop(1), inputs()))
    assert (culprit.node, culprit.inside) == ("n_loop", ())


def test_a_condition_inside_that_is_wrong_is_named():
    """The limit is what the trip count depends on."""
    proto = loop(None, 10.0)

    def edit(m: onnx.ModelProto) -> None:
        node = next(n for n in body_of(m, "n_loop").node if n.op_type == "Less")
        node.op_type = "Greater"

    culprit = only(compare(proto, changed(proto, edit), inputs()))
    assert (culprit.node, culprit.op) == ("n_on", "Less")


def test_a_fault_in_a_loop_that_a_condition_ends():
    proto = loop(None, 10.0)
    wrong = changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "w", 1.01))
    culprit = only(compare(proto, wrong, inputs()))
    assert (culprit.node, culprit.cause) == ("n_hw", "weights")
    assert 2 < culprit.inside[0].iterations < 100


# ---- If -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", ["then", "else"])
def test_a_fault_in_one_branch_shows_on_the_samples_that_take_it(branch):
    proto = branches()
    wrong = changed(proto, lambda m: scale(body_of(m, "n_if", f"{branch}_branch").initializer, f"w_{branch}", 1.01))
    culprit = only(compare(proto, wrong, signed(1, 1, -1, -1)))
    assert (culprit.node, culprit.cause) == (f"n_m_{branch}", "weights")
    assert culprit.inside[0].body == f"{branch}_branch"
    never = compare(proto, wrong, signed(*([-1, -1] if branch == "then" else [1, 1])))
    assert never.culprits == ()


def test_exchanged_branches_are_the_fault_of_the_if():
    def edit(m: onnx.ModelProto) -> None:
        then, other = (body_of(m, "n_if", f"{name}_branch") for name in ("then", "else"))
        copy = onnx.GraphProto()
        copy.CopyFrom(then)
        then.CopyFrom(other)
        other.CopyFrom(copy)

    proto = branches()
    culprit = only(compare(proto, changed(proto, edit), signed(1, -1)))
    assert (culprit.node, culprit.op, culprit.cause, culprit.inside) == ("n_if", "If", "wrong-op", ())
    assert "its branches are exchanged" in culprit.evidence


def test_a_condition_that_rounding_decides_is_told():
    """The mean is positive by 1e-6, and FP16 makes it zero."""
    x = np.concatenate([np.full((1, WIDTH), 1.0001), np.full((1, WIDTH), -1.0)]).astype(np.float32)
    report = compare(branches(), FP16, [{"x": x}])
    assert report.verdict == "fail"
    assert [(c.node, c.cause) for c in report.culprits] == [("n_mean", "cancellation")]
    assert any("n_if (If) does not always take the branch" in warning for warning in report.warnings)


# ---- nested ---------------------------------------------------------------------------------------------------------


def test_a_loop_in_an_if():
    proto = nested()

    def edit(m: onnx.ModelProto) -> None:
        branch = body_of(m, "n_if", "then_branch")
        inner = next(a.g for n in branch.node if n.name == "n_loop" for a in n.attribute if a.name == "body")
        scale(inner.initializer, "w", 1.01)

    report = compare(proto, changed(proto, edit), signed(1, -1))
    culprit = only(report)
    assert (culprit.node, culprit.cause) == ("n_hw", "weights")
    assert [(e.node, e.body) for e in culprit.inside] == [("n_if", "then_branch"), ("n_loop", "body")]
    assert culprit.inside[1].iterations == 6
    guilty = [(layer.node, len(layer.inside)) for layer in report.layers if layer.verdict == "culprit"]
    assert [depth for _, depth in guilty] == [2]


# ---- a reference that runs whole models only ------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole(OnnxrtRunner):
    """A runtime that opens no pieces, and whose loops are off where it is told so."""

    capabilities: ClassVar[Capabilities] = Capabilities(pieces=False, inner_tensors=True)
    factor: float = 1.0

    @property
    def name(self) -> str:
        return "whole"

    @property
    def trust(self) -> int:
        return 0

    def open(self, model, **more):
        wrong = changed(model.proto, lambda m: scale(body_of(m, "n_loop").initializer, "w", self.factor))
        return super().open(model.derive(wrong), **more)


def test_its_graph_is_run_in_its_place_where_that_gives_its_values(tmp_path):
    proto = loop()
    onnx.save(proto, tmp_path / "a.onnx")
    onnx.save(changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "w", 1.01)), tmp_path / "b.onnx")
    runners = [Whole(model=tmp_path / "a.onnx", threads=1), OnnxrtRunner(model=tmp_path / "b.onnx", threads=1)]
    report = Comparator(None, runners, data_loader=inputs(), layers="guilty").compare()
    assert report.reference == "whole"
    assert (only(report).node, only(report).inside[0].begins) == ("n_hw", 1)


def test_a_body_is_not_entered_where_that_gives_other_values():
    report = Comparator(loop(), [Whole(factor=1.01), ORT], data_loader=inputs(), layers="guilty").compare()
    culprit = only(report)
    assert (culprit.node, culprit.inside) == ("n_loop", ())
    assert "its body was not entered: whole runs whole models only" in culprit.evidence


@pytest.mark.tf
def test_a_loop_that_tensorflow_wrote(tmp_path):
    """tf2onnx leaves no trace of the loop's outputs: it is part of the layer that reads them."""
    tf = pytest.importorskip("tensorflow")
    w, v = (tf.constant(normal(16, 16, seed=i, scale=0.25)) for i in range(2))

    def step(i, h):
        return i + 1, tf.tanh(tf.matmul(h, w)) + 0.1 * h

    @tf.function(input_signature=[tf.TensorSpec([4, 16], tf.float32, name="x")])
    def network(x):
        _, h = tf.while_loop(lambda i, h: i < 7, step, [0, tf.matmul(x, v)])
        return {"y": tf.matmul(h, v)}

    module = tf.Module()
    module.network = network
    tf.saved_model.save(module, str(tmp_path / "tf"), signatures=network)
    proto = load(tmp_path / "tf").proto

    def edit(m: onnx.ModelProto) -> None:
        (whole,) = (n for n in m.graph.node if n.op_type == "Loop")
        body = next(a.g for a in whole.attribute if a.name == "body")
        next(n for n in body.node if n.op_type == "Tanh").op_type = "Softsign"

    onnx.save(changed(proto, edit), tmp_path / "other.onnx")
    runners = [TfRunner(model=tmp_path / "tf"), OnnxrtRunner(model=tmp_path / "other.onnx", threads=1)]
    report = Comparator(None, runners, data_loader=[{"x": normal(4, 16)}], layers="guilty").compare()
    culprit = only(report)
    assert (culprit.op, culprit.cause) == ("Tanh", "wrong-op")
    assert [(e.op, e.iterations) for e in culprit.inside] == [("Loop", 7)]


@pytest.mark.tf
@pytest.mark.parametrize("faulty", [[0], [1], [0, 1]])
def test_two_loops_in_one_layer(tmp_path, faulty):
    """Nothing between two recurrent layers of Keras has a counterpart in TensorFlow: one layer for both."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    recurrent = [keras.layers.SimpleRNN(16, return_sequences=True) for _ in range(2)]
    network = keras.Sequential([keras.layers.Input((12, 8)), *recurrent, keras.layers.Dense(4)])
    network.export(str(tmp_path / "tf"), verbose=False)
    proto = load(tmp_path / "tf").proto

    def edit(m: onnx.ModelProto) -> None:
        loops = [n for n in m.graph.node if n.op_type == "Loop"]
        for chosen in (loops[i] for i in faulty):
            body = next(a.g for a in chosen.attribute if a.name == "body")
            next(n for n in body.node if n.op_type == "Tanh").op_type = "Softsign"

    onnx.save(changed(proto, edit), tmp_path / "other.onnx")
    runners = [TfRunner(model=tmp_path / "tf"), OnnxrtRunner(model=tmp_path / "other.onnx", threads=1)]
    data = [{load(tmp_path / "tf").inputs[0].name: normal(2, 12, 8)}]
    report = Comparator(None, runners, data_loader=data, layers="guilty").compare()
    assert [(c.op, c.cause) for c in report.culprits] == [("Tanh", "wrong-op")] * len(faulty)
    names = [n.name for n in proto.graph.node if n.op_type == "Loop"]
    assert [c.inside[0].node for c in report.culprits] == [names[i] for i in faulty]


# ---- states that are no tensors, types, shapes that change ----------------------------------------------------------


def test_a_state_that_is_a_sequence_is_said_to_be():
    """A sequence of rows that grows, joined behind the loop."""
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    body = graph(
        "body",
        [
            op("Mul", ["first", "gain"], "row"),
            op("SequenceInsert", ["rows", "row"], "rows_next"),
            op("Identity", ["go"], "on"),
        ],
        [("i", INT64, []), ("go", BOOL, [])],
        [("on", BOOL, [])],
        {"gain": np.asarray(1.5, np.float32)},
    )
    body.input.append(helper.make_value_info("rows", sequence))
    body.output.append(helper.make_value_info("rows_next", sequence))
    proto = model(
        [
            op("MatMul", ["x", "w"], "first"),
            op("SequenceEmpty", [], "none", dtype=FLOAT),
            op("Loop", ["trip", "yes", "none"], "all", "n_loop", body=body),
            op("ConcatFromSequence", ["all"], "y", axis=0),
        ],
        [("x", FLOAT, [2, WIDTH])],
        [("y", FLOAT, None)],
        {"trip": np.asarray(3, np.int64), "yes": np.asarray(True), "w": normal(WIDTH, WIDTH)},
    )
    wrong = changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "gain", 1.01))
    culprit = only(compare(proto, wrong, inputs()))
    assert culprit.inside == ()
    assert "its body was not entered" in culprit.evidence
    assert "only tensors are compared" in culprit.evidence


def test_a_state_that_grows():
    """Each iteration appends a row that it makes of the last one."""
    body = graph(
        "body",
        [
            op("Gather", ["h", "last"], "row", axis=0),
            op("MatMul", ["row", "w"], "product"),
            op("Tanh", ["product"], "next"),
            op("Concat", ["h", "next"], "h_next", axis=0),
            op("Identity", ["go"], "on"),
        ],
        [("i", INT64, []), ("go", BOOL, []), ("h", FLOAT, [None, WIDTH])],
        [("on", BOOL, []), ("h_next", FLOAT, [None, WIDTH])],
        {"w": normal(WIDTH, WIDTH, seed=1), "last": np.asarray([-1], np.int64)},
    )
    proto = model(
        [op("Loop", ["trip", "yes", "x"], "y", "n_loop", body=body)],
        [("x", FLOAT, [2, WIDTH])],
        [("y", FLOAT, [None, WIDTH])],
        {"trip": np.asarray(20, np.int64), "yes": np.asarray(True)},
    )
    assert compare(proto, FP16, inputs(), **LOOSE).culprits == ()
    culprit = only(
        compare(proto, changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "w", 1.01)), inputs())
    )
    assert (culprit.node, culprit.cause, culprit.inside[0].begins) == ("n_product", "weights", 0)


def test_bodies_typed_fp16_in_the_candidate():
    """States, weights and slices in FP16; the fault is one of 2 %."""
    proto = scan()

    def half(m: onnx.ModelProto) -> None:
        body = body_of(m, "n_scan")
        for tensors in (body.initializer, m.graph.initializer):
            for tensor in tensors:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
        for info in (*body.input, *body.output):
            info.type.tensor_type.elem_type = TensorProto.FLOAT16
        (node,) = m.graph.node
        node.input[1] = "x_half"
        node.output[:] = ["c_half", "y_half"]
        before = op("Cast", ["x"], "x_half", to=TensorProto.FLOAT16)
        m.graph.node.insert(0, before)
        m.graph.node.extend(op("Cast", [f"{n[0]}_half"], n, f"cast_{n}", to=FLOAT) for n in ("y", "c_last"))

    typed = changed(proto, half)
    assert compare(proto, typed, sequences(), **LOOSE).culprits == ()

    def wrong(m: onnx.ModelProto) -> None:
        half(m)
        (weight,) = (t for t in body_of(m, "n_scan").initializer if t.name == "w")
        value = numpy_helper.to_array(weight) * np.float16(1.02)
        weight.CopyFrom(numpy_helper.from_array(value, "w"))

    culprit = only(compare(proto, changed(proto, wrong), sequences(), **LOOSE))
    assert culprit.node == "n_cw"


@pytest.mark.parametrize("name", ["int8", "fp8", "tf32"])
def test_formats_that_scale_by_ranges_have_none_inside(name):
    for proto, data in (CLEAN["loop"], CLEAN["nested"]):
        report = compare(proto, EmulateRunner(format=name, threads=1), data, layers="all", **LOOSE)
        assert report.culprits == ()
        assert any(layer.inside for layer in report.layers)


# ---- the report -----------------------------------------------------------------------------------------------------


def test_the_report_says_where(capsys):
    proto = loop()
    report = compare(
        proto, changed(proto, lambda m: scale(body_of(m, "n_loop").initializer, "w", 1.01)), inputs(), layers="all"
    )
    data = json.loads(json.dumps(to_json(report)))
    expected = {"node": "n_loop", "op": "Loop", "body": "body", "iterations": 12, "looked_at": ITERATIONS, "begins": 1}
    assert data["culprits"][0]["inside"] == [expected]
    assert {layer["tensor"] for layer in data["layers"] if layer.get("inside")} >= {"hw", "hb", "hx", "h_next", "row"}
    assert "inside" not in next(layer for layer in data["layers"] if layer["node"] == "n_first")
    from layerdiff.compare.report.terminal.show import show

    show(report, verbose=True)
    text = " ".join(capsys.readouterr().out.split())
    assert "n_hw (MatMul) in Loop n_loop, from iteration 1 on (8 of 12 iterations looked into)" in text


# ---- loops that carry a sequence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("faulty", ["before", "behind", "inside"])
def test_a_loop_that_carries_a_sequence_is_one_layer_among_others(faulty):
    """Sequences are no borders, and have no type that a tensor could have."""
    steps = [
        op("MatMul", ["carried", "u"], "h"),
        op("Mul", ["h", "decay"], "next"),
        op("SequenceInsert", ["list", "next"], "longer"),
        op("Identity", ["cond"], "more"),
    ]
    given = [("t", INT64, []), ("cond", BOOL, []), ("carried", FLOAT, [4, 8])]
    body = graph("body", steps, given, [("more", BOOL, []), ("next", FLOAT, [4, 8])])
    sequence = helper.make_tensor_sequence_value_info
    body.input.append(sequence("list", FLOAT, None))
    body.output.append(sequence("longer", FLOAT, None))
    nodes = [
        op("MatMul", ["x", "before"], "first", "before"),
        op("SequenceEmpty", [], "none", dtype=FLOAT),
        op("Loop", ["trips", "yes", "first", "none"], ["last", "all"], "loop", body=body),
        op("ConcatFromSequence", ["all"], "stacked", axis=0, new_axis=1),
        op("MatMul", ["stacked", "behind"], "y", "behind"),
    ]
    weights = {n: normal(8, 8, seed=i) for i, n in enumerate(("before", "behind", "u"))}
    weights |= {"decay": np.float32(0.9), "trips": np.int64(3), "yes": np.bool_(True)}
    network = model(nodes, [("x", FLOAT, [4, 8])], [("y", FLOAT, [3, 4, 8])], weights)
    name = "decay" if faulty == "inside" else faulty
    report = compare(network, changed(network, lambda p: scale(p.graph.initializer, name, 1.1)), [{"x": normal(4, 8)}])
    assert only(report).node == ("loop" if faulty == "inside" else faulty)
