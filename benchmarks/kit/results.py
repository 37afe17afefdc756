"""Results of a run on a machine that may be taken away: each is written as soon as it is there, within a time limit."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_options(parser: argparse.ArgumentParser, *, limit: float, level: int = 2) -> None:
    """The options of every script that builds engines."""
    parser.add_argument("--limit", type=float, default=limit, help="seconds after which nothing more is begun")
    parser.add_argument("--optimization-level", type=int, default=level, help="TensorRT's")
    parser.add_argument("--tactic-sources", default=None)


class Results:
    """Lines of JSON in a file, and the time that is left.

    Attributes:
        kept: All results of this run.
    """

    def __init__(self, path: Path | None, limit: float) -> None:
        self.path = path
        self.limit = limit
        self.kept: list[dict[str, Any]] = []
        self._begun = time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._begun

    def over(self, what: str, needed: float = 0.0) -> bool:
        """Whether ``what``, which takes about so many seconds, would end after the limit; says so."""
        if self.spent + needed <= self.limit:
            return False
        print(f"skipped {what}: {self.spent:.0f} s of {self.limit:.0f} s are spent", flush=True)
        return True

    def attempt(self, what: str, work: Callable[[], object], needed: float = 0.0) -> None:
        """Does the work unless the limit is reached; says so if it fails, and goes on."""
        if self.over(what, needed):
            return
        try:
            work()
        except Exception as problem:
            print(f"{what}: {type(problem).__name__}: {problem}", flush=True)

    def add(self, result: dict[str, Any]) -> None:
        """Keeps a result, and appends it to the file."""
        self.kept.append(result)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result, default=str) + "\n")
