"""A runner of one's own: one method, defaults for the rest, and a mistake told in one line."""

from __future__ import annotations

import pickle

import numpy as np
import onnx.parser
import pytest
from layerdiff import Capabilities, Comparator, FunctionRunner, OnnxrtRunner, Runner, RunnerError, Session, UsageError
from layerdiff.graph.formats import FP32
from layerdiff.graph.model import Model
from layerdiff.runners import load_runner

TEXT = """<ir_version: 9, opset_import: ["" : 17]>
g (float[N] x) => (float[N] y) <float two = {2}> { h = Mul(x, two) y = Relu(h) }"""
X = np.array([-1.5, 0.5, 3.0], np.float32)
H, Y = 2 * X, np.maximum(2 * X, 0)


@pytest.fixture
def model() -> Model:
    return Model(onnx.parser.parse_model(TEXT))


class Evaluates(Runner):
    """Runs what it is given, and returns a function."""

    def open(self, model):
        from onnx.reference import ReferenceEvaluator

        evaluator, names = ReferenceEvaluator(model.copied()), [spec.name for spec in model.outputs]
        return lambda feed: dict(zip(names, evaluator.run(names, dict(feed)), strict=True))


def returning(*results, opens=True):
    """A runner class whose sessions return these results, one after the other."""
    left = list(results)

    class Mine(Runner):
        capabilities = Capabilities(pieces=opens)

        def open(self, model):
            return lambda feed: left.pop(0)

    return Mine


# ---- what need not be said ------------------------------------------------------------------------------------------


def test_one_method_is_a_runner(model):
    runner = Evaluates()
    assert (runner.name, runner.trust, runner.arithmetic, runner.capabilities) == (
        "evaluates",
        45,
        FP32,
        Capabilities(),
    )
    with runner.session(model) as session:
        assert ([s.name for s in session.inputs], [s.name for s in session.outputs]) == (["x"], ["y"])
        np.testing.assert_array_equal(session.infer({"x": X})["y"], Y)
        assert session.latency({"x": X}, 2).runs == 2


@pytest.mark.parametrize(
    ("name", "called"),
    [("MyRuntimeRunner", "my-runtime"), ("Torch", "torch"), ("ORTRunner", "ort"), ("Runner", "runner"), ("A_b", "a-b")],
)
def test_its_name_is_its_classs(name, called):
    assert type(name, (Evaluates,), {})().name == called


def test_inner_tensors_come_from_a_second_session_with_more_outputs(model):
    with Evaluates().session(model) as session:
        found = session.infer({"x": X}, ["y", "h", "x", "two"])
    assert list(found) == ["y", "h", "x", "two"]
    for name, expected in {"y": Y, "h": H, "x": X, "two": [2]}.items():
        np.testing.assert_array_equal(found[name], expected)


def test_a_session_whose_infer_knows_no_fetch_is_one_too(model):
    class Plain(Session):
        def __init__(self, function):
            self.function = function

        def infer(self, feed):
            return self.function(feed)

    class Mine(Evaluates):
        def open(self, model, progress):
            progress("thinking")
            return Plain(super().open(model))

    told = []
    with Mine().session(model, progress=told.append) as session:
        np.testing.assert_array_equal(session.infer({"x": X}, ["h"])["h"], H)
    assert told[0] == "thinking"


def test_a_session_that_takes_no_notice_of_fetch_gives_inner_tensors_all_the_same(model):
    class Deaf(Session):
        def __init__(self, function):
            self.function = function

        def infer(self, feed, fetch=None):
            return self.function(feed)

    class Mine(Evaluates):
        def open(self, model):
            return Deaf(super().open(model))

    with Mine().session(model) as session:
        np.testing.assert_array_equal(session.infer({"x": X}, ["h"])["h"], H)


def test_it_is_looked_at_layer_by_layer(model):
    class Adds(Evaluates):
        def open(self, model):
            proto = model.copied()
            for node in proto.graph.node:
                node.op_type = "Add" if node.op_type == "Mul" else node.op_type
            return super().open(model.derive(proto))

    proto = onnx.parser.parse_model(TEXT.replace("N", "3"))
    report = Comparator(proto, [OnnxrtRunner(), Adds()], data_loader=[{"x": X}], layers="guilty").compare()
    assert report.verdict == "fail"
    assert [(culprit.candidate, culprit.op) for culprit in report.culprits] == [("adds", "Mul")]


