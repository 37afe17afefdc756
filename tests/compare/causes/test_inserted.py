"""Nodes that a file has behind an LSTM, GRU or RNN are named, and not the operator, which computes what it should."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, OnnxrtRunner
from onnx import helper

from support import networks
from support.layerwise import compare, only
from support.models import normal, parsed

STATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
REVERSED = ("Slice", {"at": [-1], "to": [-21], "axis": [0], "step": [-1]}, {})
NEGATED = ("Neg", {}, {})
SWAPPED = ("Gather", {"order": [1, 0]}, {"axis": 1})


def net(op: str, *behind: tuple[str, dict, dict], wrong: float = 1.0) -> onnx.ModelProto:
    w = networks.Writer(5)
    gates = STATES[op] * 6
    w.weights["W"] = wrong * normal(2, gates, 5, seed=1, scale=0.5)
    w.weights["R"] = normal(2, gates, 6, seed=2, scale=0.5)
    inputs = ["x", "W", "R"]
    w.nodes.append(helper.make_node(op, inputs, ["states"], "recurrent", direction="bidirectional", hidden_size=6))
    y = "states"
    for i, (kind, constants, attributes) in enumerate(behind):
        names = [w.value(f"{name}{i}", value, np.int64) for name, value in constants.items()]
        y = w.node(kind, [y, *names], f"extra{i}", **attributes)
    h = w.node("Transpose", [y], "t", perm=[0, 2, 1, 3])
    h = w.node("Reshape", [h, w.value("shape", [0, 0, -1], np.int64)], "merged")
    w.node("MatMul", [h, w.weight("fc", 12, 4)], "y")
    return w.model({"x": (networks.FLOAT, [20, 2, 5])}, ["y"], opset=14)


def culprits(op: str, *behind: tuple[str, dict, dict], **options: float):
    comparator = Comparator(
        net(op),
        [OnnxrtRunner(threads=1)],
        candidate_model=net(op, *behind, **options),
        data_loader=[{"x": normal(20, 2, 5, seed=i)} for i in range(2)],
        layers="guilty",
    )
    return comparator.compare().culprits


@pytest.mark.parametrize("op", STATES)
@pytest.mark.parametrize("behind", [[REVERSED], [NEGATED], [SWAPPED], [REVERSED, SWAPPED]])
def test_the_nodes_behind_are_named(op, behind):
    (culprit,) = culprits(op, *behind)
    assert culprit.node == f"n_extra{len(behind) - 1}"
    assert culprit.op == behind[-1][0]
    assert f"in the candidate alone; {op} recurrent before that gives what it should" in culprit.evidence


@pytest.mark.parametrize("behind", [[], [REVERSED]])
def test_an_operator_that_is_wrong_itself_is_named(behind):
    assert culprits("LSTM", *behind, wrong=1.1)[0].node == "recurrent"


SHARES = "g (float[4,9] x) => (float[4,6] y) {{ {} [out] y = MatMul(h, w) }}"
WHOLE = SHARES.format("[share] h = Softmax(x)")
PIECES = """m = ReduceMax<axes=[-1]>(x) c = Sub(x, m) e = Exp(c) t = ReduceSum(e, last) [over] {} = Div(e, t)"""
THERE = {"last": np.array([-1]), "w": normal(9, 6)}


def test_what_operators_in_pieces_do_more_is_named():
    other = parsed(SHARES.format(PIECES.format("d") + "[power] h = Mul(d, d)"), **THERE)
    culprit = only(compare(parsed(WHOLE, **THERE), other, [{"x": normal(4, 9)}]))
    assert (culprit.node, culprit.cause) == ("power", "wrong-op")
    assert culprit.evidence.startswith("Mul power is in the candidate alone; Div over before that gives what it should")
    assert culprit.remedies[0].text == "leave Mul power out of the second file"


def test_what_is_less_than_rounding_of_the_whole_is_not_told_of_what_is_alike():
    """A sum in FP32 is as good as the reference's on the whole, and off by one where it counts."""
    text = "g (int64[4] x) => (int64[4] y) {{ {} }}"
    one = parsed(text.format("[sum] y = CumSum(x, zero)"), zero=np.array(0))
    pieces = "[to] f = Cast<to=1>(x) [sum] s = CumSum(f, zero) [back] y = Cast<to=7>(s)"
    report = compare(one, parsed(text.format(pieces), zero=np.array(0)), [{"x": np.array([1 << 24, 1, 1, 1])}])
    assert only(report).node == "sum"


