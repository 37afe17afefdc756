"""The page: a template that Jinja fills, Plotly's JavaScript and the data of the charts, packed.

Plotly alone is 4.8 MB, which browsers unpack faster than they read it: scripts and data are gzip in Base64, and the
page decompresses them itself (``DecompressionStream``, in every browser since 2023). Tables need no script.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
from importlib import resources
from typing import TYPE_CHECKING

import jinja2
import plotly.offline

from ..plain import plain
from ..sentence import caveat, sentence
from ..terminal.numbers import number, times
from ..terminal.plan import headline, plan_lines, trial_text
from .charts import charts, not_compared

if TYPE_CHECKING:
    from ..model import Report

SHOWN = 500
"""Rows of a table, at most: the worst first; the rest is counted."""


def page(report: Report) -> str:
    """The file."""
    outputs = sorted(report.outputs, key=lambda output: output.verdict == "pass")
    return _template().render(
        report=report,
        sentence=sentence(report).partition(": ")[2],
        caveat=caveat(report),
        outputs=outputs[:SHOWN],
        more_outputs=len(outputs) - SHOWN,
        shown=SHOWN,
        not_compared=not_compared(report),
        data=_packed(json.dumps(charts(report), allow_nan=False, separators=(",", ":"))),
        plotly=_plotly(),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    environment.filters["times"] = lambda value: "-" if value is None else times(value)
    environment.filters["setting"] = lambda value: value if isinstance(value, str) else json.dumps(plain(value))
    environment.filters.update(trial=trial_text, headline=headline, plan_lines=plan_lines)
    environment.globals["file"] = _file
    return environment.get_template("page.html")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


@functools.cache
def _plotly() -> str:
    return _packed(plotly.offline.get_plotlyjs())


def _packed(text: str) -> str:
    """Gzip in Base64; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")
