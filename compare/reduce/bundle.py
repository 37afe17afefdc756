"""A bundle: models of a few nodes, what they are fed, a script that shows the difference, and a text to be filed."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ...graph.errors import UsageError
from ...graph.numpy_files import write_npz
from ...graph.rounding.widening import to_fp32
from ...runners.emulate import EmulateRunner
from ..progress import SILENT, Progress
from ..report.files import writing
from .script import narrowest, runs, script
from .shrink import NODES, Reduced, shrink
from .subject import Subject, named_culprit, subject

if TYPE_CHECKING:
    from ...graph.specs import Arrays
    from ..comparison import Comparison
    from ..report.model import Report, RunnerResult

SCRIPT = "reproduce.py"
TEXT = "ISSUE.md"


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        folder: Where.
        files: Names of the files.
        nodes: Nodes that the larger of the models has, casts of an emulation not counted.
        error, allowed: The relative L2 error, and what the test allows.
        shown: What the script printed when it was run.
    """

    folder: Path
    files: tuple[str, ...]
    nodes: int
    error: float
    allowed: float
    shown: str


def reduce(
    comparison: Comparison, report: Report, folder: str | os.PathLike[str], number: int = 1, progress: Progress = SILENT
) -> Bundle:
    """Reduces a culprit to a few nodes that fail alone, and writes them to a folder.

    Args:
        comparison: What was compared.
        report: What was found, with layers.
        folder: A folder that is made, or is empty.
        number: Which culprit, from 1.
        progress: Told what is going on.

    Raises:
        UsageError: There is no such culprit; no part of its layer fails alone; its runtime cannot be called by a
            script; or the folder cannot be written to.
    """
    culprit = named_culprit(report, number)
    side = next(side for side in comparison.sides.all if side.name == culprit.candidate)
    if not runs(side.runner):
        raise UsageError(
            f"{side.name}: only ONNX Runtime, TensorRT and emulations can be called by a script of its own."
        )
    target = _empty(folder)
    found = subject(comparison, report, number, progress)
    reduced = shrink(found, progress)
    with writing("-o", folder):
        target.mkdir(parents=True, exist_ok=True)
        files = tuple(_written(found, reduced, target))
        shown = _scripted(found, reduced, target, files)
        narrow = narrowest(found.candidate.runner)
        if narrow and not shows(shown):
            shown = _scripted(found, reduced, target, files, narrow)
        (target / TEXT).write_text(_text(found, reduced, shown), "utf-8")
    return Bundle(target, (*files, SCRIPT, TEXT), reduced.part.nodes, reduced.part.error, reduced.allowed, shown)


def _empty(folder: str | os.PathLike[str]) -> Path:
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{folder}: is there already, and is not an empty folder.")
    return target


def _written(found: Subject, reduced: Reduced, folder: Path) -> Iterator[str]:
    """Writes models and arrays; gives the names of their files."""
    part = reduced.part
    inputs: Arrays = part.inputs
    reference = found.reference.runner if part.reference is not None and runs(found.reference.runner) else None
    emulated = found.candidate.runner if isinstance(found.candidate.runner, EmulateRunner) else None
    if emulated is not None and reference is None:
        inputs = to_fp32(inputs)
    if reference is None:
        write_npz(folder / "expected.npz", part.expected)
        yield "expected.npz"
    elif part.reference is not None:
        onnx.save(part.reference.proto, folder / "reference.onnx")
        yield "reference.onnx"
    same = found.prepared.same and emulated is None and reference is not None
    if not same:
        model = part.candidate if emulated is None else emulated.rewritten(part.candidate).model.contained()
        onnx.save(model.proto, folder / "candidate.onnx")
        yield "candidate.onnx"
    write_npz(folder / "inputs.npz", inputs)
    yield "inputs.npz"


def _scripted(found: Subject, reduced: Reduced, folder: Path, files: Sequence[str], narrow: str = "") -> str:
    """Writes the script for these files. Returns what it says, run as somebody else would run it."""
    reference = found.reference.runner if "reference.onnx" in files else None
    same = "candidate.onnx" not in files
    text = script(_title(found), reduced.allowed, reduced.test, reference, found.candidate.runner, same, narrow)
    (folder / SCRIPT).write_text(text, "utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, SCRIPT], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    return (done.stdout or done.stderr).strip()


def shows(output: str) -> bool:
    """Whether a script said that the two differ."""
    return output.endswith("DIFFERENT")


def _title(found: Subject) -> str:
    culprit = found.culprit
    runner = _result(found, culprit.candidate)
    versions = ", ".join(f"{name} {version}" for name, version in (runner.versions if runner else {}).items())
    return f"{culprit.op} {culprit.node} on {culprit.candidate}{f' ({versions})' if versions else ''}: {culprit.cause}."


def _result(found: Subject, name: str) -> RunnerResult | None:
    return next((runner for runner in found.report.runners if runner.name == name), None)


def _text(found: Subject, reduced: Reduced, shown: str) -> str:
    part, culprit = reduced.part, found.culprit
    small = f"{part.nodes} node{'s'[: part.nodes != 1]}"
    does = "shows it" if shows(shown) else "does not show it"
    lines = [
        f"# {_title(found)}",
        "",
        f"`python {SCRIPT}` {does} with {small}, and exits with 1 where the two differ.",
        _measured(part.error, reduced),
        "",
        "```text",
        shown,
        "```",
        "",
        f"- Seen: {culprit.evidence or culprit.cause}",
        f"- Layer: {culprit.path} ({culprit.op}), which makes {', '.join(culprit.tensors)}",
    ]
    if part.nodes > NODES:
        lines.append(f"- No part of {NODES} nodes or fewer was found that fails alone.")
    for name in dict.fromkeys((found.report.reference, culprit.candidate)):
        runner = _result(found, name)
        if runner is not None:
            told = {**runner.versions, **runner.options}
            lines.append(f"- {name}: {', '.join(f'{key} {value}' for key, value in told.items())}")
            lines += [f"  - {note}" for note in runner.notes]
    lines.append(f"- Kernel: {', '.join(_kernel(found))}")
    machine = f"{platform.system()} {platform.release()} {platform.machine()}"
    lines.append(f"- Machine: {machine}, Python {platform.python_version()}")
    for remedy in culprit.remedies:
        lines.append(f"- What helps: {remedy.text}")
    return "\n".join(lines) + "\n"


def _measured(error: float, reduced: Reduced) -> str:
    """How far the two are apart, in a sentence."""
    if not math.isfinite(error):
        return "Values differ by infinity or NaN, which no rounding explains."
    return f"Relative L2 error {error:.3g}; allowed is {reduced.allowed:.3g}: {reduced.test}."


def _kernel(found: Subject) -> list[str]:
    """The nodes that ran together."""
    index = found.reference.model.index
    return [f"{index.names[p]} ({index.nodes[p].op_type})" for p in found.pair.reference.nodes]
