"""The ``compare`` command."""

from __future__ import annotations

from .command import main as main
