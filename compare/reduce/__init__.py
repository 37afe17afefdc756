"""A culprit as a few nodes that fail alone, for a bug report that needs nothing of layerdiff."""

from __future__ import annotations
