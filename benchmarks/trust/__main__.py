"""What is promised never to happen, tried.

Each row is one promise: how it was tried, how often, and how often it held. Processes are real ones: the command is
started, and its status, its report, and what it leaves are looked at.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.kit.pages import DOCS, machine, table, write_page, written_by
from benchmarks.trust import trials
from benchmarks.trust.trials import Row

PAGE = DOCS / "trust.md"


def main() -> int:
    """Tries everything, and returns 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/trust.md; else the page is printed")
    parser.add_argument("--only", help="names of trials, separated by commas; the page is then printed")
    parser.add_argument("--fuzz", type=int, default=10_000, help="damaged inputs (10000)")
    parser.add_argument("--interrupts", type=int, default=100, help="runs that each signal interrupts (100)")
    parser.add_argument("--repeats", type=int, default=6, help="runs of each command that is run again (6)")
    parser.add_argument("--properties", type=int, default=1000, help="examples of each property (1000)")
    parser.add_argument("--patience", type=float, default=600, help="seconds that a large network may take (600)")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for trial in trials.TRIALS:
            if options.only and trial.__name__ not in options.only.split(","):
                continue
            folder = Path(name) / trial.__name__
            folder.mkdir()
            for row in trial(folder, options):
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
    write_page(PAGE, page(rows), dry=not options.write or bool(options.only))
    return 0 if all(row.held == row.tried for row in rows) else 1


def page(rows: list[Row]) -> str:
    """The page, as Markdown."""
    told = [[row.promise, row.how, f"{row.tried:,}", row.outcome, row.more or "-"] for row in rows]
    broken = [row for row in rows if row.held != row.tried]
    summary = f"Of {len(rows)} promises {len(rows) - len(broken)} held every time they were tried."
    if broken:
        failed = [f"{row.promise} ({row.how}: {row.outcome})" for row in broken]
        summary += f" **Not yet true:** {'; '.join(failed)}."
    text = table(["promise", "how it was tried", "tried", "outcome", "measured"], told)
    return f"""# Never wrong, never lost, never harmful

{written_by("benchmarks.trust --write")}

{(__doc__ or "").strip().split(chr(10), 2)[2]}

{summary}

Measured on {machine("numpy", "onnx", "onnxruntime")}, beside other work.

{text}

What is promised about models and data that are not trusted: `SECURITY.md` in the repository. Damaged inputs are made
by `tests/fuzz`; the seed of an input that is not answered well is in the message of the test. Not tried here: runtimes
that need an accelerator."""


if __name__ == "__main__":
    sys.exit(main())
