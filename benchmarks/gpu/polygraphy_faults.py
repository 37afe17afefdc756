"""The planted faults of faults.py with Polygraphy's two commands: what they name, how many builds, how long.

    python -m benchmarks.gpu.polygraphy_faults OUT_FILE [--beside FAULTS_FILE] [--limit SECONDS] [--each SECONDS]

For each case, on one sample:

- ``polygraphy run --trt --fp16 --onnxrt`` with every tensor marked as output: the first output that it calls failed,
  with its own tolerance (1e-5) and with 1e-2;
- ``polygraphy debug precision --mode bisect``, whose check allows 1e-2: the layers that it keeps in FP32.

Both get the optimization level of faults.py and one timing cache that all builds share, as faults.py does. What takes
longer than ``--each`` is ended and reported as cut off. Every case is a line of JSON as soon as it is there; with
``--beside``, the table that is printed last holds what faults.py found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from benchmarks.kit.pages import table
from benchmarks.kit.results import Results

from .faults import cases, data

ORDER = (
    "overflow, second of three",
    "weights below FP16",
    "weights above FP16",
    "overflow at a residual",
    "attention scores",
    "overflow in a linear layer",
    "cancellation",
    "overflow, few elements",
    "weights of a linear layer below FP16",
    "layer norm of loud rows",
    "softmax without a shift",
    "overflow, late",
    "overflow, first of three",
    "log-sum-exp without a shift",
)
"""Those that differ most from each other first: the limit may cut off the rest."""

CALL = [
    sys.executable,
    "-c",
    "import sys; from polygraphy.tools import main; sys.argv[0] = 'polygraphy'; sys.exit(main())",
]
LEVEL = 2
RUNS = {"run", "run_1e-2"}


@dataclass(frozen=True)
class Ended:
    """A command that ran: its output, its time, and whether it was ended before it was done."""

    text: str
    seconds: float
    cut_off: bool


def call(words: list[str], folder: Path, limit: float) -> Ended:
    start = time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(limit)
            cut_off = False
        except subprocess.TimeoutExpired:
            cut_off = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = (folder / "output.txt").read_text(errors="replace")
    return Ended(text, time.perf_counter() - start, cut_off)


def prepare(model: onnx.ModelProto, folder: Path) -> None:
    """The network, one sample, and what ONNX Runtime makes of it, where the commands look for them."""
    from polygraphy.comparator import RunResults
    from polygraphy.json import save_json

    onnx.save(model, str(folder / "model.onnx"))
    feed = data(model)[0]
    save_json([{name: np.asarray(array) for name, array in feed.items()}], str(folder / "inputs.json"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    results = RunResults()
    results.add([dict(zip(names, session.run(None, feed), strict=True))], runner_name="onnxrt")
    results.save(str(folder / "golden.json"))


def run_marked(arguments: argparse.Namespace, folder: Path, tolerance: str | None) -> dict:
    words = [*arguments.polygraphy, "run", "model.onnx", "--trt", "--fp16", "--onnxrt", "--load-inputs", "inputs.json"]
    words += ["--trt-outputs", "mark", "all", "--onnx-outputs", "mark", "all", *building(arguments)]
    words += [] if tolerance is None else ["--atol", tolerance, "--rtol", tolerance]
    ended = call(words, folder, arguments.each)
    failed = re.findall(r"FAILED \| Output: '([^']+)'", ended.text)
    built = re.findall(r"Finished engine building in ([\d.]+)", ended.text)
    return {
        "first": failed[0].removesuffix("_out") if failed else None,
        "failed": len(failed),
        "passed": len(re.findall(r"PASSED \| Output: '", ended.text)),
        "compared": "Accuracy Summary" in ended.text,
        "lines": ended.text.count("\n"),
        "builds": len(built),
        "build_s": sum(map(float, built)),
        "seconds": ended.seconds,
        "cut_off": ended.cut_off,
        "error": "" if failed or "Accuracy Summary" in ended.text else last_error(ended.text),
    }


def debug_precision(arguments: argparse.Namespace, folder: Path) -> dict:
    check = ["run", "polygraphy_debug.engine", "--trt", "--load-inputs", "inputs.json", "--load-outputs", "golden.json"]
    words = [
        *arguments.polygraphy,
        "debug",
        "precision",
        "model.onnx",
        "--fp16",
        "--mode",
        "bisect",
        "--dir",
        "forward",
    ]
    words += [*building(arguments), "--verbosity", "info", "tools/debug:extra_verbose"]
    words += ["--check", *arguments.polygraphy, *check, "--atol", "1e-2", "--rtol", "1e-2"]
    ended = call(words, folder, arguments.each)
    said = re.search(r"try running the (\w+ \d+) layer\(s\) in higher precision", ended.text)
    impossible = "Could not find a configuration" in ended.text
    iterations = re.split(r"RUNNING \| Iteration \d+", ended.text)[1:]
    marked = [
        re.findall(r"Running layer in higher precision: .*?Layer \d+\s*\|\s*(.+?) \[", part) for part in iterations
    ]
    good = [names for part, names in zip(iterations, marked, strict=True) if "PASSED | Iteration" in part]
    done = len(re.findall(r"(?:PASSED|FAILED) \| Iteration \d+", ended.text))
    return {
        "said": said.group(1) if said else "nothing helps" if impossible else None,
        "kept": min(good, key=len) if good else [],
        "layers": max(map(len, marked), default=0),
        "builds": done + (1 if ended.cut_off else 0),
        "passed": len(good),
        "seconds": ended.seconds,
        "cut_off": ended.cut_off,
        "error": "" if said or impossible or ended.cut_off else last_error(ended.text),
    }


def building(arguments: argparse.Namespace) -> list[str]:
    cache = str(arguments.cache)
    words = ["--builder-optimization-level", str(LEVEL), "--load-timing-cache", cache, "--save-timing-cache", cache]
    sources = [s.strip().upper() for s in (arguments.tactic_sources or "").split(",") if s.strip()]
    return [*words, *(["--tactic-sources", *sources] if sources else [])]


def last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("[!]") or "Error" in line]
    return (errors or lines or ["no output"])[-1][:300]


def cell(result: dict, shown: str) -> str:
    if result["cut_off"]:
        return f"cut off after {result['seconds']:.0f} s, {result['builds']} builds"
    if result["error"]:
        return result["error"]
    return f"{shown}; {result['builds']} builds, {result['seconds']:.0f} s"


def row(result: dict, beside: dict[str, dict]) -> list[str]:
    own = beside.get(result["case"])
    here = ""
    if own is not None:
        named = ", ".join(f"{n} ({c})" for n, c in own["culprits"][:2]) or "none"
        builds = f"{own['builds']} builds, " if own.get("builds") else ""
        here = f"{own['verdict']}: {named}; {builds}{own['seconds']:.0f} s"
    cells = [result["case"], here]
    for key in ("run", "run_1e-2"):
        if key not in result:
            cells.append("")
            continue
        found = result[key]
        count = f"{found['failed']} of {found['failed'] + found['passed']} outputs fail, first"
        shown = f"{count} {found['first']}{' (the culprit)' if found['hit'] else ''}" if found["first"] else "all pass"
        cells.append(cell(found, f"{shown}, {found['lines']} lines"))
    found = result["precision"]
    where = " with the culprit" if found["hit"] else ""
    kept = f"{len(found['kept'])} of {found['layers']} layers in FP32{where}"
    cells.append(cell(found, kept if found["said"] and found["kept"] else found["said"] or "nothing said"))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--beside", type=Path, help="what faults.py wrote, for the table")
    parser.add_argument("--limit", type=float, default=330, help="seconds after which no further command is begun")
    parser.add_argument("--each", type=float, default=40, help="seconds after which one command is ended")
    parser.add_argument("--tactic-sources", default=None)
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name holds one of these, in this order")
    parser.add_argument("--strict", action="store_true", help="leave out the second `run`, with a tolerance of 1e-2")
    parser.add_argument("--polygraphy", type=shlex.split, default=CALL, help="how to call it")
    arguments = parser.parse_args()
    results, beside = Results(arguments.out, arguments.limit), {}
    if arguments.beside and arguments.beside.is_file():
        beside = {r["case"]: r for r in map(json.loads, arguments.beside.read_text().splitlines())}
    known = cases()
    with tempfile.TemporaryDirectory() as top:
        arguments.cache = Path(top) / "timing.cache"
        chosen = dict.fromkeys(name for part in arguments.only for name in ORDER if part in name)
        for name in chosen:
            if results.over(name):
                continue
            model, wanted = known[name]
            folder = Path(top) / re.sub(r"\W+", "_", name)
            folder.mkdir()
            prepare(model, folder)
            result = {"case": name, "run": run_marked(arguments, folder, None)}
            result["precision"] = debug_precision(arguments, folder)
            if not arguments.strict:
                result["run_1e-2"] = run_marked(arguments, folder, "1e-2")
            for key in RUNS & result.keys():
                result[key]["hit"] = result[key]["first"] in wanted
            result["precision"]["hit"] = any(w in kept for w in wanted for kept in result["precision"]["kept"])
            results.add(result)
            print(*row(result, beside), sep=" | ", flush=True)
    head = ["case", "here", "`run`, every tensor marked", "the same, tolerance 1e-2", "`debug precision --mode bisect`"]
    print(table(head, [row(result, beside) for result in results.kept]))


if __name__ == "__main__":
    main()
