"""ONNX Runtime: on the CPU, on CUDA, or through its TensorRT provider, and never silently on another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..contract.capabilities import Capabilities
from .config import LEVELS, OnnxrtConfig
from .optimizers import OPTIMIZERS
from .session import OnnxrtSession

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.session import SessionInfo
    from ..contract.workload import Workload


@dataclass(frozen=True)
class OnnxrtRunner(OnnxrtConfig):
    """ONNX Runtime, on the CPU or through another of its execution providers."""

    flag: ClassVar[str] = "onnxrt"
    capabilities: ClassVar[Capabilities] = Capabilities(inner_tensors=True, opens_ahead=True)
    optimizers: ClassVar[tuple[str, ...]] = OPTIMIZERS

    def untimed(self) -> OnnxrtRunner:
        """See `Runner.untimed`."""
        return dataclasses.replace(self, sleeps=True)

    def for_pieces(self, deployed: SessionInfo | None = None) -> OnnxrtRunner:
        """Without an arena, which keeps what a piece needed, and without threads that spin while others work.

        Nodes are fused as usual, but tensors keep their layout: where every layer is observed, each would be converted
        to the blocked layout and back, which takes longer than the layer.

        Where the deployed network dequantizes the activations of every product whose weights it dequantizes, its
        products are those of integers. A product that is cut off from its activations' DequantizeLinear multiplies
        floats then: ONNX Runtime would quantize them anew, more coarsely than the network does.
        """
        plain = "extended" if self.optimization in ("all", "layout") and self.provider == "cpu" else self.optimization
        exact = deployed is not None and not deployed.quantizes_activations
        return dataclasses.replace(self, low_memory=True, optimization=plain, float_products=exact)

    def levels(self) -> Mapping[str, OnnxrtRunner]:
        """Empty where nothing is optimized."""
        names = list(LEVELS)[: list(LEVELS).index(self.optimization) + 1]
        if "layout" in names and self.optimization != "layout":
            names.remove("layout")  # not every version has it, and "all" is no more than it on the CPU
        return {name: dataclasses.replace(self, optimization=name) for name in names} if len(names) > 1 else {}

    @property
    def unsaturated(self) -> OnnxrtRunner | None:
        """See `Runner.unsaturated`: kernels of x86 CPUs without VNNI add pairs of products in 16 bits."""
        return None if self.exact_int8 or self.provider != "cpu" else dataclasses.replace(self, exact_int8=True)

    def without(self, optimizers: Collection[str]) -> OnnxrtRunner:
        """See `Runner.without`."""
        fewer = dict.fromkeys((*self.disabled_optimizers, *optimizers))
        return dataclasses.replace(self, disabled_optimizers=tuple(fewer))

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
