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
    parser.add_argument(
        "--only",
        help="names of trials, separated by commas; the other rows of the page stay as an earlier run wrote them",
    )
    parser.add_argument("--fuzz", type=int, default=10_000, help="damaged inputs (10000)")
    parser.add_argument("--interrupts", type=int, default=100, help="runs that each signal interrupts (100)")
    parser.add_argument("--repeats", type=int, default=6, help="runs of each command that is run again (6)")
    parser.add_argument("--properties", type=int, default=1000, help="examples of each property (1000)")
    parser.add_argument("--patience", type=float, default=600, help="seconds that a large network may take (600)")
    options = parser.parse_args()
    known = [trial.__name__ for trial in trials.TRIALS]
    unknown = [name for name in (options.only or "").split(",") if name and name not in known]
    if unknown:
        parser.error(f"no trial is called {', '.join(unknown)}: {', '.join(known)}")
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
    told = [cells(row) for row in rows]
    write_page(PAGE, page(updated(told) if options.only else told), dry=not options.write)
    return 0 if all(row.held == row.tried for row in rows) else 1


def cells(row: Row) -> list[str]:
    """A row of the table."""
    return [row.promise, row.how, f"{row.tried:,}", row.outcome, row.more or "-"]


def updated(told: list[list[str]]) -> list[list[str]]:
    """The rows of the page with new ones in the place of those of the same promise, tried in the same way."""
    new = {(promise, how): row for row in told for promise, how in [row[:2]]}
    lines = [line.strip("| ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][2:]
    kept = [line.split(" | ") for line in lines]
    return [new.pop((row[0], row[1]), row) for row in kept] + list(new.values())


def page(told: list[list[str]]) -> str:
    """The page, as Markdown."""
    broken = [row for row in told if row[3] != "held"]
    summary = f"Of {len(told)} promises {len(told) - len(broken)} held every time they were tried."
    if broken:
        failed = [f"{promise} ({how}: {outcome})" for promise, how, _, outcome, _ in broken]
        summary += f" **Not yet true:** {'; '.join(failed)}."
    text = table(["promise", "how it was tried", "tried", "outcome", "measured"], told)
    return f"""# Never wrong, never lost, never harmful

{written_by("benchmarks.trust --write")}

{(__doc__ or "").strip().split(chr(10), 2)[2]}

{summary}

Measured on {machine("numpy", "onnx", "onnxruntime")}, beside other work. Rows of trials that were tried again by
themselves (`--only`) have taken the place of earlier ones.

{text}

What is promised about models and data that are not trusted: `SECURITY.md` in the repository. Damaged inputs are made
by `tests/fuzz`; the seed of an input that is not answered well is in the message of the test. Not tried here: runtimes
that need an accelerator."""


if __name__ == "__main__":
    sys.exit(main())
