"""Tables in Markdown, and the pages and sections of ``docs/`` that benchmarks write."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: bool = False) -> str:
    """A table; ``numbers`` sets all columns but the first to the right."""
    rule = ["---"] * len(head) if not numbers else [":--", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in (head, rule, *rows))


def machine(*packages: str) -> str:
    """What was measured on: processor, cores, Python, versions of those packages that are installed."""
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    versions = [f"{name} {installed[name]}" for name in packages if name in installed]
    return ", ".join([platform.machine(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}", *versions])


def written_by(command: str) -> str:
    """The line of a page that says so."""
    return f"<!-- Written by `python -m {command}`. Do not edit. -->"


def write_page(page: Path, text: str, *, dry: bool = False) -> None:
    """Writes a whole page; prints it instead if ``dry``."""
    if dry:
        print(text)
        return
    page.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(f"written: {page}", file=sys.stderr)


def write_section(page: Path, text: str, *, dry: bool = False, section: str = "measured") -> None:
    """Puts ``text`` between the two marks of ``section`` that stand in ``page``; prints it instead if ``dry``."""
    begin, end = (f"<!-- {section}: {which} -->" for which in ("begin", "end"))
    before, rest = page.read_text(encoding="utf-8").split(begin)
    write_page(page, text if dry else f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}", dry=dry)
