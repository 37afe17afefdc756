"""Sizes that were guessed and that a runner refuses: others are tried; what the user gave stays."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from layerdiff import Comparator, DataLoader, OnnxrtRunner, Runner
from layerdiff.compare.cli.command import main
from layerdiff.graph.errors import MissingPackage, ProviderUnavailable, RunnerDied

from support.models import parsed
from support.runners import FunctionRunner

OPEN = parsed("g (float[batch, length] x) => (float[batch, length] y) { y = Identity(x) }")
LOADER = DataLoader(samples=1)


def taking(takes: Callable[[tuple[int, ...]], bool], label: str = "picky", seen: list | None = None) -> FunctionRunner:
    """A runner that computes inputs of some shapes alone."""

    def function(feed):
        if seen is not None:
            seen.append(feed["x"].shape)
        if not takes(feed["x"].shape):
            raise ValueError(f"no {'x'.join(map(str, feed['x'].shape))}")
        return {"y": feed["x"]}

    return FunctionRunner(function=function, label=label)


def ran(*runners, loader=LOADER, **options):
    return Comparator(OPEN, list(runners), data_loader=loader, **options).compare()


@pytest.mark.parametrize(
    ("takes", "option", "told"),
    [
        (lambda shape: shape[1] >= 500, "x:2x512", "picky refuses 'x' of 2x8, where 8 was a guess; 2x512 was run"),
        (lambda shape: shape[0] == 1, "x:1x8", "where 2 was a guess; 1x8 was run"),
        (lambda shape: shape[0] == 1 and shape[1] % 64 == 0, "x:1x64", "where 2 and 8 were guesses; 1x64 was run"),
        (lambda shape: shape[0] == 16, "x:16x8", "where 2 was a guess; 16x8 was run"),
    ],
)
def test_a_guess_that_a_runner_refuses_is_replaced_and_said(takes, option, told):
    report = ran(OnnxrtRunner(), taking(takes))
    (notice,) = (notice for notice in report.notices if notice.code == "size-refused")
    assert (report.verdict, notice.subject) == ("pass", option)
    assert told in notice.text
    assert f"(--shape {option})" in notice.text


def test_everybody_takes_the_other_size():
    report = ran(OnnxrtRunner(), taking(lambda shape: shape[1] > 8), taking(lambda shape: shape[1] % 96, "odd"))
    assert (report.verdict, [runner.error for runner in report.runners]) == ("pass", [None] * 3)
    report = ran(taking(lambda shape: shape[1] > 8, "a"), taking(lambda shape: shape[1] in (8, 512), "b"))
    assert [notice.subject for notice in report.notices if notice.code == "size-refused"] == ["x:2x512"]


@pytest.mark.parametrize(
    "loader",
    [DataLoader(shapes={"x": (2, 8)}, samples=1), [{"x": np.ones((2, 8), np.float32)}]],
    ids=["--shape", "data"],
)
def test_what_the_user_gave_is_not_changed(loader):
    seen: list[tuple[int, ...]] = []
    report = ran(OnnxrtRunner(), taking(lambda shape: False, seen=seen), loader=loader)
    assert (report.verdict, set(seen)) == ("error", {(2, 8)})


def test_a_dimension_that_was_given_stays_beside_one_that_was_not():
    seen: list[tuple[int, ...]] = []
    loader = DataLoader(shapes={"x": (3, None)}, samples=1)
    report = ran(OnnxrtRunner(), taking(lambda shape: shape[1] == 32, seen=seen), loader=loader)
    assert report.verdict == "pass"
    assert {shape[0] for shape in seen} == {3}


def test_a_runner_that_refuses_every_size_fails_as_it_did():
    report = ran(OnnxrtRunner(), taking(lambda shape: False))
    assert (report.verdict, report.exit_status) == ("error", 3)
    assert "sample 0: ValueError: no 2x8" in report.runners[1].error
    assert "size-refused" not in {notice.code for notice in report.notices}


@pytest.mark.parametrize("shape", ["shape", "Concat"], ids=["alone", "joined"])
def test_a_size_that_the_graph_itself_gives_is_tried(shape):
    """An export for one length has it in its Reshapes."""
    made = "" if shape == "shape" else "s = Concat <axis=0> (rest, seven)"
    body = f"{made} y = Reshape(x, {'fixed' if shape == 'shape' else 's'})"
    network = parsed(
        f"g (float[batch, length] x) => (float[A, B] y) {{ {body} }}",
        seven=np.array([7]),
        rest=np.array([-1]),
        fixed=np.array([-1, 7]),
    )
    runner = taking(lambda shape: shape[1] == 7)
    report = Comparator(network, [taking(lambda shape: shape[1] == 7, "a"), runner], data_loader=LOADER).compare()
    assert {n.subject for n in report.notices if n.code == "size-refused"} == {"x:2x7"}


def test_where_no_size_does_the_option_is_named():
    report = ran(OnnxrtRunner(), taking(lambda shape: False))
    (notice,) = (n for n in report.notices if n.code == "sizes-unfit")
    assert notice.text.startswith("picky failed at sizes that were guessed ('x' of 2x8)")
    assert "--shape x:DIMS" in notice.text


def test_a_runner_that_cannot_be_opened_is_not_tried_again():
    refusing = FunctionRunner(label="closed", refuses=ValueError("no such operator"))
    assert ran(OnnxrtRunner(), refusing).verdict == "error"
    assert len(refusing.opened) == 1


@pytest.mark.parametrize(
    "error",
    [
        RunnerDied("dies: running: no answer within 3 s (--timeout)"),
        MissingPackage("TensorRT", "gpu"),
        ProviderUnavailable("there is no GPU"),
        None,
    ],
    ids=["died or hangs", "not installed", "no device", "wrong result"],
)
def test_a_failure_that_sizes_have_no_part_in_is_not_tried_at_others(error):
    seen: list[tuple[int, ...]] = []

    def fails(feed):
        seen.append(feed["x"].shape)
        if error is None:
            return {"another": feed["x"]}
        raise error

    class Fails(Runner):
        def open(self, model):
            return fails

    assert ran(OnnxrtRunner(), Fails()).verdict == "error"
    assert len(seen) == 1


def test_outputs_that_are_kept_are_those_of_the_other_size():
    results = Comparator.run([OnnxrtRunner(), taking(lambda shape: shape[1] == 16)], LOADER, model=OPEN)
    assert results["picky"][0]["y"].shape == (2, 16)
    report = Comparator.compare_accuracy(results)
    assert report.verdict == "pass"
    assert "size-refused" in {notice.code for notice in report.notices}


# ONNX's shape inference does not see that the length has to be a multiple of 64
SPLIT = """g (float[batch, length] x) => (float[A, B, C] y) {
    s = Shape(x)  n = Gather <axis=0> (s, one)  q = Div(n, width)  shape = Concat <axis=0> (rest, q, width)
    r = Reshape(x, shape)  y = Add(r, w) }"""
SIZES = {"one": np.array([1]), "width": np.array([64]), "rest": np.array([-1])}


@pytest.fixture
def split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(parsed(SPLIT, w=np.linspace(1, 2, 64, dtype=np.float32), **SIZES), "split.onnx")
    return tmp_path


@pytest.mark.parametrize("isolate", ["off", "on"])
def test_the_command_that_is_told_repeats_the_run_without_trying(isolate, split, capsys):
    words = ["split.onnx", "--onnxrt", "--emulate=fp16", "--layers", "--samples=1", f"--isolate={isolate}"]
    assert main([*words, "--json", "first.json", "--save-inputs", "inputs.npz"]) == 0
    first = json.loads((split / "first.json").read_text())
    assert first["command"].endswith("--shape=x:2x64")
    assert np.load("inputs.npz")["x"].shape[-1] == 64
    assert main([*shlex.split(first["command"])[1:], "--json", "again.json"]) == 0
    again = json.loads((split / "again.json").read_text())
    assert [again[key] for key in ("data_sha256", "verdict")] == [first[key] for key in ("data_sha256", "verdict")]
    assert "size-refused" not in {notice["code"] for notice in again["notices"]}


def test_the_worst_sample_is_one_that_was_run(split, capsys):
    words = ["split.onnx", "--onnxrt", "--emulate=fp16", "--rtol", "0", "--atol", "0", "--save-worst", "worst"]
    assert main(words) == 1
    (saved,) = (split / "worst").glob("*.npz")
    assert np.load(saved)["x"].shape == (2, 64)
