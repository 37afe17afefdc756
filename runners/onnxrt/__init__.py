"""ONNX Runtime."""

from __future__ import annotations

from .runner import OnnxrtRunner as OnnxrtRunner
