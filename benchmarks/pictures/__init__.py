"""The pictures of ``docs/``: the report of five comparisons, as a page and on a terminal, in headless Chromium."""

from __future__ import annotations
