"""PyTorch: runs the program that an ONNX file was exported from, and speaks of its tensors by their ONNX names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...graph.errors import LayerdiffError, MissingPackage, ProviderUnavailable
from ...graph.formats import BY_DTYPE, FP32, TF32, NumberFormat
from ...graph.options import Choice, option
from ..contract.capabilities import Capabilities
from ..contract.runner import Runner
from .library import no_exporter
from .programs import EagerProgram, ScriptProgram, kind_of, load_program

if TYPE_CHECKING:
    from ...graph.model import Model
    from ..contract.session import Session, SessionInfo
    from ..contract.workload import Feed
    from .session import TorchSession


@dataclass(frozen=True)
class TorchRunner(Runner):
    """PyTorch: the program that the ONNX file was exported from, on the CPU or on CUDA with TF32 off.

    Attributes:
        program: A ``.pt2`` (`torch.export.save`), TorchScript (`torch.jit.save`), or ``package.module:function``, which
            gives an ``nn.Module``.
        device: ``cpu`` or ``cuda``.
        tf32: Let PyTorch use TF32 on CUDA.
        format: The number format of the program's parameters, as `settled` finds it; empty: FP32.
        shapes: The shapes of the inputs that inner tensors will be asked for with, as `for_pieces` is told.
    """

    flag: ClassVar[str] = "torch"
    value_field: ClassVar[str] = "program"
    value_required: ClassVar[bool] = True
    value_form: ClassVar[str] = "FILE.pt2|FILE.pt|MODULE:FUNCTION"

    program: str = option("", "", "what is run", metavar="PROGRAM")
    device: str = option("cpu", "--torch-device", "where PyTorch runs", Choice("cpu", "cuda"))
    tf32: bool = option(False, "--torch-tf32", "let PyTorch use TF32 on CUDA (off unless asked for)")
    format: str = dataclasses.field(default="", repr=False, compare=False)
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = dataclasses.field(default=(), repr=False, compare=False)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """TorchScript shows outputs alone."""
        shows = kind_of(self.program) is not ScriptProgram
        return Capabilities(any_model=False, pieces=False, inner_tensors=shows, feeds_inner_tensors=shows)

    @property
    def name(self) -> str:
        """``torch``, and ``:cuda`` there."""
        return "torch" if self.device == "cpu" else f"torch:{self.device}"

    @property
    def gpus(self) -> int:
        """One on CUDA; see `Runner.gpus`."""
        return int(self.device == "cuda")

    @property
    def trust(self) -> int:
        """0: the program the model was trained as; less than other CPU runners on a GPU."""
        return 0 if self.device == "cpu" else 25

    @property
    def arithmetic(self) -> NumberFormat:
        """That of the program's parameters; of FP32, TF32 only on CUDA and when asked for."""
        if self.format:
            return BY_DTYPE[self.format]
        return TF32 if self.tf32 and self.device == "cuda" else FP32

    @property
    def foreign(self) -> bool:
        """See `Runner.foreign`: a function is the user's own code."""
        return kind_of(self.program) is EagerProgram

    def settled(self, model: Model) -> TorchRunner:
        """With the number format of the program's parameters; see `Runner.settled`."""
        try:
            return dataclasses.replace(self, format=self.there("parameter_format", model))
        except LayerdiffError:
            return self  # opening the program says why it cannot be read

    def parameter_format(self, model: Model) -> str:
        """The 16-bit type that most of the program's parameters have; empty where they have another one.

        Raises:
            LayerdiffError: The program cannot be loaded.
        """
        kind = load_program(self._torch(), self.program, self.device).format
        return kind if kind in ("float16", "bfloat16") else ""

    @property
    def lacks_for_layers(self) -> MissingPackage | None:
        """See `Runner.lacks_for_layers`: PyTorch's exporter shows them."""
        lacking = self.capabilities.inner_tensors and find_spec("torch") and not find_spec("onnxscript")
        return no_exporter() if lacking else None

    def runs(self, model: Model) -> str:
        """The program; see `Runner.runs`."""
        return self.program

    def own_model(self, model: Model) -> Model | None:
        """The program as PyTorch exports it today; see `Runner.own_model`."""
        if kind_of(self.program) is ScriptProgram:
            return None
        exported: Model | None = self.there("exported", model)
        return exported

    def exported(self, model: Model) -> Model | None:
        """The program as PyTorch exports it; None where PyTorch's exporter refuses it.

        Raises:
            LayerdiffError: The program cannot be loaded.
        """
        return self._examined(model).exported(self._some_feed(model))

    def for_pieces(self, deployed: SessionInfo | None = None) -> TorchRunner:
        """With the shapes that the whole run was fed; see `Runner.for_pieces`."""
        shapes: Mapping[str, Any] = deployed.options.get("shapes", {}) if deployed is not None else {}
        return dataclasses.replace(self, shapes=tuple((name, tuple(dims)) for name, dims in shapes.items()))

    def tensors_shown(self, model: Model) -> Collection[str] | None:
        """Those that are values of the program; see `Runner.tensors_shown`."""
        if kind_of(self.program) is ScriptProgram:
            return ()
        shown: Collection[str] = self.there("values_shown", model)
        return shown

    def values_shown(self, model: Model) -> Collection[str]:
        """The tensors of the ONNX file that are values of the program.

        Raises:
            LayerdiffError: The program cannot be loaded.
        """
        return self._examined(model).shown(self._some_feed(model))

    def _examined(self, model: Model) -> TorchSession:
        from .session import TorchSession

        torch = self._torch()
        return TorchSession(torch, load_program(torch, self.program, self.device), model, self.device, {})

    def _some_feed(self, model: Model) -> Feed:
        """Inputs of the shapes that inner tensors will be asked for with."""
        import numpy as np

        shapes = dict(self.shapes)
        return {
            spec.name: np.zeros(shapes.get(spec.name, _some_shape(spec.shape)), spec.dtype) for spec in model.inputs
        }

    def open(self, model: Model, *, progress: Callable[[str], None] | None = None) -> Session:  # type: ignore[override]
        """Loads the program.

        Raises:
            UsageError: There is no such file or function, or the file is no program.
            MissingPackage: PyTorch is not installed.
            ProviderUnavailable: CUDA was asked for, and PyTorch sees none.
            BuildError: The function fails.
        """
        from .session import TorchSession

        if progress is not None:
            progress("starting PyTorch")
        torch = self._torch()
        program = load_program(torch, self.program, self.device)
        options: dict[str, Any] = {"program": Path(self.program).name, "device": self.device, "tf32": self.tf32}
        options["threads"] = torch.get_num_threads()
        if self.device == "cuda":
            options["gpu"] = torch.cuda.get_device_name()
        return TorchSession(torch, program, model, self.device, options)

    def _torch(self) -> Any:
        from .library import import_torch

        torch = import_torch()
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ProviderUnavailable(
                f"--torch-device cuda: PyTorch {torch.__version__} sees no GPU here. Leave it out to run on the CPU."
            )
        return torch


def _some_shape(shape: tuple[int | str | None, ...] | None) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else 1 for dim in shape or ())
