"""Outputs of a body that are another tensor, which no node of the body shows: a loop that gives out the state before
the step, and not the one behind it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.layerwise import compare, only
from support.models import assembled, normal

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
SHAPE = [2, 8]


def network(op: str, emits: str, *, copied: bool = True, h: str = "h", nudge: str = "") -> onnx.ModelProto:
    """A recurrence that gives out ``emits`` of each step: the state before it (``h``), the one behind it (``new``), or
    what is added (``a``)."""
    steps = [("MatMul", [h, "w"], "a"), ("Tanh", ["a"], "t"), ("Add", ["t", h], "new")]
    made = "row" if copied else emits
    nodes = [helper.make_node(kind, read, [out], name=f"n_{out}") for kind, read, out in steps]
    nodes += [helper.make_node("Identity", [emits], ["row"], name="emit")] if copied else []
    inputs, outputs = [(h, FLOAT, SHAPE)], [("new", FLOAT, SHAPE), (made, FLOAT, SHAPE)]
    if op == "Loop":
        inputs = [("i", INT64, []), ("go", BOOL, []), *inputs]
        outputs = [("on", BOOL, []), *outputs]
        nodes.append(helper.make_node("Identity", ["go"], ["on"], name="n_on"))
        given, more = ["trip", "", "x"], {}
    else:
        inputs.append(("z", FLOAT, [8]))
        given, more = ["x", "z_all"], {"num_scan_inputs": 1}
    infos = [[helper.make_tensor_value_info(*item) for item in items] for items in (inputs, outputs)]
    body = helper.make_graph(nodes, "b", *infos, [numpy_helper.from_array(normal(8, 8, seed=1) / 3, "w")])
    whole = [
        helper.make_node(op, given, ["last", "rows"], name="steps", body=body, **more),
        helper.make_node("MatMul", ["rows", "v"], ["y"], name="down"),
    ]
    weights = {"v": normal(8, 4, seed=2), "trip": np.int64(5), "z_all": normal(5, 8, seed=3)}
    read = {name: value for name, value in weights.items() if any(name in node.input for node in whole)}
    return assembled(whole, [("x", FLOAT, SHAPE)], [("y", FLOAT, None), ("last", FLOAT, SHAPE)], read)


DATA = [{"x": normal(2, 8, seed=4)}]


@pytest.mark.parametrize("op", ["Loop", "Scan"])
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "what", "meant"),
    [
        ("new", "h", "its input '{h}' in the candidate, and its output 'new' in the reference", "new"),
        ("h", "new", "its output 'new' in the candidate, and its input 'h' in the reference", "{h}"),
        ("a", "h", "its input '{h}' in the candidate, and computed in the reference", ""),
    ],
)
@pytest.mark.parametrize("state", ["h", "other"])
def test_an_output_of_a_body_that_is_another_tensor_is_told(op, copied, first, second, what, meant, state):
    one = network(op, first)
    # what a Scan hands through without a copy, ONNX Runtime leaves as the memory was: now and then what it should be
    copied = copied or second == "new" or op == "Scan"
    other = network(op, state if second == "h" else second, copied=copied, h=state)
    culprit = only(compare(one, other, DATA))
    assert (culprit.node, culprit.op, culprit.cause) == ("steps", op, "wrong-op")
    assert what.format(h=state) in culprit.evidence
    put = f"'{meant.format(h=state)}'" if meant else "what it is in the first file"
    assert f"of the body be {put} in the second file" in culprit.remedies[0].text


def test_an_output_that_is_copied_otherwise_is_no_fault():
    """Of a Loop: ONNX Runtime gives zeros for what a Scan hands through without a copy."""
    report = compare(network("Loop", "h"), network("Loop", "h", copied=False), DATA)
    assert report.verdict == "pass"
    assert not report.culprits
