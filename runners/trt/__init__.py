"""TensorRT, and TensorRT for RTX."""

from __future__ import annotations

from .runner import TrtRunner as TrtRunner
from .trt_rtx import RtxRunner as RtxRunner
