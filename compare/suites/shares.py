"""Suites of which every machine runs a share of the checks, put together again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ... import __version__
from ...graph.digest import combined, file_digest
from ...graph.errors import LayerdiffError, UsageError
from ..assemble import data_digest
from ..cli.arguments import Request, parse
from ..cli.command import prepared
from ..cli.delivery import verdict_shown
from ..cli.reading import Reads
from ..cli.report_options import check_reports
from ..report.files import write
from ..report.load import of_a_report
from ..report.terminal.progress import console
from ..runs.shards import calibration
from ..share import in_order
from .checks import Check, names_of
from .outcomes import Outcome, is_suite, load_suite
from .summary import print_suite, show_reports, written


def shard_of(share: tuple[int, int], whole: Sequence[Check], outcomes: Sequence[Outcome]) -> Mapping[str, Any]:
    """What the report of a share says of itself.

    Args:
        share: Which, of how many.
        whole: All checks.
        outcomes: What came of those of the share.
    """
    asked = combined((__version__, *(f"{check.name!r} {check.words!r} {check.expect}" for check in whole)))
    ran = {outcome.name for outcome in outcomes if outcome.report is not None}
    read: dict[str, Mapping[str, str]] = {}
    for check in whole:
        with suppress(LayerdiffError):  # of what went meanwhile; such a share cannot be merged
            read.update({check.name: _read_by(check.request)} if check.name in ran else {})
    return {"index": share[0], "count": share[1], "names": names_of(whole), "sha256": asked, "read": read}


def _read_by(request: Request) -> dict[str, str]:
    """Digests of what a check reads: networks with all their weights, stored samples, and other files by their paths.

    Random samples follow from the network and the options. Code is read from the folder that the command runs in.
    """
    _, comparison = prepared(request)
    found = {f"model {side.model.source}": side.model.digest for side in comparison.sides.all}
    for what, digest in (
        ("data", data_digest(comparison.samples) if comparison.samples.representative else None),
        ("calibration data", calibration(comparison)),
    ):
        if digest is not None:
            found[what] = digest
    made = {os.path.realpath(path) for _, path in (*request.written, *request.reports)}
    for path in map(os.path.relpath, {*request.reads.paths} - {*request.reads.models}):
        elsewhere = path.startswith(os.pardir) and path.endswith(".py")
        if os.path.isfile(path) and not elsewhere and os.path.realpath(path) not in made:
            found[f"file {path}"] = file_digest(Path(path))
    return found


def _check_read(name: str, outcome: Outcome, then: Mapping[str, Any]) -> None:
    """Makes sure that what a check of a share was run on is what lies here.

    Args:
        name: The share's file.
        outcome: What came of the check; it has a report.
        then: What `_read_by` gave when it was run.

    Raises:
        UsageError: It is not.
    """
    assert outcome.report is not None
    words = shlex.split(outcome.report.provenance.command or "")
    try:
        now = _read_by(parse(words[1:]))
    except LayerdiffError as error:
        told = f"{name}: check {outcome.name!r}: what it was run on cannot be read here, as merging has to: {error}"
        raise UsageError(told) from error
    changed = [what for what in {**then, **now} if then.get(what) != now.get(what)]
    if changed:
        what = f"its {changed[0]} has changed since, or is another one here"
        raise UsageError(f"{name}: check {outcome.name!r} does not belong to this run: {what}; run the share again.")


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
        UsageError: One is no share, belongs to another suite, is there twice, or is missing, or a check was run on
            other models, data or files than those that lie here.
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
        held = results[name].outcomes
        if [outcome.name for outcome in held] != names[shares[name] - 1 :: count]:
            raise UsageError(f"{name}: a damaged report: it holds other checks than its share.")
        with of_a_report(name):
            read = {outcome.name: dict(contents[name]["shard"]["read"].get(outcome.name, {})) for outcome in held}
        for outcome in held:
            if outcome.report is not None:
                _check_read(name, outcome, read[outcome.name])
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
