"""What the benchmarks share: pages, results within a limit, inputs beside a network, what a process takes."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest

from benchmarks.kit.inputs import stored
from benchmarks.kit.pages import machine, table, write_page, write_section
from benchmarks.kit.process import measure
from benchmarks.kit.results import Results
from benchmarks.kit.runtime import observe, run
from support.models import normal, parsed


def test_a_table():
    assert table(["", "a"], [["x", 1], ["y", 2.5]]) == "|  | a |\n| --- | --- |\n| x | 1 |\n| y | 2.5 |"
    assert table(["", "a"], [["x", 1]], numbers=True).splitlines()[1] == "| :-- | --: |"


def test_a_section_is_written_between_its_marks_and_nowhere_else(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n<!-- other: begin -->\n")
    write_section(page, "new")
    text = "before\n<!-- measured: begin -->\n\nnew\n\n<!-- measured: end -->\nafter\n<!-- other: begin -->\n"
    assert page.read_text() == text
    write_section(page, "dry", dry=True)
    assert page.read_text() == text
    assert capsys.readouterr().out == "dry\n"


def test_a_page_without_the_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="unpack"):
        write_section(page, "new")
    assert page.read_text() == "no marks\n"


def test_a_page_ends_with_one_line_break(tmp_path):
    write_page(tmp_path / "page.md", "text\n\n")
    assert (tmp_path / "page.md").read_text() == "text\n"


def test_the_machine_names_the_versions_of_what_is_installed():
    words = machine("numpy", "no-such-package")
    assert f"numpy {np.__version__}" in words
    assert "no-such-package" not in words


def test_results_are_written_as_they_come(tmp_path, capsys):
    results = Results(tmp_path / "out.jsonl", limit=100)
    results.attempt("one", lambda: results.add({"a": 1}))
    results.attempt("two", lambda: 1 / 0)
    results.attempt("three", lambda: results.add({"path": tmp_path}))
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        {"a": 1},
        {"path": str(tmp_path)},
    ]
    assert len(results.kept) == 2
    assert capsys.readouterr().out == "two: ZeroDivisionError: division by zero\n"


def test_what_would_end_after_the_limit_is_not_begun(capsys):
    results = Results(None, limit=100)
    results.attempt("long", lambda: results.add({}), needed=200)
    assert results.kept == []
    assert capsys.readouterr().out == "skipped long: 0 s of 100 s are spent\n"


def test_inputs_that_lie_beside_a_network(tmp_path):
    assert stored(tmp_path / "net.onnx", 2) == {}
    np.savez(tmp_path / "heldout.npz", x=np.arange(5))
    assert stored(tmp_path / "net.onnx", 2)["x"].tolist() == [0, 1]
    np.savez(tmp_path / "net.npz", x=np.arange(7))
    assert stored(tmp_path / "net.onnx", 9)["x"].tolist() == list(range(7))


def test_inner_tensors_are_observed_and_inputs_passed_on():
    pytest.importorskip("onnxruntime")
    proto = parsed("g (float[3] x) => (float[3] y) { h = Neg(x) y = Exp(h) }")
    before = proto.SerializeToString()
    feeds = [{"x": normal(3, seed=seed)} for seed in (1, 2)]
    found = observe(proto, feeds, ["h", "x", "y"])
    for feed, values in zip(feeds, found, strict=True):
        assert list(values) == ["h", "x", "y"]
        assert np.array_equal(values["h"], -feed["x"])
        assert np.array_equal(values["x"], feed["x"])
    assert [list(values) for values in run(proto, feeds)] == [["y"], ["y"]]
    assert proto.SerializeToString() == before
    assert onnx.checker.check_model(proto) is None


def test_a_process_is_measured_where_it_runs(tmp_path):
    code = "import os, sys; data = b'x' * (64 << 20); print(os.getcwd()); sys.exit(3)"
    found = measure([sys.executable, "-c", code], folder=tmp_path)
    assert (found.status, found.stdout.strip()) == (3, str(tmp_path.resolve()))
    assert found.peak > 64 << 20
