"""The score of a run: a few lines for the terminal, tables for the documentation."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from . import clean
from .cases import DRESSED, ELSEWHERE, FOLDED, NOISY, REACHED, REAL, SAMPLES, TYPED
from .plants import KINDS

Result = dict[str, Any]


def right(result: Result) -> bool:
    """Whether a case was answered wholly: the first culprit and its cause, or none where nothing is wrong."""
    if result["error"]:
        return False
    return not result["answers"] if result["clean"] else result["rank"] == 1 and result["cause_right"]


def percent(part: int, whole: int) -> str:
    """A share, so that only a full one reads 100 %."""
    if not whole:
        return "–"
    share = 100 * part / whole
    return f"{share:.0f} %" if part == whole or share < 99.5 else f"{min(share, 99.9):.1f} %"


def score(results: Iterable[Result]) -> dict[str, Any]:
    """Counts over cases with a fault."""
    faults = [r for r in results if not r["clean"]]
    found = {
        "cases": len(faults),
        "top1": sum(r["rank"] == 1 for r in faults),
        "top3": sum(r["rank"] is not None and r["rank"] <= 3 for r in faults),
        "cause": sum(r["cause_right"] for r in faults),
        "alone": sum(r["rank"] == 1 and len(r["answers"]) == 1 for r in faults),
        "seconds": sum(r["seconds"] for r in faults) / max(1, len(faults)),
        "calls": sum(r["calls"] for r in faults) / max(1, len(faults)),
    }
    for method in ("polygraphy", "plain"):
        scored = [r["baselines"][method] for r in faults if "baselines" in r]
        found[method] = sum(b["rank"] == 1 for b in scored) if scored else None
        found[f"{method}3"] = sum(b["rank"] is not None and b["rank"] <= 3 for b in scored) if scored else None
    return found


def summary(results: list[Result], seconds: float) -> str:
    """The score in a few lines."""
    s = score(results)
    pairs = [r for r in results if r["clean"]]
    quiet = sum(not r["answers"] and not r["error"] for r in pairs)
    lines = []
    if s["cases"]:
        lines.append(
            f"{s['cases']} cases: top-1 {percent(s['top1'], s['cases'])}, top-3 {percent(s['top3'], s['cases'])}, "
            f"cause {percent(s['cause'], s['cases'])}, one culprit alone {percent(s['alone'], s['cases'])}, "
            f"{s['seconds']:.2f} s and {s['calls']:.0f} runtime calls a case"
        )
        if s["polygraphy"] is not None:
            lines.append(
                f"first tensor that fails: Polygraphy {percent(s['polygraphy'], s['cases'])}, "
                f"relative L2 above a threshold {percent(s['plain'], s['cases'])}"
            )
    if pairs:
        lines.append(f"{len(pairs)} clean pairs: {quiet} without culprit")
    lines.append(f"{sum(r['error'] is not None for r in results)} crashed; {seconds:.0f} s in all")
    return "\n".join(lines)


def row(name: str, results: list[Result]) -> str:
    """A row of a table of faults."""
    s = score(results)
    n = s["cases"]
    polygraphy = "–" if s["polygraphy"] is None else percent(s["polygraphy"], n)
    return (
        f"| {name} | {n} | {percent(s['top1'], n)} | {percent(s['top3'], n)} | {percent(s['cause'], n)} "
        f"| {percent(s['alone'], n)} | {s['seconds']:.2f} | {s['calls']:.0f} | {polygraphy} |"
    )


HEAD = (
    "| {} | cases | top-1 | top-3 | cause right | one culprit alone | seconds | runtime calls | Polygraphy, top-1 |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def markdown(results: list[Result], dropped: dict[str, list[str]], jobs: int) -> str:
    """The page of the documentation."""
    faults = [r for r in results if not r["clean"]]
    pairs = [r for r in results if r["clean"]]
    s = score(faults)
    n = s["cases"]
    quiet = sum(not r["answers"] and not r["error"] for r in pairs)
    titles = {name: kind.title for name, kind in KINDS.items()}
    titles[DRESSED] = "Some of the above, candidate renamed and reordered throughout"
    titles[FOLDED] = "Some of the above, BatchNormalization folded in the candidate"
    titles[ELSEWHERE] = "Some of the above, candidate run without graph optimizations"
    titles[NOISY] = "Some of the above, candidate in emulated FP16"
    titles[TYPED] = "Some of the above, both models typed FP16"
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    packages = [p for p in ("onnxruntime", "onnx", "numpy", "polygraphy") if p in installed]
    versions = ", ".join(f"{p} {installed[p]}" for p in packages)
    out = [
        "# A benchmark of faults",
        "",
        f"<!-- Written by `python -m benchmarks.faults{f' --jobs {jobs}' if jobs > 1 else ''}`. Do not edit. -->",
        "",
        "One known fault at one known node of a network, and the question who is to blame. A case counts as found if",
        "the culprit is the node, or runs with it as one fused kernel; a cause is right if it is one of those that are",
        f"honest for the fault. Every case runs {SAMPLES} samples. A fault is real: it changes its own output by at",
        f"least {REAL:g} and the network's by at least {REACHED:g} (relative L2), measured without layerdiff.",
        f"{sum(len(v) for v in dropped.values())} places where a fault would have changed nothing were left out"
        + (": " + ", ".join(f"{k} {len(v)}" for k, v in sorted(dropped.items())) if dropped else "")
        + ".",
        "",
        "*Polygraphy* is the node of the first tensor, in the order of the graph, that fails its default comparison",
        "with every tensor marked as an output. Where only one file runs, the candidate is emulated FP16.",
        "",
        f"{n} cases and {len(pairs)} clean pairs; layerdiff took {sum(r['seconds'] for r in results):.0f} s for them, "
        f"in {jobs} process{'es' if jobs > 1 else ''}. {versions}, Python {platform.python_version()}.",
        "",
        "| | bar | measured | Polygraphy | first relative L2 error above a threshold |",
        "|---|---|---|---|---|",
        f"| top-1 | ≥ 95 % | {percent(s['top1'], n)} ({s['top1']} of {n}) | {percent(s['polygraphy'] or 0, n)} "
        f"| {percent(s['plain'] or 0, n)} |",
        f"| top-3 | ≥ 99 % | {percent(s['top3'], n)} ({s['top3']} of {n}) | {percent(s['polygraphy3'] or 0, n)} "
        f"| {percent(s['plain3'] or 0, n)} |",
        f"| cause right | ≥ 85 % | {percent(s['cause'], n)} ({s['cause']} of {n}) | – | – |",
        f"| clean pairs without culprit | all | {quiet} of {len(pairs)} | "
        + " | ".join(
            f"{sum(not r['baselines'][m]['named'] for r in pairs if 'baselines' in r)} of {len(pairs)}"
            for m in ("polygraphy", "plain")
        )
        + " |",
        "",
        "## By kind",
        "",
        HEAD.format("kind"),
        *(
            row(f"{titles[kind]} (`{kind}`)", [r for r in faults if r["kind"] == kind])
            for kind in titles
            if any(r["kind"] == kind for r in faults)
        ),
        row("**all**", faults),
        "",
        "## By network",
        "",
        HEAD.format("network"),
        *(
            row(name, [r for r in faults if r["network"] == name])
            for name in dict.fromkeys(r["network"] for r in faults)
        ),
        "",
        "## Clean pairs",
        "",
        "| pair | networks | without culprit | Polygraphy without failure |",
        "|---|---|---|---|",
        *(
            f"| {clean.TITLES[kind]} | {len(some)} | {sum(not r['answers'] and not r['error'] for r in some)} "
            f"| {sum(not r['baselines']['polygraphy']['named'] for r in some if 'baselines' in r)} |"
            for kind in clean.TITLES
            if (some := [r for r in pairs if r["kind"] == kind])
        ),
        "",
        "## What is missed",
        "",
        "Cases whose first culprit is another node, or whose cause is not an honest one. To look at one:",
        "`python -m benchmarks.faults --case ID --keep FOLDER`.",
        "",
    ]
    misses = [r for r in results if not right(r)]
    if misses:
        out += ["| case | fault | at | honest causes | answered |", "|---|---|---|---|---|"]
    for r in misses:
        said = ", ".join(f"`{a['node']}` {a['cause']}" for a in r["answers"][:3]) or "nobody"
        if len(r["answers"]) > 3:
            said += f" and {len(r['answers']) - 3} more"
        if r["error"]:
            said = "crashed: " + r["error"].strip().split("\n")[-1].replace("|", "\\|")[:120]
        at = f"`{r['node']}`" if r["node"] else "–"
        out.append(f"| `{r['id']}` | {r['what']} | {at} | {', '.join(r['causes']) or '–'} | {said} |")
    if not misses:
        out.append("Nothing.")
    return "\n".join(out) + "\n"
