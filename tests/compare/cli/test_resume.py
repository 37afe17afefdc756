"""``--resume``: killed anywhere, the same command ends in the report of a run that was never disturbed.

pytest -m slow tests/compare/cli/test_resume.py      # at a hundred moments
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from layerdiff.compare.cli.command import main
from onnx import numpy_helper

from support.killing import processor_seconds, report, run
from support.plan_networks import overflowing, samples

SEARCH = [
    "m.onnx",
    "--onnxrt",
    "--emulate",
    "fp16",
    "--data",
    "data",
    "--layers",
    "--fix",
    "plan.json",
    "--json",
    "r.json",
    "--resume",
    "journal",
]
LAST = ["--json", "r.json", "--resume", "journal"]
ALL_LAYERS = ["m.onnx", "--onnxrt", "--emulate", "bf16", "--data", "data", "--layers=all", "--isolate=on"]
CALIBRATED = ["m.onnx", "--onnxrt", "--emulate", "int8", "--data", "data", "--rtol", "0", "--atol", "9", "--layers"]
COMMANDS = {"search": SEARCH, "isolated": [*ALL_LAYERS, *LAST], "calibrated": [*CALIBRATED, *LAST]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    onnx.save(overflowing(), tmp_path / "m.onnx")
    for name in ("data", "tmp"):
        (tmp_path / name).mkdir()
    for number, sample in enumerate(samples(3)):
        np.savez(tmp_path / "data" / f"{number}.npz", **sample)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ends_as_if_undisturbed(words, kills, folder, rng, number=0):
    """Kills the command at some moments in a row, each time with what was kept before, and lets it end."""
    whole = processor_seconds(words, folder / "tmp")
    expected = report(Path("r.json"))
    shutil.rmtree("journal")
    for moment in rng.uniform(0.3 * whole, whole, kills):  # before that, Python starts
        run(words, moment=moment, number=number, temporary=folder / "tmp")
        if number:
            assert os.listdir("tmp") == [], "a signal leaves nothing"
        if rng.random() < 0.3:
            run(words, temporary=folder / "tmp")
            assert report(Path("r.json")) == expected
            shutil.rmtree("journal")
    assert run(words, temporary=folder / "tmp") in (0, 1)
    assert report(Path("r.json")) == expected
    assert os.listdir("tmp") == [], "what was left is removed"
    assert not list(Path("journal").glob("unfinished-*"))
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_is_killed_ends_as_if_undisturbed(words, folder):
    ends_as_if_undisturbed(words, 4, folder, np.random.default_rng(len(words)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_interrupted_ends_as_if_undisturbed(number, folder):
    ends_as_if_undisturbed(SEARCH, 2, folder, np.random.default_rng(number), number)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(("number", "kills"), [(0, 25), (signal.SIGTERM, 5), (signal.SIGINT, 5)])
def test_at_a_hundred_moments(words, number, kills, folder):
    ends_as_if_undisturbed(words, kills, folder, np.random.default_rng(kills + number), number)


def finished(*words: str) -> dict:
    main([*SEARCH[:6], *SEARCH[-4:], "-q", *words])
    return json.loads(Path("r.json").read_text())


def test_a_changed_weight_is_not_taken_for_the_old_one(folder):
    finished()
    model = onnx.load("m.onnx")
    changed = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1.5)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(changed, model.graph.initializer[0].name))
    onnx.save(model, "m.onnx")
    found = finished()["outputs"]
    shutil.rmtree("journal")
    assert finished()["outputs"] == found


def test_a_changed_sample_is_not_taken_for_the_old_one(folder):
    finished()
    (sample,) = samples(1, seed=6)
    np.savez("data/1.npz", **sample)
    found = finished()["outputs"]
    shutil.rmtree("journal")
    assert finished()["outputs"] == found


@pytest.mark.parametrize("words", [["--ort-threads", "1"], ["--rtol", "0", "--atol", "1"], ["--emulate-every-node"]])
def test_with_another_option_it_is_another_run(words, folder):
    finished()
    found = finished(*words)["outputs"]
    shutil.rmtree("journal")
    assert finished(*words)["outputs"] == found


def test_what_is_damaged_is_not_used_and_said_so(folder):
    expected = finished()
    for file in Path("journal").glob("*/*"):
        file.write_bytes(file.read_bytes()[:-3])
    found = finished()
    (told,) = [n["text"] for n in found["notices"] if n["code"] == "journal-ignored"]
    assert "damaged" in told
    assert told.endswith("which were not used.")
    assert found["outputs"] == expected["outputs"]


def test_a_folder_of_something_else_is_refused_before_anything_runs(folder, capsys):
    assert main([*SEARCH[:6], "--resume", "data"]) == 2
    assert "--resume data: holds other files, and no journal" in capsys.readouterr().err
