"""A table where it fits on the terminal, else a few lines for each row: no name and no number is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

_WIDEST = 100_000
"""Columns that every table fits in."""


def new_table(*columns: str | Text, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table without rules.

    Args:
        columns: Their headings, in order.
        right: Those of numbers, which are set to the right.
        title: What stands above it.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", title=title)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left")
    return table


def print_table(table: Table, to: Console, names: int = 1) -> None:
    """Prints a table. Where it does not fit, what a row is of is a line of its own, and its other cells follow.

    Args:
        table: The table.
        to: Where it is printed.
        names: How many of its first columns say what a row is of.
    """
    natural = Measurement.get(to, to.options.update(max_width=_WIDEST), table)
    if natural.maximum <= to.width:
        to.print(table)
        return
    if table.title:
        to.print(table.title, style="italic")
    headings = [str(column.header).strip() for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in row]
        first, others = Text("  ").join(cells[:names]), zip(headings[names:], cells[names:], strict=True)
        to.print(first, soft_wrap=True)
        told = [Text.assemble(f"{name} ", cell) for name, cell in others if _says(cell)]
        lead = " " * (2 + len(first.plain) - len(first.plain.lstrip()))
        for line in _packed(told, to.width - len(lead)):
            to.print(Text.assemble(lead, line), soft_wrap=True)
    if table.caption:
        to.print(table.caption, style="italic")


def _packed(parts: Sequence[Text], width: int) -> Iterator[Text]:
    """As many parts on a line as fit; a part is not broken."""
    line = Text()
    for part in parts:
        if line and len(line) + 2 + len(part) > width - 1:
            yield Text.assemble(line, ",")
            line = Text()
        line = Text.assemble(line, ", ", part) if line else part
    if line:
        yield line


def _says(cell: Text) -> bool:
    return cell.plain.strip() not in ("", "-")
