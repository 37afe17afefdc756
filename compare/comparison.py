"""What localizing needs to know of a comparison: who was compared, on what, by which rules. It holds no sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..graph.errors import UsageError
from .progress import SILENT, Progress

if TYPE_CHECKING:
    from ..dataloaders.base import Samples
    from ..graph.formats import NumberFormat
    from ..runners.contract.workload import Workload
    from .layers.fidelity import Deployed
    from .sides import Side


@dataclass(frozen=True)
class Rules:
    """The rules of a comparison.

    Attributes:
        rtol, atol: ``|candidate - reference| <= atol + rtol |reference|`` for all outputs; None: automatic.
        tolerances: ``(rtol, atol)`` of single outputs, by name.
        nan_equal: Whether NaN equals NaN.
        memory: Bytes that localizing may use for one piece, or `Comparator.run` for outputs; None: from the machine.
        layers: Whether to localize: not at all, inside guilty pieces, or every tensor.
    """

    rtol: float | None = None
    atol: float | None = None
    tolerances: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    nan_equal: bool = False
    memory: int | None = None
    layers: Literal["guilty", "all"] | None = None

    def __post_init__(self) -> None:
        if (self.rtol is None) != (self.atol is None):
            missing = "rtol" if self.rtol is None else "atol"
            raise UsageError(f"rtol and atol go together: allowed is atol + rtol * |reference|. {missing} is missing.")
        pairs = {"": (self.rtol, self.atol), **self.tolerances}
        for name, pair in pairs.items():
            if any(value is not None and not 0 <= value < float("inf") for value in pair):
                of = f" of {name!r}" if name else ""
                raise UsageError(f"tolerances are finite and not negative; rtol, atol{of} are {pair[0]}, {pair[1]}.")

    def user_tolerance(self, output: str) -> tuple[float, float] | None:
        """``(rtol, atol)`` that the user gave for ``output``; None: automatic."""
        if output in self.tolerances:
            return self.tolerances[output]
        return None if self.rtol is None or self.atol is None else (self.rtol, self.atol)


@dataclass(frozen=True)
class Comparison:
    """A comparison that ran.

    Attributes:
        reference: The runner that is believed, and its model. The same `Model` object is shared by all sides of one
            file, so its index is made once.
        candidates: Those that opened and ran; a runner that failed is in the report alone.
        samples: The samples; every pass gives the same bytes, read-only.
        workload: What sessions on the whole model were opened for: samples, shape ranges.
        formats: Number formats in play for each candidate, by name: its own arithmetic, the reference's, and the narrow
            types that the models themselves hold.
        rules: Tolerances, NaN policy, memory.
        progress: Where to tell what is going on.
        deployed: The candidates' outputs as the whole models gave them; None: nothing is held against them.
    """

    reference: Side
    candidates: tuple[Side, ...]
    samples: Samples
    workload: Workload
    formats: Mapping[str, tuple[NumberFormat, ...]]
    rules: Rules
    progress: Progress = SILENT
    deployed: Deployed | None = None
