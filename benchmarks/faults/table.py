"""The score of a run: a few lines for the terminal, tables for the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.kit.pages import machine, table, written_by

from . import clean
from .case import REACHED, REAL, SAMPLES
from .cases import DRESSED, ELSEWHERE, FOLDED, NOISY, TYPED
from .plants import KINDS

Result = dict[str, Any]


def right(result: Result) -> bool:
    """Whether a case was answered wholly: the first culprit and its cause, or none where nothing is wrong."""
    if result["error"]:
        return False
    return not accused(result) if result["clean"] else result["rank"] == 1 and result["cause_right"]


def accused(result: Result) -> list[Result]:
    """The culprits that are named of a pair in which nothing is wrong, but for causes that are honest there too."""
    return [a for a in result["answers"] if a["cause"] not in result["causes"]]


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
    quiet = sum(map(without_culprit, pairs))
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


COLUMNS = (
    *("cases", "top-1", "top-3", "cause right", "one culprit alone", "seconds", "runtime calls"),
    "Polygraphy, top-1",
)


def row(name: str, results: list[Result]) -> list[object]:
    """A row of a table of faults."""
    s = score(results)
    n = s["cases"]
    shares = [percent(s[key], n) for key in ("top1", "top3", "cause", "alone")]
    polygraphy = "–" if s["polygraphy"] is None else percent(s["polygraphy"], n)
    return [name, n, *shares, f"{s['seconds']:.2f}", f"{s['calls']:.0f}", polygraphy]


DERIVED_TITLES = {
    DRESSED: "Some of the above, candidate renamed and reordered throughout",
    FOLDED: "Some of the above, BatchNormalization folded in the candidate",
    ELSEWHERE: "Some of the above, candidate run without graph optimizations",
    NOISY: "Some of the above, candidate in emulated FP16",
    TYPED: "Some of the above, both models typed FP16",
}
PAGE = """# A benchmark of faults

{written}

One known fault at one known node of a network, and the question who is to blame. A case counts as found if
the culprit is the node, or runs with it as one fused kernel; a cause is right if it is one of those that are
honest for the fault. Every case runs {samples} samples. A fault is real: it changes its own output by at
least {real:g} and the network's by at least {reached:g} (relative L2), measured without layerdiff.
{dropped}

*Polygraphy* is the node of the first tensor, in the order of the graph, that fails its default comparison
with every tensor marked as an output. Where only one file runs, the candidate is emulated FP16.

{counts}

{totals}

## By kind

{kinds}

## By network

{networks}

## Clean pairs

A culprit of a pair in which nothing is wrong is false, but for one: of a file that ONNX Runtime quantized, where INT8
is too coarse for the network, the layer that makes most of the error (`quantization`: what to leave in float); on a CPU
without VNNI, a layer whose 8-bit products saturate there (`narrow-accumulator`).

{pairs}

## What is missed

Cases whose first culprit is another node, or whose cause is not an honest one. To look at one:
`python -m benchmarks.faults --case ID --keep FOLDER`.

{missed}
"""


def markdown(results: list[Result], dropped: dict[str, list[str]], jobs: int) -> str:
    """The page of the documentation."""
    faults = [r for r in results if not r["clean"]]
    pairs = [r for r in results if r["clean"]]
    titles = {name: kind.title for name, kind in KINDS.items()} | DERIVED_TITLES
    places = ": " + ", ".join(f"{k} {len(v)}" for k, v in sorted(dropped.items())) if dropped else ""
    left_out = sum(len(v) for v in dropped.values())
    seconds = sum(r["seconds"] for r in results)
    return PAGE.format(
        written=written_by(f"benchmarks.faults{f' --jobs {jobs}' if jobs > 1 else ''}"),
        samples=SAMPLES,
        real=REAL,
        reached=REACHED,
        dropped=f"{left_out} places where a fault would have changed nothing were left out{places}.",
        counts=f"{len(faults)} cases and {len(pairs)} clean pairs; layerdiff took {seconds:.0f} s for them, in {jobs} "
        f"process{'es' if jobs > 1 else ''}. {machine('onnxruntime', 'onnx', 'numpy', 'polygraphy')}.",
        totals=totals(faults, pairs),
        kinds=table(
            ["kind", *COLUMNS],
            [
                *(
                    row(f"{title} (`{kind}`)", some)
                    for kind, title in titles.items()
                    if (some := [r for r in faults if r["kind"] == kind])
                ),
                row("**all**", faults),
            ],
        ),
        networks=table(
            ["network", *COLUMNS],
            [
                row(name, [r for r in faults if r["network"] == name])
                for name in dict.fromkeys(r["network"] for r in faults)
            ],
        ),
        pairs=clean_table(pairs),
        missed=missed([r for r in results if not right(r)]),
    )


def totals(faults: list[Result], pairs: list[Result]) -> str:
    """What is asked of the whole, and what was measured."""
    s, n = score(faults), len(faults)

    def others(suffix: str = "") -> list[str]:
        return [percent(s[f"{method}{suffix}"] or 0, n) for method in ("polygraphy", "plain")]

    def quiet(method: str) -> str:
        return f"{sum(not r['baselines'][method]['named'] for r in pairs if 'baselines' in r)} of {len(pairs)}"

    return table(
        ["", "bar", "measured", "Polygraphy", "first relative L2 error above a threshold"],
        [
            ["top-1", "≥ 95 %", f"{percent(s['top1'], n)} ({s['top1']} of {n})", *others()],
            ["top-3", "≥ 99 %", f"{percent(s['top3'], n)} ({s['top3']} of {n})", *others("3")],
            ["cause right", "≥ 85 %", f"{percent(s['cause'], n)} ({s['cause']} of {n})", "–", "–"],
            [
                *("clean pairs without a false culprit", "all", f"{sum(map(without_culprit, pairs))} of {len(pairs)}"),
                *(quiet("polygraphy"), quiet("plain")),
            ],
        ],
    )


def without_culprit(result: Result) -> bool:
    """Whether nobody is blamed."""
    return not accused(result) and not result["error"]


def clean_table(pairs: list[Result]) -> str:
    """Kinds of clean pairs, and in how many nobody is blamed."""
    rows = []
    for kind, title in clean.TITLES.items():
        some = [r for r in pairs if r["kind"] == kind]
        if some:
            theirs = sum(not r["baselines"]["polygraphy"]["named"] for r in some if "baselines" in r)
            rows.append([title, len(some), sum(map(without_culprit, some)), theirs])
    return table(["pair", "networks", "without a false culprit", "Polygraphy without failure"], rows)


def missed(misses: list[Result]) -> str:
    """Cases that are not answered wholly, and what was answered."""
    if not misses:
        return "Nothing."
    rows = []
    for r in misses:
        said = ", ".join(f"`{a['node']}` {a['cause']}" for a in r["answers"][:3]) or "nobody"
        if len(r["answers"]) > 3:
            said += f" and {len(r['answers']) - 3} more"
        if r["error"]:
            said = "crashed: " + r["error"].strip().split("\n")[-1].replace("|", "\\|")[:120]
        at = f"`{r['node']}`" if r["node"] else "–"
        rows.append([f"`{r['id']}`", r["what"], at, ", ".join(r["causes"]) or "–", said])
    return table(["case", "fault", "at", "honest causes", "answered"], rows)
