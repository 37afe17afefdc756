"""The report on a terminal: what is going on while it runs, then one table and one sentence."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..progress import Progress

if TYPE_CHECKING:
    from rich.status import Status

    from .model import OutputResult, Report, RunnerResult

NARROW = 76
"""Columns under which a table would be cut; each output then gets a block of lines."""

_STYLE = {"pass": "green", "fail": "bold red", "missing": "bold red", "extra": "bold red", "undecided": "yellow"}
_VERDICT_STYLE = {"pass": "bold green", "fail": "bold red", "error": "bold red"}
_SHOWN_ROWS = 40
"""Rows of outputs before the rest is counted; the guilty ones come first."""


def console(file: IO[str] | None = None) -> Console:
    """A console that neither cuts nor folds what goes into a pipe, unless COLUMNS says how wide it is."""
    file = file or sys.stdout
    piped = not file.isatty() and "COLUMNS" not in os.environ
    return Console(file=file, width=160 if piped else None, highlight=False, soft_wrap=False, emoji=False)


class TerminalProgress(Progress):
    """One line that changes on a terminal; a line for each stage elsewhere."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._console = console(file or sys.stderr)
        self._status: Status | None = None
        self._text = ""
        self._drawn = 0.0

    def stage(self, text: str) -> None:
        """See `Progress.stage`."""
        self._text = text
        if not self._console.is_terminal:
            self._console.print(text, markup=False, soft_wrap=True)
            return
        self._show(text)

    def advance(self, done: int, total: int, unit: str = "samples") -> None:
        """See `Progress.advance`."""
        now = time.monotonic()
        if self._console.is_terminal and (now - self._drawn > 0.1 or done == total):
            self._drawn = now
            self._show(f"{self._text} · {done} of {total} {unit} done")

    def clear(self) -> None:
        """See `Progress.clear`."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show(self, text: str) -> None:
        shown = escape(text)
        if self._status is None:
            self._status = self._console.status(shown, spinner="dots")
            self._status.start()
        else:
            self._status.update(shown)


def show(report: Report, to: Console | None = None, *, verbose: bool = False) -> None:
    """Prints a report.

    Args:
        report: What to print.
        to: Where to; standard output if not given.
        verbose: Options, versions, times and all statistics too.
    """
    to = to or console()
    to.print(
        f"reference: {_who(report, report.runners[0], report.model.source, verbose)}", markup=False, soft_wrap=True
    )
    source = (report.candidate_model or report.model).source
    for candidate in report.candidates:
        to.print(f"candidate: {_who(report, candidate, source, verbose)}", markup=False, soft_wrap=True)
    if report.outputs:
        to.print()
        if to.width < NARROW:
            _blocks(report, to)
        else:
            to.print(_table(report, verbose))
    _accuracy(report, to)
    _reasons(report, to)
    if verbose:
        _statistics(report, to)
    _layers(report, to, verbose)
    _fidelity(report, to)
    _latency(report, to)
    for note in report.data.notes:
        to.print(f"note: {note}", markup=False, style="dim")
    for runner in report.runners:
        for note in runner.notes:
            to.print(f"note: {runner.name}: {note}", markup=False, style="dim")
    for warning in report.warnings:
        to.print(f"warning: {warning}", markup=False, style="yellow")
    for runner in report.runners:
        if runner.error:
            to.print(f"error: {runner.failure}", markup=False, style="red")
    for path in report.saved:
        to.print(f"saved: {path} (run it again with --data)", markup=False, soft_wrap=True)
    to.print()
    to.print(sentence(report))


def sentence(report: Report) -> Text:
    """The verdict in one sentence that names the data."""
    verdict = report.verdict
    found = {o.verdict for o in report.outputs}
    said = "undecided" if verdict == "fail" and found <= {"undecided", "pass"} and "undecided" in found else verdict
    on = f", on {report.data.description}" if report.data.samples else ""
    text = Text.assemble((f"{said}: ", _VERDICT_STYLE[verdict]), f"{_finding(report)}{on}.")
    if report.data.samples and not report.data.representative:
        text.append(" Random inputs prove little about deployment: --data runs real ones.", style="dim")
    return text


def _finding(report: Report) -> str:
    parts = []
    failed = [runner.name for runner in report.runners if runner.error]
    if failed:
        parts.append(f"{_and(failed)} failed")
    groups: dict[tuple[str, str], list[str]] = {}
    for candidate in report.candidates:
        outputs = report.of(candidate.name)
        if outputs:
            groups.setdefault(_outcome(outputs), []).append(candidate.name)
    for kind in ("disagree", "undecided", "agree"):
        for (found, where), names in groups.items():
            if found == "disagree" == kind:
                parts.append(f"{_and(names)} {_s('disagrees', 'disagree', names)} with {report.reference} in {where}")
            elif found == "undecided" == kind:
                parts.append(f"{_and(names)} cannot be judged in {where}")
            elif found == "agree" == kind:
                parts.append(f"{_and(names)} {_s('agrees', 'agree', names)} with {report.reference} in {where}")
    if not report.outputs:
        parts.append("nothing was compared")
    elif report.verdict == "fail" and all(o.verdict == "pass" for o in report.outputs):
        return "all outputs are empty, so nothing was compared"
    return "; ".join(parts)


def _outcome(outputs: Sequence[OutputResult]) -> tuple[str, str]:
    """Of one candidate, the worst that happened, and in how many of its outputs."""
    bad = [o for o in outputs if o.verdict in ("fail", "missing", "extra")]
    unclear = [o for o in outputs if o.verdict == "undecided"]
    kind, some = ("disagree", bad) if bad else ("undecided", unclear) if unclear else ("agree", list(outputs))
    measured = [o for o in some if o.decided_by]
    by = f" by {measured[0].decided_by}" if measured else ""
    if len(measured) < len(some):
        by = f" ({len(measured)}{by})" if measured else ""
    if len(outputs) == 1:
        return kind, f"output {outputs[0].tensor}{by}"
    count = f"all {len(outputs)}" if len(some) == len(outputs) else f"{len(some)} of {len(outputs)}"
    return kind, f"{count} outputs{by}"


def _s(one: str, many: str, items: list[str]) -> str:
    return one if len(items) == 1 else many


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2e}" if isinstance(value, float) and (value and not 0.01 <= abs(value) < 1e4) else f"{value:.4g}"


def _cells(output: OutputResult) -> dict[str, str]:
    metrics = output.metrics or {}
    snr = metrics.get("snr_db")
    mismatched = metrics.get("mismatched")
    use = output.use
    return {
        "max |diff|": _number(metrics.get("max_abs")),
        "rel L2": _number(metrics.get("rel_l2")),
        "SNR": "-" if snr is None else f"{snr:.1f} dB",
        "of allowed": "-" if use is None else "over" if use > 99.995 else f"{use:.1%}" if use < 10 else f"{use:.0%}",
        "mismatched": "-" if mismatched is None else f"{mismatched:,} of {metrics.get('count', 0):,}",
    }


def _table(report: Report, verbose: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    many = len(report.candidates) > 1
    if many:
        table.add_column("candidate", overflow="fold")
    table.add_column("output", overflow="fold")
    table.add_column("verdict")
    for name in ("max |diff|", "rel L2", "SNR", "of allowed", "mismatched"):
        table.add_column(name, justify="right")
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


def _blocks(report: Report, to: Console) -> None:
    rows = _ordered(report)
    for output in rows[:_SHOWN_ROWS]:
        to.print(Text.assemble((f"{output.verdict} ", _STYLE[output.verdict]), f"{output.tensor} ({output.candidate})"))
        for name, cell in _cells(output).items():
            if cell != "-":
                to.print(f"  {name}: {cell}", markup=False)
    if len(rows) > _SHOWN_ROWS:
        to.print(f"and {len(rows) - _SHOWN_ROWS} more")


def _reasons(report: Report, to: Console) -> None:
    """Why an output does not pass, and what stands where."""
    rows = [o for o in _ordered(report) if o.reason]
    if rows:
        to.print()
    for output in rows[:_SHOWN_ROWS]:
        who = f"{output.candidate} " if len(report.candidates) > 1 else ""
        to.print(Text.assemble((f"{who}{output.tensor}: ", "bold"), output.reason or ""))
        if output.verdict in ("fail", "undecided") and output.metrics:
            worst = output.values.get("worst")
            for key, label in (("max_abs", "greatest |difference|"), ("max_rel", "greatest relative difference")):
                place = output.values.get(key)
                if place and (key == "max_rel" or not _same_place(place, worst)):
                    to.print(f"  {label} {_number(place['value'])} at {_where(place)}", markup=False)
    for output in report.outputs:
        if output.ties:
            to.print(
                f"{output.tensor}: {output.ties:,} ties: elements that differ where the values that decided them lie "
                "within tolerance of each other",
                markup=False,
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
        to.print(f"\n{output.candidate} {output.tensor}:", markup=False, style="bold")
        values = ", ".join(f"{k} {_metric(v)}" for k, v in output.metrics.items())
        to.print(f"  {values}", markup=False)
        if output.tolerance is not None:
            t = output.tolerance
            least = "at least " if t.source == "auto" and t.atol else ""
            to.print(f"  allowed ({t.source}): rtol {_metric(t.rtol)}, atol {least}{_metric(t.atol)}", markup=False)
        if output.worst_sample is not None:
            to.print(f"  worst sample: {output.worst_sample}", markup=False)
        histogram = output.values.get("histogram")
        if histogram:
            bars = ", ".join(f"2^{k}: {v:,}" for k, v in histogram.items())
            to.print(f"  |difference| by size: {bars}", markup=False)


def _metric(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " and ".join(f"{v:,}" for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _number(value)


def _accuracy(report: Report, to: Console) -> None:
    """What each runner's outputs are worth on labelled data."""
    if not report.accuracy:
        return
    metric = report.accuracy[0].metric
    share = re.fullmatch(r"top\d+", metric) is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text(metric), overflow="fold")
    for name in ("value", "difference", *(["decided differently"] if share else [])):
        table.add_column(name, justify="right")
    for result in report.accuracy:
        reference = result.runner == report.reference
        value, difference = result.value, result.difference
        cells = ["-" if value is None else f"{value:.2%}" if share else f"{value:.6g}"]
        change = "-" if difference is None else f"{100 * difference:+.2f} points" if share else f"{difference:+.3g}"
        cells.append("" if reference else change)
        if share and not reference:
            count = result.disagreements
            cells.append("-" if count is None else f"{count:,} of {result.samples:,}")
        table.add_row(Text(result.runner), *cells)
    to.print()
    to.print(table)