# ---- what is wrong with what it returns -----------------------------------------------------------------------------


class Odd:
    """No array, whatever it says."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("cannot leave the device\nsecond line")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "mine returned None, not a dict of arrays by output name."),
        ([Y], "mine returned a list, not a dict of arrays by output name."),
        (Y, "mine returned a ndarray, not a dict of arrays by output name."),
        ({}, "mine returned no 'y'; it gave nothing."),
        ({"z": Y}, "mine returned no 'y'; it gave 'z'."),
        ({"y": Y, "z": Y}, "mine returned 'z'; the outputs are 'y'."),
        ({"y": None}, "mine: output 'y' is None, not an array."),
        ({"y": {1.0, 2.0}}, "mine: output 'y' is a set, not an array."),
        ({"y": Odd()}, "mine: output 'y' (an Odd) is not readable: cannot leave the device"),
    ],
)
def test_a_wrong_return_value_is_told_in_one_line(model, result, message):
    with returning(result)().session(model) as session, pytest.raises(RunnerError) as refused:
        session.infer({"x": X})
    assert str(refused.value) == message


@pytest.mark.parametrize("value", [Y, np.float32(3), np.ma.asarray(Y)])
def test_whatever_numpy_reads_is_an_array(model, value):
    with returning({"y": value})().session(model) as session:
        assert isinstance(session.infer({"x": X})["y"], np.ndarray)


@pytest.mark.parametrize("value", [[1.0, 2.0, 3.0], (1, 2, 3), [np.float32(1), np.float32(2), np.float32(3)]])
def test_numbers_of_python_are_an_array_of_the_declared_type(model, value):
    with returning({"y": value})().session(model) as session:
        given = session.infer({"x": X})["y"]
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, [1, 2, 3])


def test_lists_that_are_no_array_are_told(model):
    with returning({"y": [[1.0], [1.0, 2.0]]})().session(model) as session, pytest.raises(RunnerError) as refused:
        session.infer({"x": X})
    assert "output 'y' (a list) is not readable" in str(refused.value)


def test_an_array_of_another_byte_order_is_the_same_array(model):
    with returning({"y": Y.astype(">f4")})().session(model) as session:
        given = session.infer({"x": X})["y"]
    assert given.dtype.isnative
    np.testing.assert_array_equal(given, Y)


@pytest.mark.parametrize("result", [None, 3, "session"])
def test_what_is_neither_a_session_nor_a_function_is_refused(model, result):
    class Mine(Runner):
        def open(self, model):
            return result

    with pytest.raises(RunnerError, match=r"mine: open returned .*, neither a session nor a function feed -> outputs"):
        Mine().session(model)


def test_a_mistake_is_an_error_of_its_runner_and_the_others_are_compared(model):
    runners = [OnnxrtRunner(), OnnxrtRunner(), returning(None)()]
    report = Comparator(model, runners, data_loader=[{"x": X}]).compare()
    assert report.exit_status == 3
    assert [r.error for r in report.runners][2] == "sample 0: mine returned None, not a dict of arrays by output name."
    assert ("onnxrt#2", "pass") in [(o.candidate, o.verdict) for o in report.outputs]


# ---- what it cannot do ----------------------------------------------------------------------------------------------


def test_without_a_way_to_inner_tensors_that_is_said(model):
    with (
        returning({"y": Y}, opens=False)().session(model) as session,
        pytest.raises(RunnerError, match="mine gives outputs alone, and was asked for 'h'"),
    ):
        session.infer({"x": X}, ["h"])


CANCELLING = """<ir_version: 9, opset_import: ["" : 17]>
g (float[1, 64] x) => (float[1, 64] y) <float big = {1000}> { a = Add(x, big) y = Sub(a, big) }"""


def test_a_reference_that_gives_outputs_alone_costs_no_verdict():
    """A difference of near equals errs by what its terms do, which only inner tensors tell."""
    x = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)

    def reference(feed):
        return {"y": feed["x"]}

    proto = onnx.parser.parse_model(CANCELLING)
    runners = [FunctionRunner(function=reference), OnnxrtRunner(optimization="disable")]
    report = Comparator(proto, runners, reference="reference", data_loader=[{"x": x}]).compare()
    assert [(o.candidate, o.verdict) for o in report.outputs] == [("onnxrt", "pass")]
    assert not any("does not show" in warning for warning in map(str, report.notices))


@pytest.mark.parametrize("reference", ["onnxrt", "mine"])
def test_layers_that_cannot_be_looked_at_cost_no_verdict(model, reference):
    runners = [OnnxrtRunner(), returning({"y": Y}, {"y": Y}, {"y": Y}, opens=False)()]
    report = Comparator(model, runners, reference=reference, data_loader=[{"x": X}], layers="all").compare()
    assert report.verdict == "pass"
    said = "runs no pieces of a model" if reference == "onnxrt" else "gives outputs alone"
    assert any(f"mine {said}" in warning for warning in map(str, report.notices))


# ---- a function -----------------------------------------------------------------------------------------------------


def doubled(feed):
    return {"y": np.maximum(2 * feed["x"], 0)}


def test_a_function_is_a_runner(model):
    runner = FunctionRunner(function=doubled)
    assert (runner.name, runner.capabilities.any_model) == ("doubled", False)
    assert Comparator(model, [OnnxrtRunner(), runner], data_loader=[{"x": X}]).compare().verdict == "pass"


def test_a_function_that_a_text_names_can_be_pickled_and_is_imported_when_it_runs(model, tmp_path, monkeypatch):
    (tmp_path / "lying_here.py").write_text("def run(feed):\n    return {'y': abs(feed['x'])}\n")
    monkeypatch.chdir(tmp_path)
    assert load_runner("lying_here:run") is FunctionRunner
    runner = pickle.loads(pickle.dumps(FunctionRunner(function="lying_here:run")))
    with runner.session(model) as session:
        np.testing.assert_array_equal(session.infer({"x": X})["y"], abs(X))


def test_a_function_is_no_side_of_two_files(model):
    runners = [OnnxrtRunner(), FunctionRunner(function=doubled)]
    with pytest.raises(
        UsageError, match="doubled has a network of its own, neither <memory> nor <memory>: name one model"
    ):
        Comparator(model, runners, candidate_model=onnx.parser.parse_model(TEXT)).compare()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "--runner nowhere: expected package.module:Class or package.module:function."),
        ("nowhere:Class", "--runner nowhere:Class: ModuleNotFoundError: No module named 'nowhere'."),
        ("math:nothing", "--runner math:nothing: AttributeError: module 'math' has no attribute 'nothing'."),
        ("math:pi", "--runner math:pi: this float is not a subclass of layerdiff.Runner, nor a function."),
        ("fractions:Fraction", "this class is not a subclass of layerdiff.Runner, nor a function."),
    ],
)
def test_what_runner_cannot_name_is_refused(spec, message):
    with pytest.raises(UsageError) as refused:
        load_runner(spec)
    assert message in str(refused.value)


# ---- what it says of itself -----------------------------------------------------------------------------------------


class Misdeclared(Evaluates):
    arithmetic = "bf16"


class Nameless(Evaluates):
    name = " "


class Raises(Evaluates):
    @property
    def trust(self):
        raise KeyError("rank")


class Unranked(Evaluates):
    trust = "low"


class OpensNothing(Runner):
    pass


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (Misdeclared, "misdeclared: `arithmetic` is 'bf16', not a NumberFormat"),
        (Nameless, "nameless: `name` is empty"),
        (Raises, "raises: `trust` cannot be had: KeyError: 'rank'"),
        (Unranked, "unranked: `trust` is 'low', not a whole number"),
        (OpensNothing, "opens-nothing: OpensNothing has no method `open(self, model)`"),
    ],
)
def test_a_wrong_word_about_itself_costs_that_runner_alone(model, cls, told):
    report = Comparator(model, [OnnxrtRunner(), Evaluates(), cls()], data_loader=[{"x": X}]).compare()
    assert [(o.candidate, o.verdict) for o in report.outputs] == [("evaluates", "pass")]
    (error,) = (r.error for r in report.runners if r.error)
    assert error.startswith(told)
    assert len(error.splitlines()) == 1


def test_what_is_no_runner_is_refused(model):
    for runners in (3, ["onnxrt"], [OnnxrtRunner(), OnnxrtRunner]):
        with pytest.raises(UsageError, match="is no runner"):
            Comparator(model, runners)
