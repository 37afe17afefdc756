"""What an engine is built from beside the network: plain data, of which some versions of TensorRT lack a part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...graph.options import Choice, Size, Whole, option
from ..contract.session import SessionInfo

if TYPE_CHECKING:
    from .made import Made

MODES = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""Number formats that may be mixed in ``--trt=fp16,int8``; fp32 is always there."""


CALIBRATORS = ("entropy2", "entropy", "minmax")
"""TensorRT's own INT8 calibrators."""

QDQ_METHODS = ("max", "percentile", "entropy")
"""How the ranges of Q/DQ nodes are found."""


@dataclass(frozen=True)
class TrtConfig:
    """How TensorRT is asked to build and run.

    Attributes:
        fp16, bf16, tf32, int8, fp8: Number formats allowed beside FP32.
        engine: A serialized engine to run instead of building one; pieces of the model are still built.
        save_engine: Where to write the engine of the whole model; what it was built from goes beside it, in a file of
            its name and ``.json``.
        workspace: Bytes of scratch memory that tactics may take.
        timing_cache: File that keeps kernel timings between builds, or ``off``. Without one, a build begins with
            ``timings``.
        tactic_sources: Comma-separated names of the tactic sources to use instead of TensorRT's default.
        plugins: Plugin libraries to load first.
        optimization_level: The builder's, 0 to 5.
        strongly_typed: Take the types in the ONNX graph as law (10 and later; always from 11 on).
        calibrator: TensorRT's INT8 calibrator: entropy2 (its default), entropy or minmax. None: entropy2.
        calibration_cache: File that keeps its result.
        int8_qdq: Write Q/DQ nodes into the graph instead, from ranges found by max, percentile or entropy.
        keep: Names of ONNX nodes, or patterns of them (``*``, ``?``), that stay FP32 in a mixed engine.
        compute_capability: Compute capabilities of the GPUs to build for (``8.9``); TensorRT for RTX alone. Empty: its
            own choice.
        debug_tensors: Mark unfused tensors for the debug listener (10.12 and later), see ``TrtSession.unfused``.
        deployed: For pieces of a model and engines that give inner tensors: what the engine of the whole model turned
            out to be. They get its number formats and calibration.
        timings: Timings that an earlier build made, as TensorRT serializes them.
        made: An engine that was built already, for the next model that is opened.
    """

    fp16: bool = option(False, "--fp16", "let TensorRT use FP16")
    bf16: bool = option(False, "--bf16", "let TensorRT use BF16 (9 and later)")
    tf32: bool = option(False, "--tf32", "let TensorRT multiply FP32 in TF32")
    int8: bool = option(False, "--int8", "let TensorRT use INT8, calibrated on the input data")
    fp8: bool = option(False, "--fp8", "let TensorRT use FP8 (9 and later), scaled by the input data")
    engine: str | None = option(None, "--engine", "run this serialized TensorRT engine of the model", metavar="FILE")
    save_engine: str | None = option(
        None, "--save-engine", "write the TensorRT engine, and beside it what it was built from", metavar="FILE"
    )
    workspace: int | None = option(
        None, "--workspace", "scratch memory for TensorRT's kernels, e.g. 4GiB", Size(), metavar="SIZE"
    )
    timing_cache: str | None = option(
        None, "--timing-cache", "keep TensorRT's kernel timings in this file ('off': none at all)", metavar="FILE"
    )
    tactic_sources: str | None = option(
        None, "--tactic-sources", "use these tactic sources only, e.g. jit_convolutions", metavar="NAMES"
    )
    plugins: tuple[str, ...] = option((), "--trt-plugin", "load this TensorRT plugin library", metavar="LIB")
    optimization_level: int | None = option(
        None, "--trt-optimization-level", "how hard TensorRT looks for fast kernels, 0 to 5", Whole(0, 5), metavar="N"
    )
    strongly_typed: bool = option(False, "--strongly-typed", "TensorRT 10: the types in the ONNX graph are law")
    calibrator: str | None = option(
        None,
        "--calibrator",
        "TensorRT's INT8 calibrator (default: entropy2)",
        Choice(*CALIBRATORS),
    )
    calibration_cache: str | None = option(
        None, "--calibration-cache", "keep the INT8 calibration here", metavar="FILE"
    )
    int8_qdq: str | None = option(
        None,
        "--int8-qdq",
        "INT8 by Q/DQ nodes in the graph, with ranges found so, instead of TensorRT's calibrator",
        Choice(*QDQ_METHODS),
    )
    keep: tuple[str, ...] = option((), "", "ONNX node (or pattern, *) that stays FP32; may be repeated", metavar="NODE")
    compute_capability: tuple[str, ...] = ()
    debug_tensors: bool = False
    deployed: SessionInfo | None = field(default=None, repr=False, hash=False)
    timings: bytes = field(default=b"", repr=False, compare=False)
    made: Made | None = field(default=None, repr=False, compare=False)

    @property
    def modes(self) -> tuple[str, ...]:
        """The number formats allowed beside FP32, in the order of `MODES`."""
        return tuple(mode for mode in MODES[1:] if getattr(self, mode))

    @property
    def tactics(self) -> tuple[str, ...]:
        """Members of ``tensorrt.TacticSource`` that were asked for."""
        return tuple(t.strip().upper() for t in (self.tactic_sources or "").split(",") if t.strip())

    @property
    def formats_text(self) -> str:
        """``fp16+int8``, ``int8+minmax``: the number formats, and how INT8 finds its ranges; empty for FP32."""
        return "+".join((*self.modes, *self._int8_by))

    @property
    def _int8_by(self) -> tuple[str, ...]:
        """The way to INT8 that was asked for, if any."""
        if not self.int8:
            return ()
        if self.int8_qdq:
            return (f"qdq-{self.int8_qdq}",)
        return (self.calibrator,) if self.calibrator else ()
