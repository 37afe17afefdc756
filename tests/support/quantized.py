"""Networks as ONNX Runtime's quantizers leave them."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from layerdiff import OnnxrtRunner
from layerdiff.graph.errors import RunnerError
from layerdiff.graph.model import Model
from onnxruntime import quantization as quantizers

KINDS = ("dynamic", "qdq", "qdq per channel", "qoperator")


def saturates() -> bool:
    """Whether products of a signed and an unsigned 8-bit integer are added in 16 bits here: on x86 without VNNI."""
    try:
        return platform.machine() == "x86_64" and "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def exact(file: onnx.ModelProto) -> OnnxrtRunner:
    """What runs a quantized file without saturating, on every CPU: as usual where nothing saturates."""
    if not saturates():
        return OnnxrtRunner(threads=1)
    runner = OnnxrtRunner(threads=1, exact_int8=True)
    try:
        runner.session(Model(file)).close()
    except RunnerError:  # it does not know every operator and type
        return OnnxrtRunner(threads=1, optimization="basic")
    return runner


class _Samples(quantizers.CalibrationDataReader):
    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._left, None)


def quantized(
    proto: onnx.ModelProto, kind: str, feeds: Sequence[Mapping[str, np.ndarray]], *, signed: bool = False
) -> onnx.ModelProto:
    """A network quantized to 8 bits: one of `KINDS`; static ones are calibrated on the feeds, and have activations of
    signed or of unsigned integers."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(proto, source)
        if kind == "dynamic":
            quantizers.quantize_dynamic(source, target)
        else:
            form = quantizers.QuantFormat.QOperator if kind == "qoperator" else quantizers.QuantFormat.QDQ
            per_channel = kind == "qdq per channel"
            quantizers.quantize_static(
                source,
                target,
                _Samples(feeds),
                quant_format=form,
                per_channel=per_channel,
                activation_type=quantizers.QuantType.QInt8 if signed else quantizers.QuantType.QUInt8,
            )
        return onnx.load(target)