def test_two_functions_are_no_scale_of_each_other():
    one, other = (parsed(SHARES.format(f"[act] h = {op}(x)"), **THERE) for op in ("LogSoftmax", "Softmax"))
    culprit = only(compare(one, other, [{"x": normal(4, 9)}]))
    assert (culprit.node, culprit.cause) == ("act", "wrong-op")
    assert "x reference" not in culprit.evidence


def test_what_operators_in_pieces_do_not_do_is_named():
    one = parsed(SHARES.format("[share] s = Softmax(x) [power] h = Tanh(s)"), **THERE)
    culprit = only(compare(one, parsed(SHARES.format(PIECES.format("h")), **THERE), [{"x": normal(4, 9)}]))
    assert (culprit.node, culprit.cause) == ("power", "wrong-op")
    assert culprit.evidence.startswith("Tanh power is missing in the candidate behind Div over")


LOOKUP = "g (int64[6] n) => (float[6,4] y) {{ {} [emb] e = Gather(table, {}) [last] y = MatMul(e, w) }}"
TABLE = {"table": normal(20, 4, seed=3), "w": normal(4, 4, seed=4)}


def test_a_node_before_a_lookup_is_named_and_not_the_lookup():
    one = parsed(LOOKUP.format("", "n"), **TABLE)
    other = parsed(LOOKUP.format("[plus] k = Add(n, one)", "k"), **TABLE, one=np.int64(1))
    data = [{"n": np.array([3, 1, 4, 1, 5, 9], np.int64)}]
    culprit = only(compare(one, other, data))
    assert (culprit.node, culprit.cause) == ("plus", "wrong-op")
    assert "Gather emb is given its result in place of 'n', and would be right with that" in culprit.evidence
    assert culprit.remedies[0].text == "leave Add plus out of the second file"


BOXES = """g (float[6,4] b) => (float[6,2] y) {{ {0}
    [lo] l = Gather<axis=1>({1}, first) [hi] h = Gather<axis=1>({1}, last)
    [half] m = Mul(h, two) [y] y = Sub(m, l) }}"""
PICKS = {"first": np.array([0, 1], np.int64), "last": np.array([2, 3], np.int64), "two": np.float32(2)}


def test_a_node_that_several_read_is_one_fault():
    one = parsed(BOXES.format("", "b"), **PICKS)
    other = parsed(BOXES.format("[flip] f = Gather<axis=1>(b, order)", "f"), **PICKS, order=np.array([1, 0, 3, 2]))
    culprit = only(compare(one, other, [{"b": normal(6, 4, seed=6)}], layers="all"))
    assert (culprit.node, culprit.cause, culprit.contribution) == ("flip", "wrong-op", None)
    assert "Gather lo and Gather hi are given its result in place of 'b'" in culprit.evidence


def test_a_node_more_that_is_not_what_is_wrong_is_not_blamed():
    one = parsed(LOOKUP.format("", "n"), **TABLE)
    changed = {**TABLE, "table": TABLE["table"] * np.float32(1.5)}
    other = parsed(LOOKUP.format("[plus] k = Add(n, none)", "k"), **changed, none=np.int64(0))
    data = [{"n": np.array([3, 1, 4, 1, 5, 9], np.int64)}]
    assert all("would be right" not in c.evidence for c in compare(one, other, data).culprits)
