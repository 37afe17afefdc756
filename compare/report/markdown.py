"""The report as Markdown, for a step summary or a comment on a pull request.

A comment may have 65,536 characters and a step summary 1,024 KiB, and GitHub refuses what is longer: `LIMIT` holds for
both. The verdict, the changes and the culprits always fit; of outputs and layers, as many as there is room for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ...graph.printable import share_of
from .escaped import escaped
from .sentence import sentence
from .terminal.numbers import number, share

if TYPE_CHECKING:
    from .history import Change
    from .model import Culprit, LayerResult, OutputResult, Report

FLAG = "--markdown"
HELP = "write Markdown, short enough for a step summary and a pull request's comment"

LIMIT = 60_000
"""Bytes of UTF-8 at most."""
_CULPRITS, _CHANGES, _TEXT = 20, 40, 400
_MARK = {"pass": "✅", "fail": "❌", "undecided": "❔", "error": "❌", "missing": "❌", "extra": "❌"}


def render(report: Report) -> str:
    """The report as GitHub's Markdown."""
    report = escaped(report)
    parts = ["\n".join(_head(report))]
    for rows, heading, columns in (
        (map(_change, report.changes[:_CHANGES]), "Since the baseline", "what, was, is, rel L2 before, now"),
        (map(_output, _worst_first(report.outputs)), "Outputs", "output, candidate, verdict, max diff, rel L2, use"),
        (map(_layer, _loudest(report)), "Layers", "layer, op, candidate, verdict, local rel L2, cumulative rel L2, z"),
    ):  # fmt: skip
        room = LIMIT - sum(len(part.encode()) + 2 for part in parts) - 600  # for the foot
        table = _table(heading, columns.split(", "), list(rows), room)
        parts += [table] if table else []
    parts.append("\n".join(_foot(report)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: Report) -> Iterator[str]:
    yield f"### {_MARK[report.verdict]} layerdiff: {_text(sentence(report))}"
    failed = [runner for runner in report.runners if runner.error]
    if failed:
        yield ""
        yield from (
            f"- **{_code(runner.name)} {'was stopped' if runner.stopped else 'failed'}**: {_text(runner.failure)}"
            for runner in failed
        )
    if report.culprits:
        yield ""
        yield from map(_culprit, report.culprits[:_CULPRITS])
        if len(report.culprits) > _CULPRITS:
            yield f"- and {len(report.culprits) - _CULPRITS:,} more culprits"
    if report.baseline is not None and not report.changes:
        yield ""
        yield f"No change since {_code(report.baseline)}: every output passes, as it did."
    reasons = [o for o in report.outputs if o.reason][:5]
    if reasons:
        yield ""
        yield from (f"- {_code(o.tensor)} of {_code(o.candidate)}: {_text(o.reason or '')}" for o in reasons)


def _culprit(culprit: Culprit) -> str:
    share = "" if culprit.contribution is None else f", {share_of(culprit.contribution)} of the error at the outputs"
    origin = f"From {_code(culprit.origin)}. " if culprit.origin else ""
    return (
        f"- **culprit**: {_code(culprit.path)} ({_text(culprit.op)}) on {_code(culprit.candidate)}: "
        f"**{culprit.cause}**{share}. {origin}{_text(culprit.evidence)}"
    )


def _change(change: Change) -> list[str]:
    arrow = {"worse": "🔺 ", "new": "🔺 ", "better": "🔻 ", "gone": "🔻 "}.get(change.kind, "")
    name = f"{arrow}{change.kind}: {change.subject} {_code(change.name)} of {_code(change.candidate)}"
    errors = (number(change.error_before), number(change.error_after))
    return [name, change.before or "-", change.after or "-", *errors]


def _worst_first(outputs: Sequence[OutputResult]) -> list[OutputResult]:
    return sorted(outputs, key=lambda o: o.verdict == "pass")


def _output(output: OutputResult) -> list[str]:
    metrics = output.metrics or {}
    use = share(output.use)
    verdict = f"{_MARK.get(output.verdict, '⚪')} {output.verdict}"
    numbers = (number(metrics.get("max_abs")), number(metrics.get("rel_l2")), use)
    return [_code(output.tensor), _code(output.candidate), verdict, *numbers]


def _loudest(report: Report) -> list[LayerResult]:
    """The culprits' layers first, then by local error."""

    def key(layer: LayerResult) -> tuple[bool, float]:
        return layer.verdict != "culprit", -float((layer.local or {}).get("rel_l2") or 0.0)

    return sorted(report.layers, key=key)


def _layer(layer: LayerResult) -> list[str]:
    errors = [number((m or {}).get("rel_l2")) for m in (layer.local, layer.cumulative)]
    z = number((layer.expected or {}).get("rms_z"))
    return [_code(layer.path), _text(layer.op), _code(layer.candidate), layer.verdict, *errors, z]


def _foot(report: Report) -> Iterator[str]:
    versions = dict.fromkeys(f"{k} {v}" for runner in report.runners for k, v in runner.versions.items())
    told = ", ".join(["layerdiff " + report.provenance.version, *versions, report.provenance.date])
    yield f"<sub>{_text(told)[:300]}</sub>"
    command = report.provenance.command
    if command and len(command.encode()) < 200 and "`" not in command:
        yield f"\n`{command}`"


def _table(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> str:
    """A table that folds, with as many rows as fit; nothing where there are none."""
    if not rows:
        return ""
    lines = [
        f"<details><summary>{heading} ({len(rows):,})</summary>",
        "",
        _line(columns),
        _line(["---"] * len(columns)),
    ]
    used = sum(len(line.encode()) + 1 for line in lines) + 100  # and for what comes last
    for position, row in enumerate(rows):
        line = _line(row)
        used += len(line.encode()) + 1
        if used > room:
            lines.append(f"\nand {len(rows) - position:,} more")
            break
        lines.append(line)
    return "\n".join([*lines, "", "</details>"])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(name: str) -> str:
    """A name in code style, whatever is in it, as a cell of a table can hold it."""
    short = " ".join(name.split())
    short = short if len(short) <= 120 else f"{short[:60]}…{short[-59:]}"
    fence = "`" * (max(map(len, re.findall("`+", short)), default=0) + 1)
    pad = " " if "`" in short else ""
    return f"{fence}{pad}{short}{pad}{fence}".replace("|", "\\|")


def cell(text: str) -> str:
    """Text that is somebody else's, for a cell of a table or an item of a list."""
    return _text(text)


def _text(text: str) -> str:
    """Text of which nothing is taken for Markdown, HTML or a mention of somebody."""
    short = " ".join(text.split())
    short = short if len(short) <= _TEXT else f"{short[: _TEXT - 1]}…"
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", short).replace("\\<", "&lt;").replace("\\>", "&gt;")
