"""The command line: which cases, the score, and the table. See ``python -m benchmarks.faults --help``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.kit.networks import NETWORKS
from benchmarks.kit.pages import DOCS, write_page
from benchmarks.kit.pool import spread

from . import clean, table
from .cases import DERIVED, Dropped
from .plants import KINDS
from .running import make, work

PAGE = DOCS / "faults.md"


def line(result: dict[str, Any]) -> str:
    """One case in one line, for the terminal."""
    said = ", ".join(f"{a['node']} ({a['cause']})" for a in result["answers"][:3]) or "nobody"
    if len(result["answers"]) > 3:
        said += f" and {len(result['answers']) - 3} more"
    if result["error"]:
        said = result["error"].strip().split("\n")[-1]
    if result["clean"]:
        mark = "ok  " if table.right(result) else "MISS"
        return f"{mark} {result['id']}: {said}"
    mark = "ok  " if result["rank"] == 1 else f"#{result['rank']}  " if result["rank"] else "MISS"
    cause = "" if result["cause_right"] else "  [cause]"
    return f"{mark} {result['id']} at {result['node']} ({result['what']}; {'|'.join(result['causes'])}): {said}{cause}"


EVERY = [*KINDS, *DERIVED, *clean.KINDS]


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument(
        "--kind", action="append", choices=EVERY, metavar="KIND", help=f"only this kind: {', '.join(EVERY)}"
    )
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this network")
    parser.add_argument("--case", action="append", metavar="ID", help="only this case (network/kind/number)")
    parser.add_argument("--limit", type=int, help="at most so many cases of each kind in each network")
    parser.add_argument("--clean", action="store_true", help="only the clean pairs")
    parser.add_argument("--list", action="store_true", help="list the cases and run nothing")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the models of every case there")
    parser.add_argument("--no-baselines", action="store_true", help="leave out what Polygraphy would have named")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--misses", action="store_true", help="print only the cases that are missed")
    parser.add_argument("--results", metavar="FILE", help="write every case as JSON (default: a temporary file)")
    parser.add_argument("--again", metavar="FILE", help="run nothing: write the table of an earlier run's --results")
    parser.add_argument("--write", action="store_true", help=f"write the table to docs/{PAGE.name} (complete runs do)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.again:
        earlier = json.loads(Path(options.again).read_text())
        write_page(PAGE, table.markdown(earlier["cases"], earlier["dropped"], earlier["jobs"]))
        print(table.summary(earlier["cases"], earlier["seconds"]))
        return 0
    kinds = options.kind or ([*clean.KINDS] if options.clean else EVERY)
    names = options.network or list(NETWORKS)
    if options.case:
        names = sorted({i.split("/")[0] for i in options.case})
        kinds = sorted({i.split("/")[1] for i in options.case})
    if options.list:
        for case in (case for name in names for kind in kinds for case in make(name, kind, Dropped())):
            print(case.id, case.node or "", case.what, sep="\t")
        return 0
    began = time.perf_counter()
    results, dropped = answered([(name, kind, options) for name in names for kind in kinds], options)
    seconds = time.perf_counter() - began
    path = Path(options.results or Path(tempfile.gettempdir()) / "layerdiff-faults.json")
    path.write_text(
        json.dumps({"cases": results, "dropped": dropped, "seconds": seconds, "jobs": options.jobs}, indent=1)
    )
    complete = not (options.kind or options.network or options.case or options.limit or options.clean)
    print(table.summary(results, seconds))
    print(f"every case: {path}")
    if options.write or (complete and not options.no_baselines):
        write_page(PAGE, table.markdown(results, dropped, options.jobs))
    return 0


def answered(jobs: list[Any], options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The results of all jobs, each printed as it comes, and the places that were left out, by kind."""
    results: list[dict[str, Any]] = []
    dropped: dict[str, list[str]] = {}
    for part, left_out in spread(work, jobs, options.jobs):
        results += part
        for kind, why in left_out.places.items():
            dropped.setdefault(kind, []).extend(why)
        for result in part:
            if not options.misses or not table.right(result):
                print(line(result), flush=True)
    return results, dropped


if __name__ == "__main__":
    sys.exit(main())
