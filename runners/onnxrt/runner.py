"""ONNX Runtime: on the CPU, on CUDA, or through its TensorRT provider, and never silently on another one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...graph.errors import UsageError
from ...graph.formats import FP32, TF32, NumberFormat
from ...graph.options import option
from ..contract.capabilities import Capabilities
from ..contract.runner import Runner
from .loading import LEVELS, PROVIDERS
from .session import OnnxrtSession

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.session import SessionInfo
    from ..contract.workload import Workload


@dataclass(frozen=True)
class OnnxrtRunner(Runner):
    """ONNX Runtime.

    Attributes:
        provider: ``cpu``, ``cuda`` or ``tensorrt``. One that is asked for and cannot be used is an error.
        optimization: Graph optimization level: ``disable``, ``basic``, ``extended``, ``layout`` (where this version of
            ONNX Runtime has it) or ``all``, which is what a deployed session uses.
        tf32: Lets CUDA multiply FP32 in TF32. ONNX Runtime's own default is on; here it is off.
        custom_ops: Shared libraries of custom operators.
        threads: Threads of one operator; 0 leaves the choice to ONNX Runtime (one a physical core).
        low_memory: Give memory back at once, and let idle threads sleep: for sessions that run once or twice.
    """

    flag: ClassVar[str] = "onnxrt"
    capabilities: ClassVar[Capabilities] = Capabilities(opens_ahead=True)
    disabled_optimizers: ClassVar[tuple[str, ...]] = ()
    """Graph optimizations that are never applied, by ONNX Runtime's names."""
    value_field: ClassVar[str] = "provider"
    values: ClassVar[tuple[str, ...]] = tuple(PROVIDERS)

    provider: str = "cpu"
    optimization: str = option(
        "all", "--ort-optimization", "graph optimization level of ONNX Runtime (default: all)", choices=tuple(LEVELS)
    )
    tf32: bool = option(False, "--ort-tf32", "let ONNX Runtime's CUDA provider multiply FP32 in TF32")
    custom_ops: tuple[str, ...] = option(
        (), "--ort-custom-ops", "library of custom operators for ONNX Runtime; may be repeated", metavar="LIB"
    )
    threads: int = option(
        0, "--ort-threads", "threads of ONNX Runtime (default: its own choice)", metavar="N", type=int
    )

    low_memory: bool = False

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            raise UsageError(f"--onnxrt={self.provider}: not one of {', '.join(PROVIDERS)}.")
        if self.optimization not in LEVELS:
            raise UsageError(f"--ort-optimization {self.optimization}: not one of {', '.join(LEVELS)}.")
        if self.threads < 0:
            raise UsageError(f"--ort-threads {self.threads}: must be 0 (ONNX Runtime's choice) or more.")
        libraries = (self.custom_ops,) if isinstance(self.custom_ops, (str, os.PathLike)) else self.custom_ops
        object.__setattr__(self, "custom_ops", tuple(os.fspath(library) for library in libraries))

    @property
    def name(self) -> str:
        """``onnxrt`` on the CPU, else ``onnxrt:PROVIDER``."""
        return "onnxrt" if self.provider == "cpu" else f"onnxrt:{self.provider}"

    def for_pieces(self, deployed: SessionInfo | None = None) -> OnnxrtRunner:
        """Without an arena, which keeps what a piece needed, and without threads that spin while others work.

        Nodes are fused as usual, but tensors keep their layout: where every layer is observed, each would be converted
        to the blocked layout and back, which takes longer than the layer.
        """
        plain = "extended" if self.optimization in ("all", "layout") and self.provider == "cpu" else self.optimization
        return dataclasses.replace(self, low_memory=True, optimization=plain)

    @property
    def trust(self) -> int:
        """10 on the CPU, 30 elsewhere."""
        return 10 if self.provider == "cpu" else 30

    @property
    def repeatable(self) -> bool:
        """On the CPU: its kernels give each element to one thread, whichever that is."""
        return self.provider == "cpu" and not self.custom_ops

    @property
    def arithmetic(self) -> NumberFormat:
        """FP32; TF32 where a GPU may round to it.

        The TensorRT provider has no switch for TF32: it is on unless the environment says ``NVIDIA_TF32_OVERRIDE=0``.
        """
        if self.provider == "tensorrt":
            return FP32 if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else TF32
        return TF32 if self.tf32 and self.provider == "cuda" else FP32

    @property
    def adds_exactly(self) -> bool:
        """On the CPU."""
        return self.provider == "cpu"

    def open(
        self,
        model: Model,
        *,
        fetch: Sequence[str] = (),
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> OnnxrtSession:
        """A session on ``model``.

        Without ``fetch`` it is the program that would be deployed. Each tensor in ``fetch`` becomes an output of the
        graph that ONNX Runtime optimizes, and what is an output cannot be fused away.
        """
        return OnnxrtSession(self, model, fetch, progress or (lambda stage: None))
