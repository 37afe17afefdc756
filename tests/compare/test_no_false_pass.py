"""What must never be taken for agreement: programs that end too early, and comparisons of nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, FunctionRunner, OnnxrtRunner
from layerdiff.compare.cli.command import main
from onnx import TensorProto, helper

from support.models import parsed

RELU = "g (float[4] x) => (float[4] y) { y = Relu(x) }"

MODULE = """
import sys
import numpy as np
from layerdiff import Runner, Session

class Ends(Session):
    def __init__(self, model, how): self.inputs, self.outputs, self.how = model.inputs, model.outputs, how
    def infer(self, feed, fetch=None):
        if self.how == "infer": sys.exit(0)
        return {"y": np.maximum(feed["x"], 0)}
    def close(self):
        if self.how == "close": sys.exit(0)

class Open(Runner):
    def open(self, model): sys.exit(0)
class Infer(Runner):
    def open(self, model): return Ends(model, "infer")
class Close(Runner):
    def open(self, model): return Ends(model, "close")
class Name(Infer):
    @property
    def name(self): sys.exit(0)
class Arithmetic(Infer):
    @property
    def arithmetic(self): sys.exit(0)

def function(feed): sys.exit(0)
def generator_exit(feed): raise GeneratorExit
def own(feed): raise type("Own", (BaseException,), {})("no")
def unspeakable(feed):
    class Silent(Exception):
        def __str__(self): raise RuntimeError
    raise Silent
