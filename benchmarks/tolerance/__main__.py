"""Holds outputs of healthy and of broken networks against the error that rounding is expected to make.

``python -m benchmarks.tolerance``; ``--quick`` leaves out the onnx package's networks and the trained ones. The tables
go into docs/tolerance.md, between the two marks there; ``--dry`` prints them instead.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.kit.pages import DOCS, table, write_section
from benchmarks.kit.pool import spread

from .faults import KINDS
from .judged import JUDGED, SEEN, Tally, job_name, judged, on_real_inputs, real_jobs
from .networks import makers
from .small import CASES

DOC = DOCS / "tolerance.md"
SHARES = 4
"""In how many parts the faults of a network are shared out among several processes."""


TEXT = """\
Trained networks on real inputs (`benchmarks/trained`; emulated but for FP32, which is ONNX Runtime without
optimizations beside ONNX Runtime), of each the output that takes most: relative L2 error, the one that rounding is
expected to make, the first over the second, and the largest share of a limit that a statistic takes (1 is the limit).
A dash: nothing was measured, since the outputs are equal or an element is infinite.

{}

Faults whose effect is more than {:.0f} times the expected noise somewhere in 64 neighbouring elements, planted in {}
networks: {} of {} are found in FP32 and {} of {} in FP16. The formula of depth and format, which decided before, finds
{} and {} without the excuses that it needed, and fails {} of the {} outputs and formats below, which are healthy; {}
fail here. The others are drowned in rounding (a scale in front of a normalization, a bias of 1e-7, a dead channel, the
same axis counted from the other end), and are no cases.

{}

The same networks, healthy, with the formula's verdict last:

{}"""


def measure(options: argparse.Namespace) -> str:
    """All tables, of what is in the file of results and what is run now."""
    quick, path = options.quick, options.results
    shares = SHARES if options.jobs > 1 else 1
    every = options.network or [*makers(light=not quick), *CASES]
    known = {} if path is None or not path.exists() else {r["id"]: r for r in map(json.loads, path.open())}
    jobs = [(name, share, shares, path) for name in every for share in range(shares)]
    left = [job for job in jobs if f"{job[0]} {job[1]}/{shares}" not in known]
    planted = [known.get(f"{name} {share}/{shares}") for name, share, *_ in jobs]
    planted = [r for r in [*planted, *spread(judged, left, options.jobs)] if r is not None]
    planted.sort(key=lambda r: (every.index(r["network"]), r["share"]))
    real = [] if quick or options.network else real_jobs()
    left_real = [(*job, path) for job in real if job_name(*job) not in known]
    known.update((r["id"], r) for r in spread(on_real_inputs, left_real, options.jobs))
    found = {kind: Tally() for kind in KINDS}
    for result in planted:
        for kind, tally in result["found"].items():
            found[kind].add(Tally(**tally))
    columns = ["format", "verdict", "rel. L2", "expected", "ratio", "use"]
    rows = [row for r in planted for row in r["rows"]]
    used = table(["network", "output", *columns, "formula"], rows)
    on_real = [known[name]["row"] for job in real if known[name := job_name(*job)]["row"]]
    kinds = [
        [kind, *(c for f in JUDGED for c in (t.planted[f], t.found[f], t.by_formula[f], t.drowned[f]))]
        for kind, t in found.items()
    ]
    heads = [f"{what} {f.upper()}" for f in JUDGED for what in ("planted", "found", "by the formula", "drowned")]
    planted32, planted16 = (sum(t.planted[f] for t in found.values()) for f in JUDGED)
    found32, found16 = (sum(t.found[f] for t in found.values()) for f in JUDGED)
    by_formula = [sum(t.by_formula[f] for t in found.values()) for f in JUDGED]
    fails = [sum(row[-1] == "fail" for row in rows), len(rows), sum(row[3] == "fail" for row in rows)]
    totals = [len({r["network"] for r in planted}), found32, planted32, found16, planted16, *by_formula, *fails]
    real_table = table(["network", "outputs", *columns], on_real)
    return TEXT.format(real_table, SEEN, *totals, table(["fault", *heads], kinds), used)


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
