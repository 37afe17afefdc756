"""Precision plans for the planted faults of faults.py, searched on TensorRT itself.

    python -m benchmarks.gpu.plans OUT_FILE [--runner trt|emulate] [--only CASE...] [--limit SECONDS]

Each case is compared in FP16, planned (`--fix`), rebuilt with every set that is judged, and timed: all FP16, the
plan, all FP32. A plan's builds are the engines of the whole network that the search judged: what layers are looked at
in, and the engine of everything in FP32, which is built to be timed, are left out of their count. Cases that FP16
breaks come first, cancellation before all others: the limit may cut off the rest. ``benchmarks.gpu.polygraphy_faults``
runs ``polygraphy debug precision`` on the same cases.

A case whose FP16 engine passes (TensorRT may choose FP32 for the node by itself) has nothing to fix, and is counted
apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from layerdiff import Comparator, OnnxrtRunner, Runner

from benchmarks.kit.pages import table
from benchmarks.kit.results import Results, add_options

from .faults import cases, data
from .networks import add_runner, fp16

HEAD = ("case", "verdict", "kept", "to a pass", "builds", "1-minimal", "share", "ms FP16", "ms plan", "ms FP32", "cost")
FIRST = (
    "cancellation",
    "attention scores",
    "layer norm of loud rows",
    "softmax without a shift",
    "overflow at a residual",
    "overflow, second of three",
    "weights below FP16",
    "weights above FP16",
    "overflow, late",
    "overflow, few elements",
    "overflow, first of three",
    "overflow in a linear layer",
    "weights of a linear layer below FP16",
)
"""Cases that TensorRT's FP16 was seen to break, in the order in which they are run; the others come behind them."""
TO_A_PASS, IN_ALL = 4, 8
"""Most builds that a plan should take until a set passes, and until nothing of it can be spared."""


def planned(name: str, candidate: Runner, budget: int, times: int = 50) -> dict[str, Any]:
    """One case: its plan, in numbers.

    Args:
        name: The case.
        candidate: What runs in FP16.
        budget: Most engines that the search may judge.
        times: How many runs are timed.
    """
    model, wanted = cases()[name]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "plan.json")
        runners = [OnnxrtRunner(), candidate]
        rules = {"fix": path, "fix_budget": budget, "latency": times}
        report = Comparator(model, runners, data_loader=data(model), **rules).compare()
    plan, runner = report.plan, report.candidates[0]
    latency = runner.latency or {}
    mine = (latency.get("gpu") or latency.get("host") or {}).get("median")
    found: dict[str, Any] = {
        "case": name,
        "verdict": report.verdict,
        "error": runner.error,
        "seconds": time.perf_counter() - start,
        "culprits": [(c.node, str(c.cause)) for c in report.culprits][:3],
        "ms_fp16": mine,
        "warnings": list(report.warnings),
    }
    if plan is None:
        return found
    kept = {node for layer in plan.kept for node in layer.nodes}
    return {
        **found,
        "status": plan.status,
        "why": plan.why,
        "kept": [layer.node for layer in plan.kept],
        "holds_the_fault": bool(kept & wanted),
        "layers": plan.layers,
        "first_pass": plan.first_pass,
        "builds": plan.runs,
        "judged": [(list(p.trial.kept), p.trial.verdict, p.trial.share, p.trial.latency) for p in plan.curve],
        "minimal": plan.minimal,
        "before": None if plan.before is None else plan.before.share,
        "share": None if plan.after is None else plan.after.share,
        "expected": None if plan.predicted is None else plan.predicted.error,
        "relative": None if plan.after is None else plan.after.relative,
        "cost": plan.cost,
        "ms_plan": None if plan.after is None else plan.after.latency,
        "ms_fp32": None if plan.fp32 is None else plan.fp32.latency,
    }


def row(result: dict[str, Any]) -> list[str]:
    """A result, in the columns of `HEAD`."""

    def number(key: str) -> str:
        value = result.get(key)
        return "-" if value is None else f"{value:.3g}"

    kept = ", ".join(result.get("kept", ())) or result.get("status") or result.get("error") or "-"
    minimal = "yes" if result.get("minimal") else "no"
    cells = [result["case"], result["verdict"], kept, number("first_pass"), number("builds"), minimal]
    numbers = (number(key) for key in ("share", "ms_fp16", "ms_plan", "ms_fp32"))
    return [*cells, *numbers, str(result.get("cost", "-"))]


def held(result: dict[str, Any]) -> bool:
    """Whether a plan was found within the builds that it should take."""
    return bool(result["minimal"]) and result["first_pass"] <= TO_A_PASS and result["builds"] <= IN_ALL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name holds one of these")
    parser.add_argument("--budget", type=int, default=12, help="most engines that a plan may build")
    add_runner(parser)
    add_options(parser, limit=500)
    arguments = parser.parse_args()
    results = Results(arguments.out, arguments.limit)
    candidate = fp16(arguments)
    times = 50 if arguments.runner == "trt" else 3
    for name in dict.fromkeys((*FIRST, *cases())):
        if not any(part in name for part in arguments.only):
            continue

        def work(name: str = name) -> None:
            results.add(planned(name, candidate, arguments.budget, times))
            print(*row(results.kept[-1]), sep=" | ", flush=True)

        results.attempt(name, work)
    broken = [r for r in results.kept if r["verdict"] != "pass"]
    whole = len(results.kept) - len(broken)
    fixed = [r for r in broken if r.get("status") == "found"]
    minimal, within = sum(bool(r["minimal"]) for r in fixed), sum(map(held, fixed))
    print(
        f"{candidate.name}: {len(fixed)} of {len(broken)} cases that break are fixed, {minimal} plans 1-minimal, "
        f"{within} with {TO_A_PASS} builds to a pass and {IN_ALL} in all at most; {whole} pass as they are"
    )
    print(table(HEAD, map(row, broken or results.kept)))


if __name__ == "__main__":
    main()
