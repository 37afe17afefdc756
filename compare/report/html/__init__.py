"""The report as one HTML file: no outside request, whatever is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....graph.errors import UsageError
from ..escaped import escaped

if TYPE_CHECKING:
    from ..model import Report

FLAG = "--html"
HELP = "write one HTML file with charts"


def check() -> None:
    """Makes sure that it can be rendered; see `Format`.

    Raises:
        UsageError: Jinja or Plotly is not installed.
    """
    try:
        from .page import page  # noqa: F401 - for what it imports
    except ImportError as error:
        raise UsageError(
            f"--html: {error.name} is not installed. Install it with: pip install 'layerdiff[html]'"
        ) from None


def render(report: Report) -> str:
    """The report as HTML.

    Raises:
        UsageError: See `check`.
    """
    check()
    from .page import page

    return page(escaped(report))
