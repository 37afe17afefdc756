"""The report as one HTML file: no outside request, whatever is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....graph.errors import UsageError
from ..escaped import escaped

if TYPE_CHECKING:
    from ..model import Report

FLAG = "--html"
HELP = "write one HTML file with charts"


def render(report: Report) -> str:
    """The report as HTML.

    Raises:
        UsageError: Jinja or Plotly is not installed.
    """
    try:
        from .page import page
    except ImportError as error:
        raise UsageError(
            f"--html: {error.name} is not installed. Install it with: pip install 'layerdiff[html]'"
        ) from None
    return page(escaped(report))
