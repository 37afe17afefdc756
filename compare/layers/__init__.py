"""Where they part, and why: the second and third question, layer by layer."""

from __future__ import annotations

from .localize import Watch, begin, localize

__all__ = ["Watch", "begin", "localize"]
