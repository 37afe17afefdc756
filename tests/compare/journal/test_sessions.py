"""What a session gave is not run again, and nothing is remembered that depends on more than its key."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest
from layerdiff import EmulateRunner, FunctionRunner, OnnxrtRunner
from layerdiff.compare.journal import keys
from layerdiff.compare.journal.journal import Journal
from layerdiff.compare.journal.keys import runner_key
from layerdiff.compare.journal.sessions import FREE, RunJournal
from layerdiff.graph.load import load
from layerdiff.runners.contract.runner import Runner
from layerdiff.runners.contract.session import Session, SessionInfo
from layerdiff.runners.contract.workload import ShapeRange, Workload

from support.models import parsed

MODEL = parsed("g (float[N] x) => (float[N] y) { y = Mul(x, w) }", w=np.float32([2]))
OTHER = parsed("g (float[N] x) => (float[N] y) { y = Mul(x, w) }", w=np.float32([3]))
RANDOM = parsed("g (float[4] x) => (float[4] y) { r = RandomNormalLike(x) y = Add(x, r) }")
X = {"x": np.ones(3, np.float32)}


class Counting(Session):
    def __init__(self, runner, model):
        self.runner, self.inputs, self.outputs = runner, model.inputs, model.outputs
        self.info = SessionInfo({"option": 1}, {"it": "1.0"}, timing_cache=b"times")

    def infer(self, feed, fetch=None):
        self.runner.calls.append("infer")
        self.info = replace(self.info, notes=(f"run {len(self.runner.calls)}",))
        return {"y": feed["x"] + np.float32(self.runner.calls.count("infer"))}


@dataclass(frozen=True)
class CountingRunner(Runner):
    """Notes what it is asked for. Every run of it gives something else."""

    foreign: ClassVar[bool] = False  # type: ignore[assignment]
    calls: list[str] = field(default_factory=list, compare=False, repr=False)

    def open(self, model):
        self.calls.append("open")
        return Counting(self, model)


@pytest.fixture
def begin(tmp_path):
    """Begins a run on one folder."""

    def begin() -> RunJournal:
        return RunJournal(Journal(str(tmp_path / "journal"), "0" * 64))

    return begin


def runs(begin, runner, count, model=MODEL):
    """The outputs of some runs on one input, of a process that then ends."""
    mine = begin()
    with mine.entries, mine.session(runner, load(model)) as session:
        found = [session.infer(X)["y"].tolist() for _ in range(count)]
        return found, session.info.notes


def plain(calls):
    return replace(CountingRunner(), calls=calls)


def test_what_was_run_is_not_run_again(begin):
    calls: list[str] = []
    first = runs(begin, plain(calls), 2)
    assert first == ([[2, 2, 2], [3, 3, 3]], ("run 3",))
    assert runs(begin, plain(calls), 2) == first
    assert calls == ["open", "infer", "infer"]


def test_a_run_that_was_killed_goes_on(begin):
    calls: list[str] = []
    runs(begin, plain(calls), 1)
    assert runs(begin, plain(calls), 3)[0] == [[2, 2, 2], [3, 3, 3], [4, 4, 4]]
    assert calls == ["open", "infer", "open", "infer", "infer"]


def test_the_same_run_twice_is_two_runs(begin):
    """Else a runner would be found to give the same bits twice because it was not run twice."""
    one, other = runs(begin, plain([]), 2)[0]
    assert one != other
    assert runs(begin, plain([]), 2)[0] == [one, other]


def test_no_bytes_but_those_of_the_outputs_are_given(begin):
    runs(begin, plain([]), 1)
    mine = begin()
    with mine.entries, mine.session(plain([]), load(MODEL)) as session:
        made = session.infer(X)["y"]
        made[0] = 100
        assert [s.name for s in session.outputs] == ["y"]
        assert session.info.versions == {"it": "1.0"}


@dataclass(frozen=True)
class FileRunner(CountingRunner):
    files: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("runner", "model", "feed"),
    [
        (CountingRunner(), OTHER, X),
        (CountingRunner(), MODEL, {"x": X["x"] * np.float32(1.0000001)}),
        (CountingRunner(), MODEL, {"x": X["x"].astype(np.float64)}),
        (FileRunner(), MODEL, X),
    ],
    ids=["another weight", "another bit of the data", "another type of the data", "another runner"],
)
def test_whatever_is_not_the_same_is_run(begin, runner, model, feed):
    runs(begin, plain([]), 1)
    calls: list[str] = []
    mine = begin()
    with mine.entries, mine.session(replace(runner, calls=calls), load(model)) as session:
        session.infer(feed)
    assert "infer" in calls


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OnnxrtRunner(), OnnxrtRunner(optimization="disable")),
        (OnnxrtRunner(), OnnxrtRunner(threads=1)),
        (EmulateRunner(format="fp16"), EmulateRunner(format="bf16")),
        (EmulateRunner(format="fp16"), EmulateRunner(format="fp16", keep=("n",))),
        (OnnxrtRunner(), EmulateRunner(format="fp16")),
    ],
)
def test_every_setting_of_a_runner_counts(one, other):
    assert runner_key(one) == runner_key(replace(one))
    assert runner_key(one) != runner_key(other)


def test_the_content_of_a_file_that_a_runner_names_counts(tmp_path):
    library = tmp_path / "ops.so"
    library.write_bytes(b"one")
    before = runner_key(FileRunner(files=(str(library),)))
    library.write_bytes(b"two")
    assert runner_key(FileRunner(files=(str(library),))) != before


@pytest.mark.parametrize("runner", [FunctionRunner(function="a:b"), OnnxrtRunner(custom_ops=("ops.so",))])
def test_code_that_is_the_users_has_no_key(runner):
    assert runner_key(runner) is None


def test_what_draws_random_values_is_run_again(begin):
    calls: list[str] = []
    for _ in range(2):
        runs(begin, plain(calls), 1, RANDOM)
    assert calls == ["open", "infer"] * 2


PRODUCT = parsed("g (float[1,3] x) => (float[1,3] y) { y = MatMul(x, w) }", w=np.eye(3, dtype=np.float32))


@pytest.mark.parametrize(("fmt", "known"), [("int8", False), ("fp16", True)])
def test_what_a_format_is_calibrated_on_counts_where_it_is_calibrated(begin, fmt, known, monkeypatch):
    for values in (1.0, 2.0):
        sample = {"x": np.full((1, 3), values, np.float32)}
        mine, opened = begin(), []
        monkeypatch.setattr(Runner, "session", lambda *a, s=Runner.session, o=opened, **k: (o.append(1), s(*a, **k))[1])
        workload = Workload(samples=lambda sample=sample: iter([sample]))
        with mine.entries, mine.session(EmulateRunner(format=fmt), load(PRODUCT), workload=workload):
            pass
        monkeypatch.undo()
    assert (not opened) == known


def test_a_large_result_that_was_made_in_no_time_is_not_kept(begin):
    calls: list[str] = []
    large = {"x": np.zeros(FREE, np.float32)}
    for _ in range(2):
        mine = begin()
        with mine.entries, mine.session(plain(calls), load(MODEL)) as session:
            session.infer(large)
    assert calls == ["open", "infer"] * 2


@dataclass(frozen=True)
class WritingRunner(CountingRunner):
    capabilities = replace(Runner.capabilities, output_files=("path",))
    path: str = ""

    def open(self, model):
        onnx.save(model.proto, self.path)
        return super().open(model)


def test_a_file_that_opening_writes_is_there_afterwards(begin, tmp_path):
    path = tmp_path / "engine"
    for _ in range(2):
        runs(begin, WritingRunner(path=str(path)), 1)
        path.unlink()


def test_another_version_is_another_journal(monkeypatch):
    before = keys.made_by.__wrapped__()
    monkeypatch.setattr(keys.importlib.metadata, "version", lambda name: "99")
    assert keys.made_by.__wrapped__() != before


@dataclass(frozen=True)
class BuildingRunner(CountingRunner):
    capabilities = replace(Runner.capabilities, builds_for_shapes=True)


@pytest.mark.parametrize(("runner", "opened"), [(BuildingRunner, 2), (CountingRunner, 1)])
def test_shapes_that_an_engine_is_built_for_count(begin, runner, opened):
    calls: list[str] = []
    for most in (3, 4):
        mine, workload = begin(), Workload(shapes={"x": ShapeRange((1,), (2,), (most,))})
        with mine.entries, mine.session(replace(runner(), calls=calls), load(MODEL), workload=workload):
            pass
    assert calls == ["open"] * opened


class Keeping(Counting):
    def infer(self, feed, fetch=None):
        self.runner.seen.update(feed)
        self.runner.calls.append("infer")
        return {"y": self.runner.seen["a"] + self.runner.seen["b"]}


@dataclass(frozen=True)
class KeepingRunner(CountingRunner):
    """Takes some of its inputs alone once it was fed all of them."""

    capabilities = replace(Runner.capabilities, keeps_inputs=True)
    seen: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def open(self, model):
        self.seen.clear()
        return Keeping(self, model)


def test_inputs_of_remembered_runs_reach_a_session_that_keeps_them(begin):
    model = load(parsed("g (float[N] a, float[N] b) => (float[N] y) { y = Add(a, b) }"))
    feeds: list[dict[str, np.ndarray]] = [{"a": np.float32([1]), "b": np.float32([2])}, {"a": np.float32([5])}]
    for feed, runs_made in (({"b": np.float32([4])}, 3), ({"a": np.float32([7])}, 1)):
        feeds.append(feed)
        mine, calls = begin(), []  # type: ignore[var-annotated]
        with mine.entries, mine.session(KeepingRunner(calls=calls), model) as session:
            made = [session.infer(each)["y"].tolist() for each in feeds]
        assert made == [[3], [7], [9], [11]][: len(feeds)]
        assert len(calls) == runs_made
