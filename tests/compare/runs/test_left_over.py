"""Folders of saved samples hold those of one run alone."""

from __future__ import annotations

import numpy as np
import pytest
from layerdiff import Comparator, DataLoader, OnnxrtRunner, UsageError

from support.models import parsed

MODEL = "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"


def run(samples, runners=None, **saved):
    sides = runners or [OnnxrtRunner(), OnnxrtRunner()]
    return Comparator(parsed(MODEL), sides, data_loader=DataLoader(samples=samples), **saved).compare()


@pytest.mark.parametrize(("option", "left"), [("save_inputs", "sample2.npz"), ("save_outputs", "onnxrt#2/sample2.npz")])
def test_samples_of_a_longer_run_are_refused(option, left, tmp_path):
    for samples in (4, 4):
        run(samples, **{option: str(tmp_path / "kept")})
    with pytest.raises(UsageError, match=f"it holds {left} and [13] more files? of an earlier run"):
        run(2, **{option: str(tmp_path / "kept")})


def test_outputs_of_a_runner_of_an_earlier_run_are_refused(function_runner, tmp_path):
    other = function_runner(function=lambda feed: {"y": np.maximum(feed["x"], 0)}, label="mine", rank=1)
    run(2, [OnnxrtRunner(), other], save_outputs=str(tmp_path / "kept"))
    with pytest.raises(UsageError, match=r"it holds mine/sample0\.npz and 1 more file of an earlier run"):
        run(2, save_outputs=str(tmp_path / "kept"))


def test_of_a_runner_that_fails_nothing_of_an_earlier_run_is_left(function_runner, tmp_path):
    calls = []

    def fails(feed):
        calls.append(0)
        if len(calls) > 5:
            raise ValueError
        return {"y": np.maximum(feed["x"], 0)}

    other = function_runner(function=fails, label="mine", rank=1)
    for left in (4, 1):
        run(4, [OnnxrtRunner(), other], save_outputs=str(tmp_path / "kept"))
        assert len(list((tmp_path / "kept" / "mine").glob("*.npz"))) == left


def test_a_folder_of_something_else_is_written(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    assert run(2, save_inputs=str(tmp_path / "kept")).verdict == "pass"
