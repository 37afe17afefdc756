"""A precision plan, and what a culprit's cause calls for, on a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ....graph.printable import share_of
from .folding import say
from .numbers import number, times
from .tables import new_table, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from ..model import Culprit, Report
    from ..plan import Plan, Trial

_COPIED = re.compile(r"\(--.*\)|--\S+ \S*[./=:]\S*")
"""What one would copy out of a remedy: options in brackets, where names may have spaces, or an option with a value."""
SHOWN = 20
"""Kept layers that are listed without ``-v``."""


def show_remedy(culprit: Culprit, to: Console) -> None:
    """The lines under a culprit: what to try, and what that gave where it was measured."""
    for rank, remedy in enumerate(culprit.remedies):
        measured = "" if remedy.measured is None else f": emulated so, {trial_text(remedy.measured)}"
        say(to, f"  {'or' if rank else 'try'}: {remedy.text}{measured}", whole=_COPIED)


def trial_text(trial: Trial) -> str:
    """What a run came to: ``pass at 3% of allowed``, ``fail at 12x of allowed``."""
    if trial.error is not None:
        return f"it cannot be run: {trial.error}"
    share = trial.share
    if trial.passed:
        return "pass" if share is None else f"pass at {_share(share)} of allowed"
    worst = trial.worst
    tensor = f" in {worst.tensor}" if worst is not None and len(trial.outputs) > 1 else ""
    if worst is None or worst.share is None:
        return f"{trial.verdict}{tensor}: not finite"
    return f"{trial.verdict}{tensor} at {_share(worst.share)} of allowed"


def _share(share: float) -> str:
    return share_of(share) if share < 1 else times(share)


def show_plan(report: Report, to: Console, verbose: bool) -> None:
    """The plan: what is kept and why, what was measured, and how to apply it."""
    if report.applied is not None:
        done = "; ".join(report.applied.texts)
        result = trial_text(report.applied.trial)
        say(to, f"\nremedies applied in {report.applied.path}: {done}: {result}")
    if report.plan is not None:
        to.print()
        print_plan(report.plan, to, verbose)


def print_plan(plan: Plan, to: Console, verbose: bool = False) -> None:
    """See `show_plan`."""
    say(to, Text.assemble(("plan: ", "bold"), headline(plan)))
    if plan.kept:
        print_table(_table(plan, verbose), to)
    for line in plan_lines(plan):
        say(to, f"  {line}", whole=_COPIED)
    if verbose and plan.curve:
        print_table(_curve(plan), to)


def headline(plan: Plan) -> str:
    """What came of the search, in one clause."""
    fmt = plan.format.upper()
    if plan.status == "not needed":
        return f"nothing has to be kept, {plan.why}"
    if plan.status == "none":
        return f"there is none, {plan.why}"
    if plan.status == "unfinished" or plan.after is None:
        return f"none yet, {plan.why}"
    before = "" if plan.before is None else f" (all in {fmt}: {trial_text(plan.before)})"
    minimal = "; none of them can be spared" if plan.minimal and plan.kept else f"; {plan.why}" if plan.why else ""
    layers = f"{len(plan.kept)} of {plan.layers} layers"
    return f"keep {layers} of {plan.candidate} in FP32: {trial_text(plan.after)}{before}{minimal}"


def _table(plan: Plan, verbose: bool) -> Table:
    table = new_table("  layer", "op", "why", "alone", "without it")
    shown = plan.kept if verbose else plan.kept[:SHOWN]
    for layer in shown:
        alone = "-" if layer.alone is None else times(layer.alone)
        without = "-" if layer.without is None else trial_text(layer.without)
        table.add_row(Text(f"  {layer.node}"), layer.op, layer.reason, alone, without)
    if len(shown) < len(plan.kept):
        table.caption = f"and {len(plan.kept) - len(shown)} more (-v shows them)"
    return table


def plan_lines(plan: Plan) -> list[str]:
    """What was measured, what it cost, and how to apply the plan; a sentence each."""
    lines = []
    if plan.predicted is not None and plan.after is not None:
        expected, measured = number(plan.predicted.error), number(plan.after.relative)
        lines.append(f"relative error: {expected} expected, {measured} measured")
    whole = (plan.before, f"all in {plan.format.upper()}"), (plan.after, "with the plan"), (plan.fp32, "all in FP32")
    timed = [f"{t.latency:.3g} ms {words}" for t, words in whole if t is not None and t.latency is not None]
    if timed:
        by = "the time that it takes longer in FP32" if plan.cost == "time" else "counted in multiplications and bytes"
        lines.append(f"one run takes {', '.join(timed)}; what keeping a layer costs is {by}")
    if plan.runs:
        low = f"{plan.operators_low:.0%} of the operators and {plan.arithmetic_low:.0%} of the arithmetic"
        left = f"; {low} stay in {plan.format.upper()}" if plan.after is not None else ""
        lines.append(f"{plan.probes} probes and {plan.runs} judged runs in {plan.seconds:.1f} s{left}")
    if plan.fixed is not None:
        trial = plan.fixed.trial
        more = "" if trial.passed else " (every node rounds then; kernels that fuse nodes round less)"
        lines.append(f"written as types: {plan.fixed.path}; as its types say, {trial_text(trial)}{more}")
    if plan.path and plan.keep and plan.after is not None:
        lines.append(f"apply it with --plan {plan.path}; for other tools: layerdiff plan {plan.path}")
    return lines


def _curve(plan: Plan) -> Table:
    columns = ("  layers in FP32", "arithmetic", "relative error", "verdict")
    table = new_table(*columns, title="every set that was measured")
    for point in sorted(plan.curve, key=lambda point: point.layers):
        cells = f"{point.arithmetic:.0%}", number(point.trial.relative), trial_text(point.trial)
        table.add_row(f"  {point.layers}", *cells)
    return table
