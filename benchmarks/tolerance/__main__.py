"""Holds outputs of healthy and of broken networks against the error that rounding is expected to make.

``python -m benchmarks.tolerance``; ``--quick`` leaves out the onnx package's networks and the trained ones. The tables
go into docs/tolerance.md, between the two marks there; ``--dry`` prints them instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from layerdiff import Comparator, LayerdiffError, OnnxrtRunner
from layerdiff.dataloaders import as_source

from benchmarks import trained
from benchmarks.kit.pages import DOCS, table, write_section
from benchmarks.kit.pool import spread

from .faults import KINDS
from .judged import FORMATS, JUDGED, SEEN, Tally, candidate, judged, numbers
from .networks import makers
from .small import CASES

DOC = DOCS / "tolerance.md"
SHARES = 4
"""In how many parts the faults of a network are shared out among several processes."""


def on_real_inputs() -> Iterator[list[object]]:
    """A row for each trained network and format, and for each pair of files, of the output that takes most."""
    for network in trained.networks():
        try:
            files = trained.fetch(network.name)
        except trained.Unavailable as error:
            print(f"  {network.name}: {error}", file=sys.stderr)
            continue
        for fmt in FORMATS:
            yield from _worst(
                network.name,
                fmt,
                Comparator(files.model, [OnnxrtRunner(), candidate(fmt)], data_loader=as_source(files.data)),
            )
    for one, other in trained.PAIRS:
        try:
            mine, theirs = trained.fetch(one), trained.fetch(other)
        except trained.Unavailable:
            continue
        pair = Comparator(mine.model, [OnnxrtRunner()], candidate_model=theirs.model, data_loader=as_source(mine.data))
        yield from _worst(f"{one}, {other}", "fp32", pair)


def _worst(name: str, fmt: str, comparator: Comparator) -> Iterator[list[object]]:
    began = time.perf_counter()
    try:
        outputs = comparator.compare().outputs
    except LayerdiffError as error:
        print(f"  {name} {fmt}: {str(error).splitlines()[0][:150]}", file=sys.stderr)
        return
    if outputs:
        rank = {"pass": 0, "undecided": 1, "fail": 2}
        worst = max(outputs, key=lambda o: (rank.get(o.verdict, 3), o.use or 0.0))
        yield [name, len(outputs), fmt.upper(), worst.verdict, *numbers(worst)]
        print(f"{name} {fmt}: {worst.verdict}, {time.perf_counter() - began:.0f} s", file=sys.stderr)


TEXT = """\
Healthy networks: relative L2 error, the one that rounding is expected to make, the first over the second, and the
largest share of a limit that a statistic takes (1 is the limit).

{}

Trained networks on real inputs (`benchmarks/trained`), of each the output that takes most:

{}

Planted faults whose effect is more than {:.0f} times the expected noise somewhere in 64 neighbouring elements: {} of {}
are found in FP32, {} of {} in FP16. The others are drowned in rounding (a scale in front of a normalization, a bias of
1e-7, a dead channel, the same axis counted from the other end), and are no cases.

{}"""


def measure(options: argparse.Namespace) -> str:
    """All tables, of what is in the file of results and what is run now."""
    quick, path = options.quick, options.results
    shares = SHARES if options.jobs > 1 else 1
    every = options.network or [*makers(light=not quick), *CASES]
    known = {} if path is None or not path.exists() else {r["id"]: r for r in map(json.loads, path.open())}
    jobs = [(name, share, shares, path) for name in every for share in range(shares)]
    for result in spread(judged, [job for job in jobs if f"{job[0]} {job[1]}/{shares}" not in known], options.jobs):
        known[result["id"]] = result
    rows: list[list[object]] = []
    found = {kind: Tally() for kind in KINDS}
    for result in sorted(known.values(), key=lambda r: every.index(r["network"]) if r["network"] in every else -1):
        rows += result["rows"]
        for kind, tally in result["found"].items():
            found[kind].add(Tally(**tally))
    totals = [sum(getattr(t, what)[f] for t in found.values()) for f in JUDGED for what in ("found", "planted")]
    columns = ["format", "verdict", "rel. L2", "expected", "ratio", "use"]
    used = table(["network", "output", *columns], rows)
    real = table(["network", "outputs", *columns], [] if quick else list(on_real_inputs()))
    kinds = [
        [kind, *(c for f in JUDGED for c in (t.planted[f], t.found[f], t.drowned[f]))] for kind, t in found.items()
    ]
    heads = [f"{what} {f.upper()}" for f in JUDGED for what in ("planted", "found", "drowned")]
    return TEXT.format(used, real, SEEN, *totals, table(["fault", *heads], kinds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the onnx package's and trained networks")
    parser.add_argument("--dry", action="store_true", help="print the tables, leave docs/tolerance.md alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--network", action="append", metavar="NAME", help="only this network; prints the tables")
    parser.add_argument("--results", type=Path, help="one line of JSON a share of a network; goes on")
    options = parser.parse_args()
    write_section(DOC, measure(options), dry=options.dry or bool(options.network))


if __name__ == "__main__":
    main()
