"""Cancellation: mere rounding, enlarged because the layer's inputs cancel.

Looks at: a layer that adds up terms, within its expected noise, that explains most of the final error, and by how much
its rounding exceeds that of a result that is rounded once. Proves: that its own inputs' rounding is what the output
shows, so that more precision is needed before it, not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.operators import SUMMING
from ..report.model import Cause
from .case import DOMINANT, LoudLayer
from .diagnosis import Diagnosis

CANCELS = 8.0
"""Times the rounding of a result that rounding must come to for the layer's inputs to cancel. A product has 2."""


@dataclass(frozen=True)
class InputsCancel:
    """A layer whose inputs cancel.

    Attributes:
        rms_z: RMS of its error over the expected noise; None where it was not held against it.
        relative: Its local error.
        contribution: Its share of the final error.
    """

    rms_z: float | None
    relative: float
    contribution: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        z = "" if self.rms_z is None else f" (RMS z {self.rms_z:.1f})"
        return (
            f"its error is rounding{z}, but {self.relative:.1e} of its values, and explains "
            f"{self.contribution:.0%} of the final error: its inputs cancel; raise the precision before it"
        )


def find(layer: LoudLayer) -> Diagnosis | None:
    """A layer that explains most of the final error by rounding that is larger than its result's."""
    verdict = layer.judgement
    if layer.op not in SUMMING or layer.quantized is not None:
        return None  # the steps of a scaled integer make its error, whatever cancels
    if layer.contribution < DOMINANT or verdict.relative <= CANCELS * layer.plain_rounding:
        return None
    return Diagnosis(Cause.CANCELLATION, (InputsCancel(verdict.rms_z, verdict.relative, layer.contribution),))
