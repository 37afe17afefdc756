"""The section of a page that a benchmark writes, between two marks that stand in the page."""

from __future__ import annotations

import sys
from pathlib import Path


def write(page: Path, text: str, *, dry: bool, section: str = "measured") -> None:
    """Puts ``text`` between the marks of ``section`` in ``page``; prints it instead if ``dry``."""
    if dry:
        print(text)
        return
    begin, end = (f"<!-- {section}: {which} -->" for which in ("begin", "end"))
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")
    print(f"written into {page}", file=sys.stderr)
