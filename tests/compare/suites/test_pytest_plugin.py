"""The fixture: a comparison as a test, whose failure is the report."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.paths import ROOT

TESTS = """
def test_alike(compare_models):
    assert compare_models("relu.onnx", candidate=["onnxrt", "emulate=fp16"], reference="reference-evaluator")

def test_known(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", candidate_model="twice.onnx", expect="fail")

def test_differs(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", candidate_model="twice.onnx")

def test_the_named_reference_is_believed(compare_models):
    report = compare_models("relu.onnx", candidate="onnxrt", reference="emulate=fp16", rtol=0.1, atol=0.1)
    assert report.reference == "emulate:fp16"

def twice(feed):
    return {"y": 2 * feed["x"]}

def test_a_function_is_a_runner(compare_models):
    compare_models("twice.onnx", candidate=twice)
"""


def run(folder) -> subprocess.CompletedProcess[str]:
    """Runs the tests in a folder, with this plugin and no other."""
    words = ["-m", "pytest", "-q", "-p", "layerdiff.compare.suites.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_a_failure_shows_the_report(onnx_file, tmp_path):
    onnx_file("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }", "relu.onnx")
    onnx_file("g (float[N, 3] x) => (float[N, 3] y) { y = Add(x, x) }", "twice.onnx")
    (tmp_path / "test_them.py").write_text(TESTS)
    done = run(tmp_path)
    assert "1 failed, 4 passed" in done.stdout, done.stdout
    assert "fail, pass expected" in done.stdout
    assert "fail: onnxrt@twice.onnx disagrees with onnxrt in output y" in done.stdout
    assert "Report(" not in done.stdout


WRONG = """
def test_no_such_file(compare_models):
    compare_models("absent.onnx", candidate="onnxrt")

def test_no_such_runner(compare_models):
    compare_models("absent.onnx", candidate="onnxruntime")

def test_no_such_data(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", data="absent.npz")

def test_no_such_rule(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", layer="guilty")

def test_no_such_value(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", tolerances=3)

def test_no_such_expectation(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", expect="fial")

def test_no_candidate(compare_models):
    compare_models("relu.onnx", reference="onnxrt")

def test_no_runner(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", reference=["onnxrt"])

def test_no_such_word(compare_models):
    compare_models("relu.onnx", candidate="onnxrt", data_loader=[])
"""


def test_what_cannot_be_compared_fails_in_one_line_each(onnx_file, tmp_path):
    onnx_file("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }", "relu.onnx")
    (tmp_path / "test_them.py").write_text(WRONG)
    told = run(tmp_path).stdout
    assert "9 failed" in told
    wrong = ("tolerances: expected NAME:RTOL,ATOL", "expect='fial'; there are: pass", "no candidate; name one")
    missing = ("absent.onnx: no such file.", "--onnxruntime names no runner", "no such file or folder", "'layer'")
    for message in (*missing, *wrong):
        assert message in told
    assert "Error" not in told  # no exception, no line of our code


def test_it_is_an_entry_point():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points.pytest11]\nlayerdiff = "layerdiff.compare.suites.pytest_plugin"' in text


def test_loading_it_costs_nothing():
    code = "import sys, layerdiff.compare.suites.pytest_plugin; print({'numpy', 'onnx', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_model_that_is_not_there_fails_in_one_line(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_it(compare_models):\n    compare_models('a.onnx', candidate='onnxrt')"
    )
    arguments = ["-m", "pytest", "-q", "-p", "layerdiff.compare.suites.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "compare_models: a.onnx: no such file." in done.stdout
    assert "another exception" not in done.stdout


@pytest.mark.parametrize("words", ["expect='good'", "candidate_model='b.onnx', reference='onnxrt'"])
def test_a_wrong_call_is_told(words, tmp_path):
    (tmp_path / "test_it.py").write_text(
        f"def test_it(compare_models):\n    compare_models('a.onnx', candidate='onnxrt', {words})"
    )
    arguments = ["-m", "pytest", "-q", "-p", "layerdiff.compare.suites.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "compare_models: " in done.stdout
    assert done.returncode == 1
