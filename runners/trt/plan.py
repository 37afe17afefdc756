"""What a configuration means for one TensorRT version: builder flags, types in the graph, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.errors import UsageError

if TYPE_CHECKING:
    from .runner import TrtRunner
    from .versions import Library

LIBRARY_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")


@dataclass(frozen=True)
class Plan:
    """How a network is handed to one version of TensorRT.

    Attributes:
        flags: ``BuilderFlag`` members to set.
        strongly_typed: Whether the types in the ONNX graph are law.
        rewrite: Format whose types are written into the graph (``fp16``, ``bf16``), or None.
        quantize: Format (``int8``, ``fp8``) of the Q/DQ nodes to write into the graph, or None.
        method: How the ranges of those Q/DQ nodes are found: ``max``, ``percentile`` or ``entropy``.
        calibrator: TensorRT's own calibrator to use, or None.
    """

    flags: tuple[str, ...] = ()
    strongly_typed: bool = False
    rewrite: str | None = None
    quantize: str | None = None
    method: str = ""
    calibrator: str | None = None


def resolve(runner: TrtRunner, library: Library) -> Plan:
    """The plan for ``runner`` on ``library``.

    Raises:
        UsageError: The version lacks something that was asked for, or two requests exclude each other.
    """
    for mode in ("bf16", "fp8"):
        if getattr(runner, mode):
            library.require(mode)
    if runner.optimization_level is not None:
        library.require("optimization-level")
    if any(source in LIBRARY_TACTICS for source in runner.tactics):
        library.require("library-tactics")
    strongly_typed = not library.has("flags")
    if runner.strongly_typed:
        library.require("strongly-typed")
        strongly_typed = True
    tf32 = ("TF32",) if runner.tf32 else ()
    if strongly_typed:
        return _strong(runner, library, tf32)
    return _weak(runner, tf32)


def _strong(runner: TrtRunner, library: Library, tf32: tuple[str, ...]) -> Plan:
    if runner.fp16 and runner.bf16:
        raise UsageError(f"{library}: a typed graph takes one 16-bit format. Choose --fp16 or --bf16.")
    quantize = _quantized(runner)
    if quantize == "int8" and runner.calibrator is not None and not runner.int8_qdq:
        library.require("calibrators")
        raise UsageError("TensorRT's calibrators do not work in strongly typed networks. Use --int8-qdq.")
    method = (runner.int8_qdq or "entropy") if quantize == "int8" else "max"
    return Plan(
        flags=tf32,
        strongly_typed=True,
        rewrite="fp16" if runner.fp16 else "bf16" if runner.bf16 else None,
        quantize=quantize,
        method=method if quantize else "",
    )


def _weak(runner: TrtRunner, tf32: tuple[str, ...]) -> Plan:
    quantize = _quantized(runner)
    if quantize == "int8" and not runner.int8_qdq:
        quantize = None
    flags = tuple(mode.upper() for mode in ("fp16", "bf16", "int8", "fp8") if getattr(runner, mode))
    return Plan(
        flags=tf32 + flags,
        quantize=quantize,
        method=(runner.int8_qdq or "") if quantize == "int8" else "max" if quantize else "",
        calibrator=(runner.calibrator or "entropy2") if runner.int8 and not runner.int8_qdq else None,
    )


def _quantized(runner: TrtRunner) -> str | None:
    if runner.int8 and runner.fp8:
        raise UsageError("INT8 and FP8 cannot both be chosen: Q/DQ nodes are written in one format. Leave one out.")
    return "int8" if runner.int8 else "fp8" if runner.fp8 else None
