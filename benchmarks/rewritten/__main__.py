"""The command line: which cases, the score, and the page. See ``python -m benchmarks.rewritten --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.kit.cases import add_options, read
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
    add_options(parser, "rewritten", PAGE, "judge --results and write the page")
    options = parser.parse_args()
    unknown = {*options.names} - {*known_names()}
    if unknown:
        parser.error(f"no such case or subject: {', '.join(sorted(unknown))}")
    return options


def judged(path: Path) -> list[Result]:
    """The results of earlier runs, of cases that there are, judged by what is expected now."""
    return table.known(read(path))


def main() -> int:
    options = arguments()
    chosen = cases(options.names)
    if options.list:
        for case in chosen:
            print(f"{case.subject}/{case.name}: {case.what}")
        return 0
    if not options.again:
        done = set() if options.names else {result["id"] for result in judged(options.results)}
        jobs = [(case.name, options.seconds, options.results) for case in chosen if case.name not in done]
        for results in spread(work, jobs, options.jobs):
            for result in results:
                print(table.line(result), flush=True)
    results = judged(options.results)
    names = {case.name for case in chosen}
    print(table.summary([result for result in results if result["id"] in names]))
    if options.again or options.write or not options.names:
        write_page(PAGE, table.markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
