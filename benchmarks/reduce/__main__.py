"""The command line: which cases, and the table. See ``python -m benchmarks.reduce --help``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.cases import DERIVED
from benchmarks.faults.plants import KINDS
from benchmarks.kit.networks import NETWORKS
from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by
from benchmarks.kit.pool import spread

from .running import reported, work

PAGE = DOCS / "reduce.md"
MOST, MINUTE = 5, 60.0
EVERY = [*KINDS, *DERIVED]

Result = dict[str, Any]

ABOUT = """\
`layerdiff reduce report.json -o bundle` takes a culprit of a report to a model of a few nodes, what they are fed, a
script that shows the difference by the runtime alone, and a text to be filed
([layers.md](layers.md#a-bug-report-that-stands-alone)). How often that succeeds: every planted fault of
[faults.md](faults.md) of which a culprit is named is compared by the command, and its first culprit is reduced. A case
counts if the larger of both models has at most {most} nodes (casts of an emulation not counted), and the script, run by
a Python of its own, exits with 1.
"""


def good(result: Result) -> bool:
    """Whether a case counts as reduced."""
    return bool(result["shown"]) and result["nodes"] <= MOST


def line(result: Result) -> str:
    """One case in one line, for the terminal."""
    if result["culprit"] is None:
        return f"--    {result['id']}: no culprit"
    size = f"{result['nodes']} nodes in {result['seconds']:.1f} s" if result["shown"] else " ".join(result["why"])
    return f"{'ok  ' if good(result) else 'MISS'}  {result['id']}: {result['culprit']}: {size}"


def markdown(results: Sequence[Result], jobs: int, note: str = "") -> str:
    """The page; ``note``: what else is to be known of the run."""
    named = [r for r in results if r["culprit"] is not None]
    seconds = [r["seconds"] for r in named if "seconds" in r]
    rows = []
    for kind in dict.fromkeys(r["kind"] for r in named):
        mine = [r for r in named if r["kind"] == kind]
        sizes = [r["nodes"] for r in mine if r["shown"]]
        share = f"{sum(map(good, mine))} of {len(mine)}"
        median = f"{statistics.median(sizes):g}" if sizes else "–"
        slowest = max((r["seconds"] for r in mine if "seconds" in r), default=0.0)
        rows.append((f"`{kind}`", share, median, max(sizes, default=0), f"{slowest:.1f}"))
    whole = sum(map(good, named))
    missed = [r for r in named if not good(r)]
    parts = [
        "# From a culprit to a few nodes",
        written_by(f"benchmarks.reduce --jobs {jobs}"),
        ABOUT.format(most=MOST),
        machine("onnxruntime", "onnx", "numpy") + ".",
        table(
            ("", "bar", "measured"),
            (
                ("reduced", "≥ 90 %", f"{100 * whole / max(1, len(named)):.1f} % ({whole} of {len(named)})"),
                ("slowest", "≤ 60 s", f"{max(seconds, default=0.0):.1f} s"),
                ("median", "", f"{statistics.median(seconds) if seconds else 0.0:.1f} s"),
            ),
        ),
        f"{len(results) - len(named)} cases name no culprit, and are not counted.",
        *_missing(results),
        *([note] if note else []),
        "## By kind",
        table(("kind", "reduced", "median nodes", "most nodes", "slowest, s"), rows),
    ]
    if missed:
        why = [
            (f"`{r['id']}`", r["culprit"], f"{r['nodes']} nodes" if r["shown"] else " ".join(r["why"])) for r in missed
        ]
        parts += ["## Not reduced", table(("case", "culprit", "what came of it"), why)]
    return "\n\n".join(part.strip("\n") for part in parts)


def _missing(results: Sequence[Result]) -> list[str]:
    """What a run that was ended early left out."""
    count = {name: sum(r["id"].startswith(f"{name}/") for r in results) for name in NETWORKS}
    absent = [name for name, found in count.items() if not found]
    if not absent:
        return []
    told = ", ".join(f"{name} {found}" for name, found in count.items() if found)
    return [f"The run was ended early: {told}; none of {', '.join(absent)}."]


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reduce", description=__doc__)
    parser.add_argument("--kind", action="append", choices=EVERY, metavar="KIND", help="only this kind of fault")
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this network")
    parser.add_argument("--case", action="append", metavar="ID", help="only this case (network/kind/number)")
    parser.add_argument("--limit", type=int, help="at most so many cases of each kind in each network")
    parser.add_argument("--reports", metavar="CASES", help="a cases.json, whose files lie in files/ beside it, instead")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the files of what is missed there")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--results", metavar="FILE", help="write every case as JSON")
    parser.add_argument("--again", metavar="FILE", help="run nothing: write the table of an earlier run's --results")
    parser.add_argument("--note", default="", metavar="TEXT", help="what else is to be known of that run")
    parser.add_argument("--write", action="store_true", help=f"write the table to docs/{PAGE.name} (complete runs do)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.again:
        write_page(PAGE, markdown(json.loads(Path(options.again).read_text("utf-8")), options.jobs, options.note))
        return 0
    if options.reports:
        path = Path(options.reports).resolve()
        cases = [c for c in json.loads(path.read_text("utf-8")) if not options.case or c["name"] in options.case]
        jobs = [(c["name"], c["args"], str(path.parent / "files"), options) for c in cases]
        parts = spread(reported, jobs, options.jobs)
    else:
        kinds, names = options.kind or EVERY, options.network or list(NETWORKS)
        if options.case:
            names, kinds = (sorted({i.split("/")[part] for i in options.case}) for part in (0, 1))
        parts = spread(work, [(name, kind, options) for name in names for kind in kinds], options.jobs)
    results = []
    for part in parts:
        results += part
        for result in part:
            print(line(result), flush=True)
    if options.results:
        Path(options.results).write_text(json.dumps(results, indent=1))
    named = [r for r in results if r["culprit"] is not None]
    print(f"{sum(map(good, named))} of {len(named)} reduced; {len(results) - len(named)} without a culprit")
    complete = not (options.kind or options.network or options.case or options.limit or options.reports)
    if options.write or complete:
        write_page(PAGE, markdown(results, options.jobs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
