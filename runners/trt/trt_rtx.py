"""TensorRT for RTX: TensorRT's bindings on GeForce and RTX cards, and a builder that needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...graph.options import option
from ..contract.capabilities import Capabilities
from . import cuda
from .config import QDQ_METHODS
from .runner import TrtRunner


@dataclass(frozen=True)
class RtxRunner(TrtRunner):
    """TensorRT for RTX on an NVIDIA RTX GPU; without a GPU, networks are built and not run.

    Networks are strongly typed: modes are types written into the ONNX graph. Without a GPU the network is parsed and
    built for the compute capabilities that are asked for, and nothing is known of its outputs: they are undecided. The
    fields are those of `TrtConfig`, of which calibrators and timing caches are TensorRT's alone.
    """

    flag: ClassVar[str] = "trt-rtx"
    rtx: ClassVar[bool] = True
    value_words: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fp32": {"fp32": True},
        **{f"qdq-{method}": {"int8_qdq": method} for method in QDQ_METHODS},
    }
    capabilities: ClassVar[Capabilities] = Capabilities(
        inner_tensors=True, reads_engines=True, builds_for_shapes=True, output_files=("save_engine",)
    )

    strongly_typed: bool = True
    calibrator: str | None = None
    calibration_cache: str | None = None
    timing_cache: str | None = None
    compute_capability: tuple[str, ...] = option(
        (),
        "--compute-capability",
        "build for GPUs of this compute capability, e.g. 8.9 (default: TensorRT for RTX's own choice)",
        metavar="CC",
    )

    @property
    def only_builds(self) -> bool:
        """Where there is no GPU; see `Runner.only_builds`."""
        return not cuda.gpu()
