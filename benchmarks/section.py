"""The section of a page that a benchmark writes, between two marks that stand in the page."""

from __future__ import annotations

import sys
from pathlib import Path

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write(page: Path, text: str, *, dry: bool) -> None:
    """Puts ``text`` between the marks of ``page``; prints it instead if ``dry``."""
    if dry:
        print(text)
        return
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(f"written into {page}", file=sys.stderr)
