"""The command line: which cases, the score, and the page. See ``python -m benchmarks.rewritten --help``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.kit.pages import DOCS, write_page
from benchmarks.kit.pool import spread

from . import table
from .running import Result, cases, known_names, work

PAGE = DOCS / "rewritten.md"


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rewritten", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases or subjects (default: all)")
    parser.add_argument("--list", action="store_true", help="print the cases and run nothing")
    parser.add_argument("--seconds", type=float, default=120, help="time limit of one case (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    default = Path(tempfile.gettempdir()) / "layerdiff-rewritten.jsonl"
    parser.add_argument(
        "--results", metavar="FILE", type=Path, default=default, help="one line of JSON a case; goes on (%(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="run nothing: judge --results and write the page")
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name} (complete runs do)")
    options = parser.parse_args()
    unknown = {*options.names} - {*known_names()}
    if unknown:
        parser.error(f"no such case or subject: {', '.join(sorted(unknown))}")
    return options


def read(path: Path) -> list[Result]:
    """The results of earlier runs; the last of each case counts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return table.known(list({result["id"]: result for result in map(json.loads, lines)}.values()))


def main() -> int:
    options = arguments()
    chosen = cases(options.names)
    if options.list:
        for case in chosen:
            print(f"{case.subject}/{case.name}: {case.what}")
        return 0
    if not options.again:
        done = set() if options.names else {result["id"] for result in read(options.results)}
        jobs = [(case.name, options.seconds, options.results) for case in chosen if case.name not in done]
        for results in spread(work, jobs, options.jobs):
            for result in results:
                print(table.line(result), flush=True)
    results = read(options.results)
    names = {case.name for case in chosen}
    print(table.summary([result for result in results if result["id"] in names]))
    if options.again or options.write or not options.names:
        write_page(PAGE, table.markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
