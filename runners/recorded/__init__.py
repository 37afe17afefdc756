"""Recorded outputs."""

from __future__ import annotations

from .runner import RecordedRunner as RecordedRunner
