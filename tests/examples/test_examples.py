"""The scripts among the examples do what they say."""

from __future__ import annotations

import re
import runpy
import sys

import pytest

from support.paths import ROOT

pytest.importorskip("onnxruntime")


def test_the_check_before_deployment_passes(capsys):
    runpy.run_path(str(ROOT / "examples" / "check_before_deploy.py"), run_name="__main__")
    assert capsys.readouterr().out.endswith("ready to deploy\n")


def test_the_check_before_deployment_can_fail(tmp_path):
    """A candidate that lost its precision is held back."""
    source = (ROOT / "examples" / "check_before_deploy.py").read_text()
    assert source.count('format="fp16"') == 1
    copy = tmp_path / "check.py"
    copy.write_text(
        source.replace('EmulateRunner(format="fp16")', 'EmulateRunner(format="e5m2")').replace(
            "Path(__file__).resolve().parent", f"Path({str(ROOT / 'examples')!r})"
        )
    )
    with pytest.raises(AssertionError, match="probabilities"):
        runpy.run_path(str(copy))["test_the_candidate_agrees_with_the_reference"]()


def test_int8_is_as_good_as_its_calibration(capsys):
    runpy.run_path(str(ROOT / "examples" / "int8.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert re.findall(r"^(pass|fail): emulate:int8", told, re.MULTILINE) == ["pass", "fail"]
    assert "calibration saw at most 0.0625" in told


def test_a_runner_of_ones_own_is_right_and_wrong(capsys):
    runpy.run_path(str(ROOT / "examples" / "own_runner.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert re.findall(r"^(pass|fail): mine", told, re.MULTILINE) == ["pass", "fail"]
    assert "culprit 1: average/Mean (GlobalAveragePool) on mine: wrong-op" in told


def test_the_notebook_runs_and_shows_its_reports():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "examples" / "compare.ipynb", as_version=4)
    stored = _shown(notebook)
    where = {"metadata": {"path": str(ROOT / "examples")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    shown = _shown(notebook)
    assert re.findall(r"^(pass|fail): ", "\n".join(shown), re.MULTILINE) == ["pass", "pass", "fail"]
    assert "culprit 1: Conv__54 (Conv) on onnxrt@broken.onnx: weights" in "\n".join(shown)
    assert len(shown) == len(stored)


def _shown(notebook) -> list[str]:
    """What the cells of a notebook show, as text; a report's HTML is its text in a ``pre``."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    return [
        output.get("text") or (output.data.get("text/html") or output.data["text/plain"]).removeprefix("<pre>")
        for output in outputs
        if output.output_type != "stream" or output.name == "stdout"
    ]


@pytest.mark.tf
def test_the_script_of_the_seed_talk(monkeypatch, capsys):
    pytest.importorskip("tensorflow")
    pytest.importorskip("tf2onnx")
    monkeypatch.setattr(sys, "argv", ["seed_talk.py"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "examples" / "seed_talk.py"), run_name="__main__")
    assert left.value.code == 0
    assert re.search(r"onnxrt +probabilities +pass", capsys.readouterr().out)
