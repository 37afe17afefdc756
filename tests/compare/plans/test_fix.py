"""``--fix`` from end to end: a plan for an emulated format, its file, and its application."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, EmulateRunner, OnnxrtRunner
from layerdiff.compare import stages
from layerdiff.compare.cli.command import main
from layerdiff.compare.plans import fix as fixing
from layerdiff.compare.plans.bench import Bench
from layerdiff.compare.plans.file import plan_from, problem_of, read
from layerdiff.compare.report.terminal.plan import plan_lines
from layerdiff.graph.errors import UsageError
from layerdiff.graph.formats import FP16
from layerdiff.runners.contract.runner import Runner
from onnx import numpy_helper

from support.models import parsed
from support.plan_networks import cancelling, overflowing, samples, weights

RUNNERS = [OnnxrtRunner(), EmulateRunner(format="fp16")]


def fixed(path: Path, runners=RUNNERS, **options):
    return Comparator(overflowing(), runners, data_loader=samples(), fix=str(path), **options).compare()


def test_the_layers_that_overflow_are_kept_each_with_its_proof(tmp_path):
    report = fixed(tmp_path / "plan.json")
    plan = report.plan
    assert report.verdict == "fail", "as it was asked for, the candidate disagrees"
    assert plan.status == "found"
    assert [layer.node for layer in plan.kept] == ["fc1", "fc2"], "who makes what overflows, and who reads it"
    assert plan.keep == ("fc1", "act1", "fc2", "act2")
    assert plan.after.passed
    assert plan.minimal
    assert all(layer.without is not None and not layer.without.passed for layer in plan.kept)
    assert plan.kept[0].reason == "overflow"
    assert plan.runs <= 5


def test_a_plan_is_applied_and_compared_again(tmp_path):
    fixed(tmp_path / "plan.json")
    report = Comparator(overflowing(), RUNNERS, data_loader=samples(), plan=str(tmp_path / "plan.json")).compare()
    assert report.verdict == "pass"
    assert report.candidates[0].options["keep"] == ["fc1", "act1", "fc2", "act2"]
    assert not [n for n in report.notices if n.code == "plan-of-another"]


def test_a_plan_of_another_network_is_said_to_be_one(tmp_path):
    fixed(tmp_path / "plan.json")
    path = str(tmp_path / "plan.json")
    report = Comparator(overflowing(5), RUNNERS, data_loader=samples(), plan=path).compare()
    assert [n.code for n in report.notices if n.subject == path] == ["plan-of-another"]


def test_a_search_goes_on_where_it_was(tmp_path, monkeypatch):
    """With the runs of one that was killed, a search comes to what it comes to undisturbed, and runs what is left."""
    opened = counted_opens(monkeypatch)
    whole = fixed(tmp_path / "whole.json", resume=str(tmp_path / "whole")).plan
    usual = len(opened)
    opened.clear()
    resume = str(tmp_path / "journal")
    usually, left = Bench.judged, iter(range(3))

    def killed(*arguments, **more):
        if next(left, 2) < 2:
            return usually(*arguments, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "judged", killed)
    with pytest.raises(KeyboardInterrupt):
        fixed(tmp_path / "plan.json", resume=resume)
    monkeypatch.setattr(Bench, "judged", usually)
    before = len(opened)
    assert 0 < before < usual
    found = fixed(tmp_path / "plan.json", resume=resume).plan
    assert len(opened) == usual, "each set was run once"
    assert trials(found) == trials(whole)
    assert (found.runs, found.probes, found.keep, found.minimal) == (
        whole.runs,
        whole.probes,
        whole.keep,
        whole.minimal,
    )


def counted_opens(monkeypatch) -> list[str]:
    """Notes the name of every emulation that is opened on the whole network."""
    opened: list[str] = []
    usual = EmulateRunner.open

    def open(runner, model, **more):
        opened.extend([] if model.derived else [runner.name])
        return usual(runner, model, **more)

    monkeypatch.setattr(EmulateRunner, "open", open)
    return opened


def trials(plan):
    return [replace(point.trial, seconds=0.0) for point in plan.curve]


def test_a_file_that_is_no_plan_is_not_overwritten(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("[1, 2]")
    with pytest.raises(UsageError, match=r"--fix .*plan\.json: is no plan: expected an object\."):
        fixed(path)
    assert path.read_text() == "[1, 2]"


def test_nothing_is_kept_where_nothing_has_to_be(tmp_path):
    report = fixed(tmp_path / "plan.json", [OnnxrtRunner(), EmulateRunner(format="bf16")])
    assert (report.plan.status, report.plan.keep) == ("not needed", ())


def test_where_fp32_does_not_pass_that_is_the_answer_with_its_proof(tmp_path):
    other = overflowing()
    weight = next(t for t in other.graph.initializer if t.name == "w3")
    weight.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(weight), "w3"))
    plan = fixed(tmp_path / "plan.json", candidate_model=other).plan
    assert plan.status == "none"
    assert "with every layer in FP32 it does not pass either: " in plan.why
    assert plan.fp32.verdict == "fail"
    assert plan.runs == 1


def test_int8_without_a_tolerance_has_nothing_to_reach(tmp_path):
    with pytest.raises(UsageError, match="nothing says when emulate:int8 is good enough"):
        fixed(tmp_path / "plan.json", [OnnxrtRunner(), EmulateRunner(format="int8")])


@pytest.mark.parametrize(
    ("runners", "message"),
    [
        ([OnnxrtRunner(), OnnxrtRunner()], "--fix is for a runner that computes in a narrower format"),
        ([*RUNNERS, EmulateRunner(format="bf16")], "--fix makes a plan for one runner, and there are 2"),
    ],
)
def test_a_plan_is_for_one_runner_that_computes_narrowly(tmp_path, runners, message):
    with pytest.raises(UsageError, match=message):
        fixed(tmp_path / "plan.json", runners)


def test_int8_is_planned_by_a_tolerance(tmp_path):
    rng = np.random.default_rng(3)
    spread = [{"x": (f["x"] * np.where(rng.random(f["x"].shape) < 0.02, 50, 1)).astype(np.float32)} for f in samples()]

    model = parsed(
        "g (float[8,16] x) => (float[8,16] y) { [a] m = MatMul(x, w) t = Relu(m) [b] n = MatMul(t, v) u = Tanh(n) "
        "[c] y = MatMul(u, z) }",
        w=weights(1),
        v=weights(2),
        z=weights(3),
    )
    runners = [OnnxrtRunner(), EmulateRunner(format="int8")]
    path = str(tmp_path / "plan.json")
    report = Comparator(model, runners, data_loader=spread, fix=path, rtol=0, atol=0.03).compare()
    plan = report.plan
    assert plan.status == "found"
    assert 0 < len(plan.kept) < 3
    assert plan.after.passed


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_plan_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "plan.json"
    plan = fixed(path).plan
    assert plan_from(read(str(path)), plan.path) == plan


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": "other"}, "its schema is 'other', expected 'layerdiff.plan/1'"),
        ({"keep": [1]}, "'keep' holds something else than names of nodes"),
        ({"status": "done"}, "its status is 'done'"),
        ({"kept": [{"node": "a"}]}, "'kept' holds something else than layers"),
        ({"minimal": None}, "'minimal' is missing or of another type"),
        ({"curve": [{"layers": 1}]}, "a part of it is missing or of another type"),
        ({"after": "good"}, "a part of it is missing or of another type: 'good' stands where an object is expected"),
        (
            {"layers": "ten"},
            "a part of it is missing or of another type: 'ten' stands where a whole number is expected",
        ),
        ({"seconds": "c"}, "a part of it is missing or of another type: 'c' stands where a number is expected"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_with_what_is_wrong(tmp_path, change, problem):
    path = tmp_path / "plan.json"
    fixed(path)
    assert problem in problem_of({**json.loads(path.read_text()), **change})


def test_what_holds_no_plan_is_neither_applied_nor_exported(tmp_path, capsys):
    path = tmp_path / "plan.json"
    fixed(path, fix_budget=1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "unfinished", "why": "it was stopped"}))
    with pytest.raises(UsageError, match="holds no plan that passed: it was stopped"):
        Comparator(overflowing(), RUNNERS, data_loader=samples(), plan=str(path)).compare()
    assert main(["plan", str(path), "--as", "trtexec"]) == 2
    assert "holds no plan that passed" in capsys.readouterr().err
    assert main(["plan", str(path)]) == 0


@pytest.mark.parametrize("option", ["fix", "fixed_model", "apply_remedy"])
def test_a_path_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, option):
    paths = {"fix": str(tmp_path / "plan.json"), option: str(tmp_path / "nowhere" / "file")}
    comparator = Comparator(overflowing(), RUNNERS, data_loader=samples(), **paths)
    with pytest.raises(UsageError, match="cannot be written"):
        comparator.compare()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_by_which_labels_it_was_made(tmp_path):
    path, runners = tmp_path / "plan.json", [OnnxrtRunner(), EmulateRunner(format="int8")]
    right = np.argmax(np.concatenate([r["y"] for r in references()]), axis=1)
    told = {"metric": "top1", "metric_drop": 0.0, "fix": str(path)}
    origins = []
    for labels in (right, right[::-1].copy()):
        Comparator(overflowing(), runners, data_loader=samples(), labels=labels, **told).compare()
        origins.append(json.loads(path.read_text())["origin"]["rules"])
    assert origins[0] != origins[1]


def references():
    from layerdiff.graph.load import load

    with OnnxrtRunner().open(load(overflowing())) as session:
        return [dict(session.infer(feed)) for feed in samples()]


# ---- a runtime that builds engines -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineRunner(Runner):
    """Stands for a runtime whose runs are expensive: what layers cost is measured on emulations of its format.

    With ``every_node`` its kernels round inside of what the usual emulation takes for one kernel.
    """

    keep: tuple[str, ...] = ()
    every_node: bool = False
    builds: list[tuple[str, ...]] = field(default_factory=list, compare=False, repr=False)

    arithmetic = FP16
    narrows = True

    @property
    def kept(self):
        return self.keep

    def keeping(self, nodes):
        return replace(self, keep=tuple(nodes))

    def open(self, model, *, workload=None):
        if not model.derived:
            self.builds.append(self.keep)
        emulation = EmulateRunner(format="fp16", keep=self.keep, every_node=self.every_node)
        return emulation.open(model, workload=workload)


def test_engines_are_built_to_verify_and_not_to_measure_layers(tmp_path):
    runner = EngineRunner()
    plan = fixed(tmp_path / "plan.json", [OnnxrtRunner(), runner]).plan
    assert [layer.node for layer in plan.kept] == ["fc1", "fc2"]
    assert plan.minimal
    assert plan.probes == 5
    assert runner.builds[0] == ()
    assert runner.builds[1] == plan.keep, "the first set that is built passes"
    assert len(runner.builds) == 1 + plan.runs == 4, "and one without each of its layers"


def test_what_the_usual_emulation_does_not_show_is_fixed_by_the_first_engine(tmp_path):
    runners = [OnnxrtRunner(), EmulateRunner(format="fp16")]
    passing = Comparator(cancelling(), runners, data_loader=samples()).compare()
    assert passing.verdict == "pass", "emulated as one kernel, it does not round between the sum and the difference"
    runner = EngineRunner(every_node=True)
    path = str(tmp_path / "plan.json")
    plan = Comparator(cancelling(), [OnnxrtRunner(), runner], data_loader=samples(), fix=path).compare().plan
    assert [layer.node for layer in plan.kept] == ["fc1"]
    assert plan.minimal
    assert plan.first_pass == plan.runs == 1
    assert plan.predicted.error == pytest.approx(plan.after.relative, rel=0.5)


@pytest.mark.parametrize("without", ["culprits", "emulations"])
def test_either_of_what_layers_and_emulations_show_finds_the_layer(tmp_path, monkeypatch, without):
    if without == "culprits":
        usual = stages.fix
        monkeypatch.setattr(stages, "fix", lambda c, log, o, r, *more: usual(c, log, o, replace(r, culprits=()), *more))
    else:
        monkeypatch.setattr(fixing, "nearest", lambda able, before, whole: able[0])
    path, runner = str(tmp_path / "plan.json"), EngineRunner(every_node=True)
    plan = Comparator(cancelling(), [OnnxrtRunner(), runner], data_loader=samples(), fix=path).compare().plan
    assert [layer.node for layer in plan.kept] == ["fc1"]
    assert (plan.first_pass, plan.runs, plan.minimal) == (1, 1, True)


def test_runs_are_timed_where_times_are_asked_for(tmp_path):
    plan = fixed(tmp_path / "plan.json", latency=2).plan
    assert plan.after.latency > 0
    assert plan.fp32.latency > 0


def test_an_engine_of_everything_in_fp32_is_built_to_be_timed_and_takes_nothing_of_the_budget(tmp_path):
    runner = EngineRunner()
    plan = fixed(tmp_path / "plan.json", [OnnxrtRunner(), runner], latency=2, fix_budget=3).plan
    assert plan.minimal
    assert (plan.first_pass, plan.runs) == (1, 3)
    assert len(runner.builds) == 1 + 1 + plan.runs
    assert min(plan.before.latency, plan.after.latency, plan.fp32.latency) > 0
    assert plan.cost == "arithmetic", "this runtime does not tell what its kernels take"
    (line,) = (line for line in plan_lines(plan) if line.startswith("one run takes"))
    assert re.fullmatch(
        "one run takes .* ms all in FP16, .* ms with the plan, .* ms all in FP32; "
        "what keeping a layer costs is counted in multiplications and bytes",
        line,
    )


def test_an_engine_of_everything_in_fp32_that_does_not_pass_ends_the_search(tmp_path):
    other = overflowing()
    weight = next(t for t in other.graph.initializer if t.name == "w3")
    weight.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(weight), "w3"))
    runners = [OnnxrtRunner(), EngineRunner()]
    plan = fixed(tmp_path / "plan.json", runners, candidate_model=other, latency=2).plan
    assert plan.status == "none"
    assert plan.fp32.verdict == "fail"
    assert plan.runs == 0


def test_models_that_are_run_in_pieces_have_no_plan(tmp_path):
    model = overflowing()
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    path = str(tmp_path / "plan.json")
    rules = {"fix": path, "memory": 1000}
    report = Comparator(str(tmp_path / "net.onnx"), RUNNERS, data_loader=samples(), **rules).compare()
    assert report.plan is None
    assert "in pieces" in next(n.text for n in report.notices if n.code == "no-plan")


def test_a_cast_of_integers_that_a_format_cannot_hold_is_a_layer_that_can_be_kept(tmp_path):
    text = """g (int64[8,16] p) => (float[8,16] y) {
        [pos] f = Cast<to=1>(p) [angle] a = Mul(f, c) [sin] s = Sin(a) [fc] y = MatMul(s, w)
    }"""
    data = [{"p": np.arange(3001, 3129, dtype=np.int64).reshape(8, 16)}]
    w = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32) / 4
    model = parsed(text, c=np.float32(0.7), w=w)
    path = str(tmp_path / "plan.json")
    plan = Comparator(model, RUNNERS, data_loader=data, fix=path, rtol=0.01, atol=0.01).compare().plan
    assert plan.status == "found"
    assert "pos" in plan.keep
    assert plan.after.passed
