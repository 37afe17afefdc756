"""TFLite."""

from __future__ import annotations

from .runner import TfliteRunner as TfliteRunner
