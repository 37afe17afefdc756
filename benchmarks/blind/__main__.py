"""The command line: which networks and kinds, the score, and the page. See ``python -m benchmarks.blind --help``."""

from __future__ import annotations

import argparse
import sys

from benchmarks import trained
from benchmarks.kit.cases import add_options, read
from benchmarks.kit.pages import DOCS, write_page
from benchmarks.kit.pool import spread

from . import table
from .plants import KINDS
from .running import CLEAN, FAULT, work

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
    add_options(parser, "blind", PAGE, "write the page of --results")
    return parser.parse_args()


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
