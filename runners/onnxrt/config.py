"""What ONNX Runtime is asked to do, and how it computes then."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from ...graph.errors import UsageError
from ...graph.formats import FP16, FP32, TF32, NumberFormat
from ...graph.options import Choice, Threads, option
from ..contract.runner import Runner

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
ON_CUDA = ("cuda", "tensorrt")
"""Providers whose tensors lie in the memory of an NVIDIA GPU."""
ON_GPU = (*ON_CUDA, "dml", "rocm", "migraphx")
"""Providers that compute on a GPU."""
LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


@dataclass(frozen=True)
class OnnxrtConfig(Runner):
    """The configuration of ONNX Runtime, which `OnnxrtRunner` opens sessions by.

    Attributes:
        provider: ``cpu``, ``cuda`` or ``tensorrt``. One that is asked for and cannot be used is an error.
        optimization: Graph optimization level: ``disable``, ``basic``, ``extended``, ``layout`` (where this version of
            ONNX Runtime has it) or ``all``, which is what a deployed session uses.
        disabled_optimizers: Graph optimizations that are never applied, by ONNX Runtime's names (``ConvAddFusion``).
        provider_options: Options of the provider as ONNX Runtime calls them, ``KEY=VALUE`` each.
        tf32: Lets CUDA multiply FP32 in TF32. ONNX Runtime's own default is on; here it is off.
        exact_int8: Takes kernels that do not saturate within sums of 8-bit products, on x86 CPUs without VNNI too
            (``session.x64quantprecision``).
        custom_ops: Shared libraries of custom operators.
        threads: Threads of one operator; 0 leaves the choice to ONNX Runtime (one a physical core).
        low_memory: Give memory back at once: for sessions that run once or twice.
        sleeps: Let idle threads sleep, which else wait at the cost of a core each.
        float_products: Multiply dequantized weights with float activations in FP32. By itself, ONNX Runtime (1.20 and
            later) takes such a pair for a MatMulNBits and quantizes the activations.
    """

    value_field: ClassVar[str] = "provider"
    provider: str = option("cpu", "", "execution provider", Choice(*PROVIDERS))
    optimization: str = option(
        "all", "--ort-optimization", "graph optimization level of ONNX Runtime (default: all)", Choice(*LEVELS)
    )
    disabled_optimizers: tuple[str, ...] = option(
        (),
        "--ort-disabled-optimizers",
        "optimization that ONNX Runtime leaves out; may be repeated",
        metavar="NAME",
    )
    provider_options: tuple[str, ...] = option(
        (),
        "--ort-provider-options",
        "option of ONNX Runtime's execution provider (device_type=CPU); may be repeated",
        metavar="KEY=VALUE",
    )
    tf32: bool = option(False, "--ort-tf32", "let ONNX Runtime's CUDA provider multiply FP32 in TF32")
    exact_int8: bool = option(
        False, "--ort-exact-int8", "8-bit products of ONNX Runtime that do not saturate on CPUs without VNNI"
    )
    custom_ops: tuple[str, ...] = option(
        (), "--ort-custom-ops", "library of custom operators for ONNX Runtime; may be repeated", metavar="LIB"
    )
    threads: int = option(
        0, "--ort-threads", "threads of ONNX Runtime (default: its own choice)", Threads(), metavar="N"
    )

    low_memory: bool = False
    float_products: bool = False
    sleeps: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in map(str, self.provider_options):
            if "=" not in text or self.provider == "cpu":
                what = "expected KEY=VALUE" if "=" not in text else "the CPU provider has no options"
                raise UsageError(f"--ort-provider-options {text}: {what}.")

    @property
    def own_options(self) -> dict[str, str]:
        """`provider_options` by their keys."""
        pairs = (text.partition("=") for text in self.provider_options)
        return {key.strip(): value.strip() for key, _, value in pairs}

    @property
    def providers(self) -> list[tuple[str, dict[str, str]]]:
        """The execution providers with their options, as ONNX Runtime is given them; the CPU's comes behind them."""
        cuda = {"use_tf32": "1" if self.tf32 else "0"}
        return {
            "cpu": [],
            "cuda": [(PROVIDERS["cuda"], {**cuda, **self.own_options})],
            "tensorrt": [(PROVIDERS["tensorrt"], self.own_options), (PROVIDERS["cuda"], cuda)],
        }.get(self.provider, [(PROVIDERS[self.provider], self.own_options)])

    @property
    def gpus(self) -> int:
        """One for providers that compute on one; see `Runner.gpus`."""
        return int(self.provider in ON_GPU)

    @property
    def trust(self) -> int:
        """10 on the CPU, 30 elsewhere."""
        return 10 if self.provider == "cpu" else 30

    @property
    def foreign(self) -> bool:
        """See `Runner.foreign`."""
        return super().foreign or bool(self.custom_ops)

    @property
    def arithmetic(self) -> NumberFormat:
        """FP32; TF32 where a GPU may round to it, FP16 where the provider computes in it unless it is told otherwise:
        Core ML on anything but the CPU, OpenVINO on GPUs and NPUs.

        The TensorRT provider has no switch for TF32: it is on unless the environment says ``NVIDIA_TF32_OVERRIDE=0``.
        """
        if self.provider == "tensorrt":
            return FP32 if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0" else TF32
        own = self.own_options
        if self.provider == "coreml" and own.get("MLComputeUnits", "ALL") != "CPUOnly":
            return FP16
        if self.provider == "openvino" and own.get("precision", "").upper() != "FP32":
            return FP32 if own.get("device_type", "CPU").upper().startswith("CPU") else FP16
        return TF32 if self.tf32 and self.provider == "cuda" else FP32

    @property
    def rounds_to_types(self) -> bool:
        """Not on the CPU, which computes most FP16 nodes in FP32 and leaves out the casts between them."""
        return self.provider != "cpu"

    @property
    def adds_exactly(self) -> bool:
        """On the CPU."""
        return self.provider == "cpu"
