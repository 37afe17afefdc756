"""The command line: which networks and kinds, the score, and the page. See ``python -m benchmarks.blind --help``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import trained
from benchmarks.kit.pages import DOCS, write_page
from benchmarks.kit.pool import spread

from . import table
from .plants import KINDS
from .running import CLEAN, FAULT, Result, work

PAGE = DOCS / "blind.md"
SHARES = 4
"""In how many parts the cases of a network are shared out among several processes."""


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    names = [network.name for network in trained.networks()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blind", description=__doc__)
    parser.add_argument("--network", action="append", choices=names, metavar="NAME", help="only this network")
    parser.add_argument("--kind", action="append", choices=list(KINDS), metavar="KIND", help="only this kind of fault")
    parser.add_argument("--count", type=int, default=20, help="faults in each network (default: %(default)s)")
    parser.add_argument("--healthy", action="store_true", help="only formats and forms in which nothing is wrong")
    parser.add_argument("--faults", action="store_true", help="only faults")
    parser.add_argument("--seconds", type=float, default=120, help="time limit of one case (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    default = Path(tempfile.gettempdir()) / "layerdiff-blind.jsonl"
    parser.add_argument(
        "--results", metavar="FILE", type=Path, default=default, help="one line of JSON a case; goes on (%(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="run nothing: write the page of --results")
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name} (complete runs do)")
    return parser.parse_args()


def read(path: Path) -> list[Result]:
    """The results of earlier runs; the last of each case counts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return list({result["id"]: result for result in map(json.loads, lines)}.values())


def main() -> int:
    options = arguments()
    names = options.network or [network.name for network in trained.networks()]
    if not options.again:
        groups = [CLEAN] if options.healthy else [FAULT] if options.faults else [FAULT, CLEAN]
        known = {result["id"] for result in read(options.results)}
        kinds = options.kind or list(KINDS)
        shared = (kinds, groups, options.count, options.seconds, known, options.results)
        shares = SHARES if options.jobs > 1 else 1
        every = [(name, (share, shares), *shared) for share in range(shares) for name in names]
        for part in spread(work, every, options.jobs):
            for result in part:
                print(table.line(result), flush=True)
    results = read(options.results)
    print(table.summary(results))
    complete = not (options.network or options.kind or options.healthy or options.faults)
    if options.again or options.write or complete:
        write_page(PAGE, table.markdown(results, options.count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
