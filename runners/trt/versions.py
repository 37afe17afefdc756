"""Which TensorRT version has what: the one table, and the one-line refusals that follow from it.

Read off the Python bindings of 8.6.0, 10.16 and 11.4, of TensorRT for RTX 1.7 and, for the versions between, off the
release notes. The tests check every row against the members of those four bindings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...graph.errors import ProviderUnavailable, UsageError

Version = tuple[int, int]

OLDEST: Version = (8, 5)
"""The oldest version supported: ``execute_async_v3`` and named tensors begin there."""
OLDEST_RTX: Version = (1, 7)
"""The oldest version of TensorRT for RTX supported: the one whose bindings were looked at."""
LIKE_RTX: Version = (11, 0)
"""The version of TensorRT that has the features of `FEATURES` that TensorRT for RTX has."""


@dataclass(frozen=True)
class Feature:
    """One thing that some versions lack.

    Attributes:
        what: Subject of the refusal.
        since: First version that has it.
        until: First version that no longer has it; None while it lives.
        members: ``Class.member`` or ``Enum.MEMBER`` names of the bindings that it needs.
        before, after: What to do instead, on versions before ``since`` and from ``until`` on.
    """

    what: str
    since: Version
    until: Version | None
    members: tuple[str, ...]
    before: str = ""
    after: str = ""

    def within(self, version: Version) -> bool:
        """Whether ``version`` has it."""
        return self.since <= version and (self.until is None or version < self.until)


# fmt: off
FEATURES: dict[str, Feature] = {
    "explicit-batch": Feature(  # 10 still lists it, to no effect
        "the explicit-batch flag", (7, 0), (10, 0), ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH",)),
    "flags": Feature(
        "choosing precision by builder flags", (7, 0), (11, 0), ("BuilderFlag.FP16", "BuilderFlag.INT8"),
        after="types are written into the ONNX graph instead"),
    "bf16": Feature(
        "BF16", (9, 0), None, ("DataType.BF16",),
        before="Use --fp16, or --emulate bf16 to see what BF16 would do."),
    "bf16-flag": Feature("the BF16 builder flag", (9, 0), (11, 0), ("BuilderFlag.BF16",)),
    # 8.6 lists BuilderFlag.FP8 and DataType.FP8, but its ONNX parser reads no FP8 Q/DQ, without which nothing is FP8.
    "fp8": Feature(
        "FP8 from ONNX", (9, 0), None, ("DataType.FP8",),
        before="Use --int8, or --emulate fp8 to see what FP8 would do."),
    "fp8-flag": Feature("the FP8 builder flag", (9, 0), (11, 0), ("BuilderFlag.FP8",)),
    "strongly-typed": Feature(
        "a strongly typed network", (10, 0), None, ("NetworkDefinitionCreationFlag.STRONGLY_TYPED",),
        before="Leave --strongly-typed out: precision is chosen by builder flags there."),
    "calibrators": Feature(
        "INT8 calibration by TensorRT", (7, 0), (11, 0),
        ("IInt8EntropyCalibrator2.get_batch", "IInt8EntropyCalibrator.get_batch", "IInt8MinMaxCalibrator.get_batch",
         "IBuilderConfig.int8_calibrator"),
        after="Use --int8-qdq max (or percentile, entropy)."),
    "layer-precisions": Feature(
        "layer precisions", (8, 2), (11, 0), ("ILayer.precision", "BuilderFlag.OBEY_PRECISION_CONSTRAINTS"),
        after="types are written into the ONNX graph instead"),
    "optimization-level": Feature(
        "a builder optimization level", (8, 6), None, ("IBuilderConfig.builder_optimization_level",),
        before="Leave --trt-optimization-level out."),
    "progress": Feature(
        "a progress monitor", (9, 0), None, ("IBuilderConfig.progress_monitor", "IProgressMonitor.phase_start")),
    "int64": Feature("INT64 tensors", (10, 0), None, ("DataType.INT64",)),
    "library-tactics": Feature(
        "cuBLAS and cuDNN tactics", (7, 0), (11, 0),
        ("TacticSource.CUBLAS", "TacticSource.CUBLAS_LT", "TacticSource.CUDNN"),
        after="Leave them out of --tactic-sources."),
    "debug-tensors": Feature(
        "observing unfused tensors without marking them", (10, 12), None,
        ("INetworkDefinition.mark_unfused_tensors_as_debug_tensors", "IExecutionContext.unfused_tensors_debug_state",
         "IExecutionContext.set_debug_listener", "IDebugListener.process_debug_tensor"),
        before="Observed tensors are marked as outputs there, which can change the engine."),
}
"""Every feature that not all of 8.5 to 11 have, by the name the code asks for."""
# fmt: on


def parse(text: str) -> Version:
    """Major and minor of a version string such as ``10.16.0.45``."""
    numbers = re.findall(r"\d+", text)
    return int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 0


@dataclass(frozen=True)
class Library:
    """An installed ``tensorrt`` or ``tensorrt_rtx`` module together with what its version has.

    Attributes:
        trt: The module.
        version: Its version; of TensorRT for RTX, the version of TensorRT that has the same features.
        rtx: Whether it is TensorRT for RTX.
    """

    trt: Any
    version: Version
    rtx: bool = False

    @classmethod
    def of(cls, trt: Any, rtx: bool = False) -> Library:
        """Wraps a ``tensorrt`` module, or a ``tensorrt_rtx`` module.

        Raises:
            ProviderUnavailable: It is older than 8.5; TensorRT for RTX: than 1.7.
        """
        version = parse(str(trt.__version__))
        if rtx and version < OLDEST_RTX:
            raise ProviderUnavailable(f"TensorRT for RTX {trt.__version__} is too old: 1.7 and later are supported.")
        if not rtx and version < OLDEST:
            raise ProviderUnavailable(f"TensorRT {trt.__version__} is too old: 8.5 to 11 are supported.")
        return cls(trt, LIKE_RTX if rtx else version, rtx)

    def __str__(self) -> str:
        return f"TensorRT{' for RTX' if self.rtx else ''} {self.trt.__version__}"

    @property
    def package(self) -> str:
        """Name of the Python package, which reports and descriptions of engines name its version by."""
        return "tensorrt_rtx" if self.rtx else "tensorrt"

    def has(self, feature: str) -> bool:
        """Whether this version has a feature of `FEATURES`."""
        return FEATURES[feature].within(self.version)

    def require(self, feature: str) -> None:
        """Refuses what this version lacks.

        Raises:
            UsageError: In one line, with the alternative.
        """
        entry = FEATURES[feature]
        if entry.within(self.version):
            return
        early = self.version < entry.since
        if self.rtx:
            raise UsageError(f"{self} lacks {entry.what}. {entry.before if early else entry.after}".rstrip())
        since = ".".join(str(n) for n in (entry.since if early else entry.until or ()))
        when = f"which came with {since}" if early else f"which {since} removed"
        raise UsageError(f"{self} lacks {entry.what}, {when}. {entry.before if early else entry.after}".rstrip())
