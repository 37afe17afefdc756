"""The report on a terminal: one table and one sentence, and what stands behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..escaped import abridged, escaped
from ..sentence import caveat, sentence
from .accuracy import show_accuracy
from .changes import show_changes
from .folding import say
from .layers import show_fidelity, show_layers
from .numbers import number, share
from .plan import show_plan
from .progress import console
from .tables import new_table, print_table

if TYPE_CHECKING:
    from ..model import OutputResult, Report, RunnerResult

VERDICT_STYLE = {"pass": "bold green", "fail": "bold red", "error": "bold red", "undecided": "bold yellow"}
_STYLE = {
    "pass": "green",
    "fail": "bold red",
    "missing": "bold red",
    "extra": "bold red",
    "undecided": "yellow",
}
_BEFORE_BLAME = (
    "not-deterministic",
    "misoptimized",
    "updates-collide",
    "outputs-exchanged",
    "input-not-finite",
    "layers-turned-round",
)
"""Notices that put everything in doubt that is blamed below them, or say who is held against whom."""
_MAX_ULP = (
    "max_ulp: the greatest difference in units in the last place, which are the numbers of the format between the two "
    "values; half of all numbers lie between -1 and 1, so that another sign near zero makes it large"
)
_RMS_Z = "rms_z: the error over the one that rounding is expected to make, root mean square"
_SHOWN_ROWS = 40
"""Rows of outputs before the rest is counted; the guilty ones come first."""


def show(report: Report, to: Console | None = None, *, verbose: bool = False) -> None:
    """Prints a report.

    Args:
        report: What to print.
        to: Where to; standard output if not given.
        verbose: Options, versions, times and all statistics too.
    """
    to = to or console()
    saved = escaped(report.saved)
    report = abridged(escaped(report))
    reference, source = report.runners[0], (report.candidate_model or report.model).source
    ran = reference.source or report.model.source
    say(to, f"reference: {_who(report, reference, ran, verbose)}")
    for candidate in report.candidates:
        ran = candidate.source or source
        say(to, f"candidate: {_who(report, candidate, ran, verbose)}")
    if report.outputs:
        to.print()
        print_table(_table(report, verbose), to, names=1 + (len(report.candidates) > 1))
    show_accuracy(report, to)
    _reasons(report, to)
    if verbose:
        _statistics(report, to)
    for notice in report.notices:
        if notice.code in _BEFORE_BLAME:
            say(to, f"warning: {notice.text}", "yellow")
    show_layers(report, to, verbose)
    show_fidelity(report, to)
    show_plan(report, to, verbose)
    _latency(report, to)
    for note in report.data.notes if report.outputs else ():
        say(to, f"note: {note}", "dim")
    for runner in report.runners:
        for note in runner.notes:
            say(to, f"note: {runner.name}: {note}", "dim")
    for notice in report.notices:
        if notice.code not in _BEFORE_BLAME:
            say(to, f"warning: {notice.text}", "yellow")
    for runner in report.runners:
        if runner.error:
            say(to, f"error: {runner.failure}", "red")
    for path in saved:
        say(to, f"saved: {path} (run it again with --data)", whole=re.compile(re.escape(path)))
    show_changes(report, to)
    to.print()
    verdict, _, finding = sentence(report).partition(" ")
    more = caveat(report)
    say(to, Text.assemble((verdict, VERDICT_STYLE[report.verdict]), f" {finding}", (f" {more}" if more else "", "dim")))


def _who(report: Report, runner: RunnerResult, source: str, verbose: bool) -> str:
    versions = " ".join(f"{k} {v}" for k, v in runner.versions.items())
    engine = runner.options.get("engine")
    if engine and engine != source:
        source = f"{engine}, built from {source}"
    text = f"{runner.name} on {source}" + (f" ({versions})" if versions else "")
    if verbose:
        times = [
            f"{label} {seconds:.2f} s"
            for label, seconds in (("open", runner.open_seconds), ("infer", runner.infer_seconds))
            if seconds is not None
        ]
        options = [f"{k}={v}" for k, v in runner.options.items()]
        text += "".join(f"\n  {line}" for line in (", ".join(times), ", ".join(options)) if line)
    return text


def _ordered(report: Report) -> list[OutputResult]:
    """The outputs, those that do not pass first; within each, as they are."""
    return sorted(report.outputs, key=lambda o: o.verdict == "pass")


def _cells(output: OutputResult) -> dict[str, str]:
    metrics = output.metrics or {}
    snr = metrics.get("snr_db")
    mismatched = None if output.decided_by else metrics.get("mismatched")
    return {
        "max |diff|": number(metrics.get("max_abs")),
        "rel L2": number(metrics.get("rel_l2")),
        "SNR": "-" if snr is None else f"{snr:.1f} dB",
        "of allowed": share(output.use),
        "mismatched": "-" if mismatched is None else f"{mismatched:,} of {metrics.get('count', 0):,}",
    }


def _table(report: Report, verbose: bool) -> Table:
    many = len(report.candidates) > 1
    numbers = ("max |diff|", "rel L2", "SNR", "of allowed", "mismatched")
    table = new_table(*(["candidate"] if many else []), "output", "verdict", *numbers, right=numbers)
    rows = _ordered(report)
    shown = rows if verbose else rows[:_SHOWN_ROWS]
    for output in shown:
        verdict = Text(output.verdict, style=_STYLE[output.verdict])
        lead = [Text(output.candidate)] if many else []
        table.add_row(*lead, Text(output.tensor), verdict, *_cells(output).values())
    if len(shown) < len(rows):
        rest = rows[len(shown) :]
        good = sum(o.verdict == "pass" for o in rest)
        table.caption = f"and {len(rest)} more, {good} of which pass (-v shows them)"
    return table


def _reasons(report: Report, to: Console) -> None:
    """Why an output does not pass, and what stands where."""
    rows = [o for o in _ordered(report) if o.reason]
    if rows:
        to.print()
    for output in rows[:_SHOWN_ROWS]:
        who = f"{output.candidate} " if len(report.candidates) > 1 else ""
        say(to, Text.assemble((f"{who}{output.tensor}: ", "bold"), output.reason or ""))
        if output.verdict in ("fail", "undecided") and output.metrics:
            worst = output.values.get("worst")
            for key, label in (("max_abs", "greatest |difference|"), ("max_rel", "greatest relative difference")):
                place = output.values.get(key)
                if place and (key == "max_rel" or not _same_place(place, worst)):
                    say(to, f"  {label} {number(place['value'])} at {_where(place)}")
    for output in report.outputs:
        if output.ties:
            say(
                to,
                f"{output.tensor}: {output.ties:,} ties: elements that differ where the values that decided them lie "
                "within tolerance of each other",
            )


def _same_place(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is not None and (one["sample"], one["index"]) == (other["sample"], other["index"])


def _where(place: Mapping[str, Any]) -> str:
    reference, candidate = (f"{v:.7g}" if isinstance(v, float) else repr(v) for v in _both(place))
    return f"{list(place['index'])} of sample {place['sample']}: {reference} expected, {candidate} found"


def _both(place: Mapping[str, Any]) -> tuple[Any, Any]:
    return place["reference"], place["candidate"]


def _statistics(report: Report, to: Console) -> None:
    """All metrics, what was allowed, and the worst sample."""
    for output in report.outputs:
        if not output.metrics:
            continue
        say(to, f"\n{output.candidate} {output.tensor}:", "bold")
        values = ", ".join(f"{k} {_metric(v)}" for k, v in output.metrics.items())
        say(to, f"  {values}")
        if output.tolerance is not None:
            t = output.tolerance
            say(to, f"  allowed: rtol {_metric(t.rtol)}, atol {_metric(t.atol)}")
        if output.expected is not None:
            numbers = ", ".join(f"{k} {_metric(v)}" for k, v in output.expected.items() if isinstance(v, float))
            say(to, f"  expected of rounding: {numbers}, from {output.expected['draws']} draws")
        if output.worst_sample is not None:
            say(to, f"  worst sample: {output.worst_sample}")
        histogram = output.values.get("histogram")
        if histogram:
            bars = ", ".join(f"2^{k}: {v:,}" for k, v in histogram.items())
            say(to, f"  |difference| by size: {bars}")
    if any((output.metrics or {}).get("max_ulp") for output in report.outputs):
        say(to, _MAX_ULP, "dim")
    if any((output.expected or {}).get("rms_z") for output in report.outputs):
        say(to, _RMS_Z, "dim")


def _metric(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " and ".join(f"{v:,}" for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else number(value)


def _latency(report: Report, to: Console) -> None:
    """How long one run takes, in milliseconds: the other half of every choice of a format."""
    timed = [runner for runner in report.runners if runner.latency]
    if not timed:
        return
    gpu = any(runner.latency["gpu"] for runner in timed if runner.latency)
    columns = [("host", "min"), ("host", "mean"), ("host", "median"), ("host", "p99")]
    columns += [("gpu", "median"), ("gpu", "p99")] if gpu else []
    numbers = (*(f"{'GPU ' if side == 'gpu' else ''}{which}" for side, which in columns), "runs/s")
    table = new_table("milliseconds a run", *numbers, right=numbers)
    for runner in timed:
        times = runner.latency or {}
        cells = ["-" if not times[side] else f"{times[side][which]:.3g}" for side, which in columns]
        table.add_row(Text(runner.name), *cells, f"{times['throughput']:,.0f}")
    to.print()
    print_table(table, to)
