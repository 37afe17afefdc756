"""Networks as ONNX Runtime's quantizers leave them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization as quantizers

KINDS = ("dynamic", "qdq", "qdq per channel", "qoperator")


class _Samples(quantizers.CalibrationDataReader):
    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._left, None)


def quantized(proto: onnx.ModelProto, kind: str, feeds: Sequence[Mapping[str, np.ndarray]]) -> onnx.ModelProto:
    """A network quantized to 8 bits: one of `KINDS`; static ones are calibrated on the feeds."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(proto, source)
        if kind == "dynamic":
            quantizers.quantize_dynamic(source, target)
        else:
            form = quantizers.QuantFormat.QOperator if kind == "qoperator" else quantizers.QuantFormat.QDQ
            per_channel = kind == "qdq per channel"
            quantizers.quantize_static(source, target, _Samples(feeds), quant_format=form, per_channel=per_channel)
        return onnx.load(target)
