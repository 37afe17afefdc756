"""Compares one case by the command, and asks for a bundle of its first culprit."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from layerdiff.compare.cli.command import main
from layerdiff.graph.numpy_files import write_npz

from benchmarks.faults.case import Case
from benchmarks.faults.cases import Dropped
from benchmarks.faults.running import make


def words_of(case: Case, folder: Path) -> list[str]:
    """The command line that compares a case, whose files are written to a folder."""
    reference, candidate = case.write(folder)
    (folder / "data").mkdir()
    for number, feed in enumerate(case.feeds()):
        write_npz(folder / "data" / f"sample{number}.npz", feed)
    words = [str(reference), *([] if candidate is None else [str(candidate)]), "--onnxrt"]
    if case.emulate:
        words.append(f"--emulate={case.emulate}")
    elif candidate is None:
        words.append(f"--onnxrt={','.join(f'{key}={value}' for key, value in case.runner.items())}")
    return [*words, "--data", str(folder / "data"), "--layers"]


def reduced(name: str, kind: str, words: list[str], folder: Path) -> dict[str, Any]:
    """How a case came out.

    Args:
        name, kind: What it is called, and what it is counted under.
        words: The command line that compares it.
        folder: For the report and the bundle.
    """
    report, bundle = folder / "report.json", folder / "bundle"
    told = io.StringIO()
    result: dict[str, Any] = {"id": name, "kind": kind, "culprit": None, "nodes": None, "shown": False}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        main([*words, "-q", "--json", str(report)])
        content = json.loads(report.read_text("utf-8")) if report.exists() else {}
        if not content.get("culprits"):
            return result
        first = content["culprits"][0]
        result["culprit"] = f"{first['node']} ({first['op']}): {first['cause']}"
        began = time.perf_counter()
        status = main(["reduce", str(report), "-o", str(bundle), "-q"])
        result["seconds"] = time.perf_counter() - began
    result["shown"] = status == 0
    if status == 0:
        result["nodes"] = _nodes(bundle)
    else:
        result["why"] = told.getvalue().strip().splitlines()[-1:] or ["the script does not show it"]
    return result


def _nodes(bundle: Path) -> int:
    """What the bundle says of its own size."""
    text = (bundle / "ISSUE.md").read_text("utf-8")
    return int(text.split(" it with ")[1].split()[0])


def work(name: str, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The cases of one kind in one network; or, with an empty kind, one case of the folder."""
    results = []
    for case in make(name, kind, Dropped()):
        if case.clean or (options.case and case.id not in options.case):
            continue
        folder = Path(tempfile.mkdtemp(prefix="layerdiff-reduce-"))
        results.append(_timed(case.id, kind, words_of(case, folder), folder))
        if options.keep and not (results[-1]["nodes"] or 99) <= 5:
            shutil.copytree(folder, Path(options.keep) / case.id.replace("/", "-"), dirs_exist_ok=True)
        shutil.rmtree(folder)
        if options.limit and len(results) >= options.limit:
            break
    return results


def reported(name: str, args: str, files: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One case of a folder of reports."""
    folder = Path(tempfile.mkdtemp(prefix="layerdiff-reduce-"))
    here = Path.cwd()
    os.chdir(files)
    try:
        words = shlex.split(args)
        return [_timed(name, "reports", words if "--layers" in words else [*words, "--layers"], folder)]
    finally:
        os.chdir(here)
        shutil.rmtree(folder)


def _timed(name: str, kind: str, words: list[str], folder: Path) -> dict[str, Any]:
    try:
        return reduced(name, kind, words, folder)
    except Exception as error:  # a crash is a miss, and the table says which
        return {"id": name, "kind": kind, "culprit": "?", "nodes": None, "shown": False, "why": [repr(error)]}
