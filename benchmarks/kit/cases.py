"""What benchmarks of many cases share: each case is a line of JSON in a file, from which a run goes on."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any


def add_options(parser: argparse.ArgumentParser, name: str, page: Path, again: str) -> None:
    """The options of every such benchmark.

    Args:
        parser: Takes them.
        name: The benchmark's, in the name of the file.
        page: The page that it writes.
        again: What ``--again`` does with the results of earlier runs.
    """
    parser.add_argument("--seconds", type=float, default=120, help="time limit of one case (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    default = Path(tempfile.gettempdir()) / f"layerdiff-{name}.jsonl"
    parser.add_argument(
        "--results", metavar="FILE", type=Path, default=default, help="one line of JSON a case; goes on (%(default)s)"
    )
    parser.add_argument("--again", action="store_true", help=f"run nothing: {again}")
    parser.add_argument("--write", action="store_true", help=f"write docs/{page.name} (complete runs do)")


def read(path: Path) -> list[Any]:
    """The results of earlier runs; the last of each case counts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return list({result["id"]: result for result in map(json.loads, lines)}.values())
