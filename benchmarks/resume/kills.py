"""Killed at random moments, does the same command end in the report of an undisturbed run?

Each command is killed by SIGKILL, at a moment that is drawn between its start and its usual end. What it has left is
what it goes on with: it is run to its end, and its JSON held against that of a run that nobody disturbed, times left
out. A third of the folders are kept for the next kill, which then falls on a run that goes on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from benchmarks.kit.pages import DOCS
from benchmarks.trust import networks

TIMES = {"date", "open", "infer", "seconds", "latency", "build_seconds"}
"""Keys of reports that hold times."""
COMMANDS = {
    "layers": "chain.onnx --onnxrt --emulate fp16 --samples 3 --layers=all --resume journal",
    "a plan": "digits.onnx --onnxrt --emulate fp16 --data heldout.npz --rtol 0 --atol 1e-3 --fix plan.json "
    "--resume journal",
    "a suite": "--suite checks.toml",
}
SUITE = """
[defaults]
runners = ["onnxrt", "emulate=bf16"]
resume = "journal"
[[check]]
name = "digits"
model = "digits.onnx"
data = "heldout.npz"
layers = true
[[check]]
name = "chain"
model = "chain.onnx"
samples = 3
"""


@dataclass
class Tried:
    """What came of killing one command.

    Attributes:
        kills: How often it was killed.
        same: After how many of these kills the report was that of an undisturbed run.
        seconds: How long an undisturbed run takes.
        again: How long those took that went on.
    """

    kills: int
    same: int
    seconds: float
    again: list[float]

    @property
    def cells(self) -> list[str]:
        """The cells of a row."""
        return [f"{self.kills}", f"{self.same}", f"{self.seconds:.1f}", f"{median(self.again):.1f}"]


def prepare(folder: Path) -> None:
    """Writes what the commands read."""
    onnx.save(networks.products(200), folder / "chain.onnx")
    (folder / "checks.toml").write_text(SUITE)
    for file in ("digits.onnx", "heldout.npz"):
        shutil.copy(DOCS.parent / "examples" / "digits" / file, folder)


def killed(folder: Path, words: list[str], kills: int, draw: random.Random) -> Tried:
    """Kills a command so many times, and lets it end each time."""
    journal, plan = folder / "journal", folder / "plan.json"
    times = []
    for _ in range(2):  # the first run may compile
        expected, seconds = _ended(folder, words)
        times.append(seconds)
        shutil.rmtree(journal)
    tried = Tried(kills, 0, min(times), [])
    for _ in range(kills):
        plan.unlink(missing_ok=True)
        with _started(folder, words) as child:
            time.sleep(draw.uniform(0, tried.seconds))
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
        found, seconds = _ended(folder, words)
        tried.same += found == expected
        tried.again.append(seconds)
        if draw.random() > 1 / 3:
            shutil.rmtree(journal)
    shutil.rmtree(journal, ignore_errors=True)
    return tried


def _started(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "layerdiff", *words, "--json", "report.json", "-q"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, start_new_session=True)


def _ended(folder: Path, words: list[str]) -> tuple[Any, float]:
    """The report of a run to the end without its times, and how long that took."""
    report, start = folder / "report.json", time.perf_counter()
    report.unlink(missing_ok=True)
    with _started(folder, words) as child:
        _, said = child.communicate()
    if child.returncode not in (0, 1):
        raise SystemExit(said.decode("utf-8", "replace"))
    return _without_times(json.loads(report.read_text("utf-8"))), time.perf_counter() - start


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value
