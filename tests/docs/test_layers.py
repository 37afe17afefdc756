"""Every command of docs/layers.md runs, and shows what the page says that it shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from layerdiff.compare.causes import judgement as judge
from layerdiff.compare.layers.contribution import SUSPECTS
from layerdiff.compare.report.model import Culprit, LayerVerdict

from support.paths import ROOT

PAGE = (ROOT / "docs" / "layers.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the examples and the file that the page's Python block writes."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "examples").symlink_to(ROOT / "examples")
    for kind, block in BLOCKS:
        if kind == "python":
            subprocess.run([sys.executable, "-c", block], cwd=folder, check=True)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    assert program == "compare"
    return subprocess.run(
        [sys.executable, "-m", "layerdiff", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_page_says(command, folder):
    done = run(command, folder)
    shown = "".join(block for kind, block in BLOCKS if kind == "text")
    if "exported.onnx" in command:
        assert done.returncode == 1
        assert " ".join(shown.split()) in " ".join(done.stdout.split())
    elif "--rtol" in command:
        assert done.returncode == 1
        assert "spread" in done.stdout
    else:
        assert done.returncode == 0, done.stderr
        assert "no culprit among 12 layers" in done.stdout
    if "--json" in command:
        report = json.loads((folder / "report.json").read_text("utf-8"))
        assert [c["cause"] for c in report["culprits"]] == ["weights"]


def test_there_are_commands():
    assert len(COMMANDS) >= 5


def test_limits_on_the_page_are_those_in_force():
    assert f"| {judge.RMS_LIMIT[False]:g} | {judge.RMS_LIMIT[True]:g} |" in PAGE
    assert f"| {judge.SLICE_LIMIT[False]:g} | {judge.SLICE_LIMIT[True]:g} |" in PAGE
    assert f"| {judge.GAIN_LIMIT:g} | {judge.GAIN_LIMIT:g} |" in PAGE
    assert (SUSPECTS, judge.SLICE, judge.CHANNELS, judge.FLIPS) == (8, 64, 16, 1e-3)


def test_every_cause_and_every_verdict_is_explained():
    named = set(re.findall(r"``([a-z-]+)``", Culprit.__doc__ or ""))
    assert len(named) == 14
    tables = set(re.findall(r"`([a-z-]+)`", "".join(line for line in PAGE.splitlines() if line.startswith("|"))))
    assert named <= tables
    assert set(get_args(LayerVerdict)) <= tables
