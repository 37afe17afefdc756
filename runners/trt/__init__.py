"""TensorRT."""

from __future__ import annotations

from .runner import TrtRunner as TrtRunner