def _latency(report: Report, to: Console) -> None:
    """How long one run takes, in milliseconds: the other half of every choice of a format."""
    timed = [runner for runner in report.runners if runner.latency]
    if not timed:
        return
    gpu = any(runner.latency["gpu"] for runner in timed if runner.latency)
    columns = [("host", "min"), ("host", "mean"), ("host", "median"), ("host", "p99")]
    columns += [("gpu", "median"), ("gpu", "p99")] if gpu else []
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("milliseconds a run", overflow="fold")
    for side, which in columns:
        table.add_column(f"{'GPU ' if side == 'gpu' else ''}{which}", justify="right")
    table.add_column("runs/s", justify="right")
    for runner in timed:
        times = runner.latency or {}
        cells = ["-" if not times[side] else f"{times[side][which]:.3g}" for side, which in columns]
        table.add_row(Text(runner.name), *cells, f"{times['throughput']:,.0f}")
    to.print()
    to.print(table)


def _layers(report: Report, to: Console, verbose: bool) -> None:
    """The culprits, most guilty first; the layers themselves on request."""
    if not report.layers and not report.culprits:
        return
    to.print()
    if not report.culprits:
        to.print(f"no culprit among {len(report.layers):,} layers")
    for number, culprit in enumerate(report.culprits[:5], 1):
        share = "" if culprit.contribution is None else f", {culprit.contribution:.0%} of the error at the outputs"
        where = "".join(f" {enclosing}" for enclosing in reversed(culprit.inside))
        found = f"{culprit.node} ({culprit.op}){where} on {culprit.candidate}: {culprit.cause}{share}"
        if culprit.cause == "spread":
            to.print(Text.assemble(("no culprit: ", "bold"), f"the error of {culprit.candidate} is spread"))
        elif culprit.deployed is False:
            found = f"{culprit.node} ({culprit.op}){where} on {culprit.candidate}: {culprit.cause}, in pieces only"
            to.print(Text.assemble((f"culprit {number}: ", "bold yellow"), found))
        else:
            to.print(Text.assemble((f"culprit {number}: ", "bold red"), found))
        to.print(f"  {culprit.evidence}", markup=False)
    if len(report.culprits) > 5:
        to.print(f"and {len(report.culprits) - 5} more culprits (--json has all)")
    if verbose and report.layers:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("layer", "op", "verdict", "local rel L2", "cumulative rel L2", "z", "of bound", "contribution"):
            table.add_column(name, overflow="fold")
        for layer in report.layers:
            table.add_row(
                Text("/".join([*(e.node for e in layer.inside), layer.node])),
                layer.op,
                layer.verdict,
                _number((layer.local or {}).get("rel_l2")),
                _number((layer.cumulative or {}).get("rel_l2")),
                _number((layer.expected or {}).get("rms_z")),
                _number((layer.expected or {}).get("bound_use")),
                _number(layer.contribution),
            )
        to.print(table)


def _fidelity(report: Report, to: Console) -> None:
    """How much of the deployed candidates the layers above show, one line for each: that of its worst output."""
    for candidate in dict.fromkeys(f.candidate for f in report.fidelity):
        found = [f for f in report.fidelity if f.candidate == candidate]
        worst = max(found, key=lambda f: (not f.bit_identical, abs((f.share or 0.0) - 1.0)))
        runner = next((r for r in report.runners if r.name == candidate), None)
        twice = runner.repeat if runner is not None else None
        if worst.bit_identical:
            text = "outputs are those of the deployed run bit by bit"
        elif worst.share is None:
            text = f"how much of the deployed error at {worst.tensor} it shows is unknown"
        else:
            text = f"{worst.share:.0%} of the deployed error at {worst.tensor}, not bit by bit"
        if twice is not None:
            text += "; run twice, the same bits" if twice["bit_identical"] else "; run twice, other bits"
        to.print(f"observed {candidate} in pieces: {text}", markup=False, style="dim")
