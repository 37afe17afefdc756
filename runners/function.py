"""A Python function as a runner: whatever computes the outputs of one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..graph.errors import UsageError
from ..graph.imports import named_object
from .contract.capabilities import Capabilities
from .contract.runner import Runner

if TYPE_CHECKING:
    from ..graph.model import Model
    from .contract.opened import Function


@dataclass(frozen=True)
class FunctionRunner(Runner):
    """A function ``feed -> outputs``: arrays by input name to arrays by output name.

    The network is the function's own: it is the same whatever model the other runners open, of which it must have the
    inputs and outputs.

    Attributes:
        function: The function, or ``package.module:function``, which is imported when a session opens. The text can be
            pickled wherever the module can be imported.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(any_model=False, pieces=False)

    function: Function | str = ""

    def __post_init__(self) -> None:
        if callable(self.model):
            raise UsageError("FunctionRunner: the function is a keyword argument: FunctionRunner(function=f).")

    @property
    def name(self) -> str:
        """The function's name."""
        if isinstance(self.function, str):
            return self.function.rpartition(":")[2]
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def foreign(self) -> bool:
        """See `Runner.foreign`."""
        return True

    def open(self, model: Model) -> Function:  # type: ignore[override]
        """The function.

        Raises:
            UsageError: It cannot be imported, or cannot be called.
        """
        found = self.function
        if isinstance(found, str):
            found = named_object("--runner", found, "package.module:function")
        if not callable(found):
            raise UsageError(f"{self.name} is {type(found).__name__}, not a function feed -> outputs.")
        function: Function = found
        return function
