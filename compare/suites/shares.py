"""Suites of which every machine runs a share of the checks, put together again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ...graph.digest import combined
from ...graph.errors import UsageError
from ..cli.delivery import verdict_shown
from ..cli.reading import Reads
from ..cli.report_options import check_reports
from ..report.files import write
from ..report.load import of_a_report
from ..report.terminal.progress import console
from ..share import in_order
from .checks import Check, names_of
from .outcomes import is_suite, load_suite
from .summary import print_suite, show_reports, written


def shard_of(share: tuple[int, int], whole: Sequence[Check]) -> Mapping[str, Any]:
    """What the report of a share says of itself.

    Args:
        share: Which, of how many.
        whole: All checks.
    """
    asked = combined(f"{check.name!r} {check.words!r} {check.expect}" for check in whole)
    return {"index": share[0], "count": share[1], "names": names_of(whole), "sha256": asked}


def merge_suites(contents: Mapping[str, Any], output: str, *, quiet: bool, verbose: bool) -> int:
    """Writes the report on all checks, which is that of one run but for its times, and shows it as a suite is shown.

    Args:
        contents: What ``compare --suite --shard --json`` wrote, by file.
        output: Where to write.
        quiet: Print the verdict alone.
        verbose: Print every report.

    Returns:
        The exit status of the whole suite.

    Raises:
        UsageError: One is no share, belongs to another suite, is there twice, or is missing.
    """
    first = next(iter(contents))
    shares: dict[str, int] = {}
    for name, content in contents.items():
        if not is_suite(content):
            raise UsageError(f"{name}: not the report of a suite, as others of these are.")
        shard = content.get("shard")
        if not isinstance(shard, Mapping):
            raise UsageError(f"{name}: not a share of a suite: it was made without --shard.")
        mine = contents[first]["shard"]
        if any(shard.get(key) != mine.get(key) for key in ("count", "names", "sha256")):
            raise UsageError(f"{name}: not a share of the suite that {first} is of: other checks or shares.")
        with of_a_report(name):
            shares[name] = int(shard["index"])
    count, names = int(contents[first]["shard"]["count"]), contents[first]["shard"]["names"]
    order = in_order(shares, count)
    results = {name: load_suite(contents[name], name) for name in order}
    for name in order:
        held = [outcome.name for outcome in results[name].outcomes]
        if held != names[shares[name] - 1 :: count]:
            raise UsageError(f"{name}: a damaged report: it holds other checks than its share.")
    parts = [iter(contents[name]["checks"]) for name in order]
    checks = [next(parts[number % count]) for number in range(len(names))]
    whole = load_suite({"checks": checks}, output)
    for outcome in whole.outcomes:
        if outcome.report is not None:
            words = shlex.split(outcome.report.provenance.command or "")
            check_reports([("-o", output)], Reads.of_words(words[1:]))
    write(written(checks, whole.status == 0), output, "-o")
    with verdict_shown("layerdiff merge"):
        if verbose:
            show_reports(whole.outcomes, console())
        print_suite(whole, console(), quiet=quiet)
    return whole.status
