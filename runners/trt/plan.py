"""What a configuration means for one TensorRT version: builder flags, types in the graph, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.errors import UsageError

if TYPE_CHECKING:
    from .config import TrtConfig
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


def resolve(config: TrtConfig, library: Library) -> Plan:
    """The plan for ``config`` on ``library``.

    Raises:
        UsageError: The version lacks something that was asked for, or two requests exclude each other.
    """
    for mode in ("bf16", "fp8"):
        if getattr(config, mode):
            library.require(mode)
    if config.optimization_level is not None:
        library.require("optimization-level")
    if any(source in LIBRARY_TACTICS for source in config.tactics):
        library.require("library-tactics")
    strongly_typed = not library.has("flags")
    if config.strongly_typed:
        library.require("strongly-typed")
        strongly_typed = True
    tf32 = ("TF32",) if config.tf32 else ()
    if strongly_typed:
        return _strong(config, library, tf32)
    return _weak(config, tf32)


def _strong(config: TrtConfig, library: Library, tf32: tuple[str, ...]) -> Plan:
    if config.fp16 and config.bf16:
        raise UsageError(f"{library}: a typed graph takes one 16-bit format. Choose --fp16 or --bf16.")
    quantize = _quantized(config)
    if quantize == "int8" and config.calibrator is not None and not config.int8_qdq:
        library.require("calibrators")
        raise UsageError("TensorRT's calibrators do not work in strongly typed networks. Use --int8-qdq.")
    method = (config.int8_qdq or "entropy") if quantize == "int8" else "max"
    return Plan(
        flags=tf32,
        strongly_typed=True,
        rewrite="fp16" if config.fp16 else "bf16" if config.bf16 else None,
        quantize=quantize,
        method=method if quantize else "",
    )


def _weak(config: TrtConfig, tf32: tuple[str, ...]) -> Plan:
    quantize = _quantized(config)
    if quantize == "int8" and not config.int8_qdq:
        quantize = None
    flags = tuple(mode.upper() for mode in ("fp16", "bf16", "int8", "fp8") if getattr(config, mode))
    return Plan(
        flags=tf32 + flags,
        quantize=quantize,
        method=(config.int8_qdq or "") if quantize == "int8" else "max" if quantize else "",
        calibrator=(config.calibrator or "entropy2") if config.int8 and not config.int8_qdq else None,
    )


def _quantized(config: TrtConfig) -> str | None:
    if config.int8 and config.fp8:
        raise UsageError("INT8 and FP8 cannot both be chosen: Q/DQ nodes are written in one format. Leave one out.")
    return "int8" if config.int8 else "fp8" if config.fp8 else None