def metric(outputs, labels): sys.exit(0)
"""


@pytest.fixture
def ending(tmp_path, monkeypatch) -> Path:
    """A folder with a model, data, and a module whose code ends programs."""
    onnx.save(parsed(RELU), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.array([-1, 0, 1, 2], np.float32))
    np.save(tmp_path / "labels.npy", np.zeros(4, np.int64))
    (tmp_path / "ending.py").write_text(MODULE)
    (tmp_path / "dies.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "loader.py").write_text("import sys\ndef load_data():\n    sys.exit(0)\n    yield\n")
    (tmp_path / "loads.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("ending", "dies"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("--runner ending:Open", 3),
        ("--runner ending:Infer", 3),
        ("--runner ending:Close", 3),
        ("--runner ending:Name", 3),
        ("--runner ending:Arithmetic", 3),
        ("--runner ending:function", 3),
        ("--runner ending:generator_exit", 3),
        ("--runner ending:own", 3),
        ("--runner ending:unspeakable", 3),
        ("--runner dies:Runner", 2),
        ("--onnxrt --data loader.py", 2),
        ("--onnxrt --data loads.py", 2),
        ("--onnxrt --data x.npy --labels labels.npy --metric ending:metric", 2),
    ],
)
def test_nobody_else_ends_the_program(words, status, ending, capsys):
    assert main(["m.onnx", "--onnxrt", *words.split()]) == status
    printed = capsys.readouterr()
    assert not any(line.startswith("pass") for line in printed.out.splitlines())
    assert "Traceback" not in printed.err


def test_a_runner_that_ends_keeps_the_rest_of_the_report(ending):
    words = "m.onnx --onnxrt --onnxrt --runner ending:Infer --runner ending:Close --json report.json"
    assert main(words.split()) == 3
    found = json.loads((ending / "report.json").read_text())
    assert found["verdict"] == "error"
    assert {o["candidate"]: o["verdict"] for o in found["outputs"]} == {"onnxrt#2": "pass", "close": "pass"}
    errors = {r["name"]: r["error"] for r in found["runners"]}
    assert errors["infer"] == "sample 0: Ended: it called sys.exit(0)"
    assert errors["close"] == "closing: Ended: it called sys.exit(0)"


def outcome(model, *runners, **rules):
    data = rules.pop("data", [{"x": np.array([-1, 0, 1, 2], np.float32)}])
    report = Comparator(model, runners or [OnnxrtRunner(), OnnxrtRunner()], data_loader=data, **rules).compare()
    return report.verdict, {o.tensor: o.reason for o in report.outputs}


BUFFER = np.zeros(4, np.float32)


def shared(shift: float):
    def function(feed):
        BUFFER[:] = feed["x"] + shift
        return {"y": BUFFER}

    return FunctionRunner(function=function)


def test_runners_that_share_a_buffer_are_not_compared_with_themselves():
    assert outcome(parsed(RELU), shared(0), shared(7))[0] == "fail"


def same(feed):
    return {"y": np.array([1, 2, 3, 4], np.float32)}


@pytest.mark.parametrize(
    "body", ["y = RandomNormalLike(x)", "n = RandomNormalLike(x) z = Abs(n) y = Add(z, x)", "y = Bernoulli(x)"]
)
def test_random_values_agree_by_chance(body):
    runners = FunctionRunner(function=same), FunctionRunner(function=same)
    verdict, reasons = outcome(parsed(f"g (float[4] x) => (float[4] y) {{ {body} }}"), *runners)
    assert verdict == "undecided"
    assert "draws random values without a seed" in reasons["y"]


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("n = RandomNormalLike<seed = 1.0>(x) y = Relu(x)", "pass"),
        ("n = RandomNormalLike(x) s = Shape(n) y = Reshape(x, s)", "pass"),
    ],
)
def test_what_no_random_value_reaches_agrees(body, verdict):
    assert outcome(parsed(f"g (float[4] x) => (float[4] y) {{ {body} }}"))[0] == verdict


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, 2, 3, 4], "M8[s]"),
        np.zeros(4, [("a", "f4"), ("b", "f4")]),
        np.array([b"abcd"] * 4, "V4"),
        np.array([object()] * 4),
        np.zeros(4, np.longdouble),
    ],
    ids=lambda v: str(v.dtype),
)
def test_values_that_onnx_has_not_are_the_runners_failure(value):
    runners = [FunctionRunner(function=lambda feed: {"y": value}), FunctionRunner(function=lambda feed: {"y": value})]
    assert outcome(parsed(RELU), *runners)[0] == "error"


@pytest.mark.parametrize("value", [np.zeros((0, 4), np.float32), np.full(4, -np.inf, np.float32)])
def test_a_pass_of_nothing_is_undecided(value):
    runners = [FunctionRunner(function=lambda feed: {"y": value}), FunctionRunner(function=lambda feed: {"y": value})]
    verdict, reasons = outcome(parsed(RELU), *runners, rtol=0.1, atol=0.1)
    assert verdict == "undecided"
    assert reasons["y"].endswith("so that nothing was compared")


@pytest.mark.parametrize(
    ("value", "nan_equal", "expected", "on_random_inputs"),
    [
        (np.float32(np.nan), True, "pass", "undecided"),
        (np.float32(np.nan), False, "fail", "undecided"),
        (np.array([np.nan, np.inf], np.float32), True, "pass", "undecided"),
        (np.array([np.nan, 1], np.float32), True, "pass", "pass"),
        (np.full(4, np.inf, np.float32), True, "undecided", "undecided"),
    ],
)
def test_nan_that_equals_nan_proves_nothing_on_random_inputs(value, nan_equal, expected, on_random_inputs):
    runners = [FunctionRunner(function=lambda feed: {"y": value}), FunctionRunner(function=lambda feed: {"y": value})]
    assert outcome(parsed(RELU), *runners, nan_equal=nan_equal)[0] == expected
    assert outcome(parsed(RELU), *runners, nan_equal=nan_equal, data=None)[0] == on_random_inputs


@pytest.mark.parametrize("fmt", ["int8", "e4m3"])
def test_a_float_that_int8_or_fp8_leaves_equal_is_undecided_and_an_integer_passes(fmt):
    body = (
        "g (float[4, 4] x) => (float[4, 4] s, int64[4, 1] i) { t = MatMul(x, x) s = Sign(t) i = ArgMax<axis = 1>(t) }"
    )
    data = [{"x": np.diag([4, 3, 2, 1]).astype(np.float32)}]
    _, reasons = outcome(parsed(body), OnnxrtRunner(), EmulateRunner(format=fmt), data=data)
    assert reasons["i"] is None
    assert "say what is good enough" in reasons["s"]


W = np.eye(4, dtype=np.float32) / 3
IN_A_FUNCTION = """<ir_version: 9, opset_import: ["": 17, "my": 1]>
g (float[4, 4] x) => (float[4, 4] y) { w = Constant<value = float[4, 4] {%s}>() y = my.F(x, w) }
<domain: "my", opset_import: ["": 17]> F (a, b) => (c) { c = MatMul(a, b) }""" % ", ".join(map(str, W.ravel()))  # noqa: UP031


def in_a_body(op: str) -> onnx.ModelProto:
    """A network whose only product is in the body of an If, Loop or Scan."""
    value = helper.make_tensor_value_info
    inner = helper.make_node("MatMul", ["s" if op != "If" else "x", "w"], ["made"])
    made = value("made", TensorProto.FLOAT, [4, 4])
    if op == "If":
        body = helper.make_graph([inner], "b", [], [made])
        nodes = [helper.make_node("If", ["true"], ["y"], then_branch=body, else_branch=body)]
    elif op == "Loop":
        inputs = [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("s", 1, [4, 4])]
        body = helper.make_graph(
            [inner, helper.make_node("Identity", ["c"], ["c2"])], "b", inputs, [value("c2", TensorProto.BOOL, []), made]
        )
        nodes = [helper.make_node("Loop", ["two", "true", "x"], ["y"], body=body)]
    else:
        inputs = [value("s", 1, [4, 4]), value("e", 1, [4])]
        body = helper.make_graph([inner], "b", inputs, [made])
        nodes = [helper.make_node("Scan", ["x", "x"], ["y"], body=body, num_scan_inputs=1)]
    constants = {"w": W, "true": np.array(True), "two": np.array(2, np.int64)}
    weights = [onnx.numpy_helper.from_array(v, n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 1, [4, 4])], [value("y", 1, [4, 4])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


SQUARE = [{"x": np.random.default_rng(0).uniform(0, 1, (4, 4)).astype(np.float32)}]


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_int8_that_quantizes_nothing_proves_nothing(op):
    verdict, reasons = outcome(
        in_a_body(op), OnnxrtRunner(), EmulateRunner(format="int8"), data=SQUARE, rtol=0.1, atol=0.1
    )
    assert (verdict, reasons["y"][:45]) == ("undecided", "nothing of this network was rounded to INT8, ")


def test_int8_quantizes_inside_functions():
    model = onnx.parser.parse_model(IN_A_FUNCTION)
    runners = OnnxrtRunner(), EmulateRunner(format="int8")
    assert outcome(model, *runners, data=SQUARE, rtol=0.05, atol=0.05)[0] == "pass"
    assert outcome(model, *runners, data=SQUARE, rtol=0, atol=1e-6)[0] == "fail"
