"""TFLite: runs a ``.tflite`` and parts of it, and speaks of its tensors by the names of its ONNX conversion."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...graph.errors import UsageError
from ...graph.options import Choice, Threads, option
from ..contract.capabilities import Capabilities
from ..contract.runner import Runner

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.session import Session


@dataclass(frozen=True)
class TfliteRunner(Runner):
    """TFLite (LiteRT) on the CPU: a .tflite beside the network that it was converted from.

    Attributes:
        file: The ``.tflite``; None: the model of the comparison is one.
        ops: ``default`` (XNNPACK where it can), ``builtin`` (without XNNPACK) or ``reference``.
        threads: Threads of the interpreter; 0 leaves the choice to TFLite.
    """

    flag: ClassVar[str] = "tflite"
    value_field: ClassVar[str] = "file"
    value_form: ClassVar[str] = "FILE.tflite"
    value_suffixes: ClassVar[tuple[str, ...]] = (".tflite",)
    capabilities: ClassVar[Capabilities] = Capabilities(pieces=False, inner_tensors=True, feeds_inner_tensors=True)

    file: str = option("", "", "the .tflite, where the model is the network that it was made from", metavar="FILE")
    ops: str = option(
        "default",
        "--tflite-ops",
        "TFLite's kernels: default (XNNPACK where it can), builtin (without XNNPACK) or reference",
        Choice("default", "builtin", "reference"),
    )
    threads: int = option(0, "--tflite-threads", "threads of TFLite (default: its own choice)", Threads(), metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file:
            from ...graph.tflite_file import SUFFIXES

            if not str(self.file).endswith(SUFFIXES):
                raise UsageError(f"--tflite {self.file}: expected FILE.tflite.")
            object.__setattr__(self, "model", self.file)

    @property
    def name(self) -> str:
        """``tflite``, and ``:builtin`` or ``:reference`` where it computes with these kernels."""
        return "tflite" if self.ops == "default" else f"tflite:{self.ops}"

    @property
    def trust(self) -> int:
        """35: what is deployed on a phone, and judged by whatever trained or exported it."""
        return 35

    def tensors_shown(self, model: Model) -> Collection[str] | None:
        """Those of which the conversion left a trace; see `Runner.tensors_shown`."""
        return None if model.tflite is None else frozenset(model.tflite.tensors)

    def open(self, model: Model) -> Session:  # type: ignore[override]
        """Loads the file.

        Raises:
            UsageError: The model is no TFLite file.
            MissingPackage: ai-edge-litert is not installed.
            BuildError: TFLite refuses the file.
        """
        if model.tflite is None:
            name = os.path.basename(model.source)
            raise UsageError(f"--tflite needs a .tflite; {name} is none. Name it: --tflite FILE.tflite.")
        from .session import TfliteSession

        return TfliteSession(model, self.ops, self.threads)
