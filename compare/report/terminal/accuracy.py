"""What outputs are worth, on a terminal: a metric of every runner, and how far a language model's logits are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .folding import say
from .numbers import number
from .tables import new_table, print_table

if TYPE_CHECKING:
    from ..logits import LogitsResult
    from ..model import Report

SHARES = ("top1", "top5", "agree")
"""Metrics that are shares of rows."""


def show_accuracy(report: Report, to: Console) -> None:
    """What each runner's outputs are worth on labelled data."""
    if not report.accuracy:
        return
    metric = report.accuracy[0].metric
    if any(result.logits is not None for result in report.accuracy):
        _logits(report, to)
        return
    share = metric in SHARES
    numbers = ("value", "difference", *(["decided differently"] if share else []))
    table = new_table(Text(metric), *numbers, right=numbers)
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
    print_table(table, to)


def _logits(report: Report, to: Console) -> None:
    """Divergences and log-probabilities in nats, and what is decided otherwise."""
    numbers = ("KL mean", "99%", "greatest", "|change| of log p", "top 1", "top 5", "perplexity ratio")
    table = new_table("logits, in nats", *numbers, right=numbers)
    candidates = [result for result in report.accuracy if result.runner != report.reference]
    for result in candidates:
        found = result.logits
        if found is None:
            table.add_row(Text(result.runner), *["-"] * 7)
            continue
        change = f"{number(found.change_abs_mean)} (at most {number(found.change_abs_max)})"
        ratio = "-" if found.perplexity_ratio is None else f"{found.perplexity_ratio:.4f}"
        shares = (f"{found.top1:.2%}", f"{found.top5:.2%}")
        divergence = map(number, (found.kl_mean, found.kl_p99, found.kl_max))
        table.add_row(Text(result.runner), *divergence, change, *shares, ratio)
    to.print()
    print_table(table, to)
    for result in candidates:
        if result.logits is not None:
            say(to, f"{result.runner}: {_flips(result.logits)}")


def _flips(found: LogitsResult) -> str:
    """How often another token is the most probable one, and whether rounding explains that."""
    told = f"{found.flips:,} of {found.positions:,} positions have another most probable token"
    if found.flip_margin is None:
        return told
    told += f"; the reference's led by {number(found.flip_margin)} at most"
    if found.flip_margin_expected is None:
        return told
    return f"{told}, {found.flip_margin_expected:.1f} times the expected error of that"
