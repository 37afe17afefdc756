"""onnx.reference as an oracle."""

from __future__ import annotations

from .runner import ReferenceEvaluatorRunner as ReferenceEvaluatorRunner
