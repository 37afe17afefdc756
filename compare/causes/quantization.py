"""Quantization: more error than the steps of a scaled format explain, and nothing that says why.

Looks at: whether the layer is quantized, by the candidate's file or by its arithmetic (INT8, FP8). Proves: nothing; it
names the format that the error is the first to be looked for in.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.formats import INT8, NumberFormat
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis

COARSE = 2.0**-4
"""Unit roundoff from which on a float format is scaled like an integer: FP8."""


@dataclass(frozen=True)
class BeyondStep:
    """An error beyond that of a format's step.

    Attributes:
        format: The format.
        relative: Relative L2 error.
        rms_z: Times what the step explains; None where that is not known.
    """

    format: NumberFormat
    relative: float
    rms_z: float | None

    @property
    def text(self) -> str:
        """See `Fact`."""
        z = "" if self.rms_z is None else f", {self.rms_z:.1f} times what its step explains"
        return f"relative error {self.relative:.2g} in {self.format}{z}"


def in_file(case: LayerCase) -> Diagnosis | None:
    """The candidate's file quantizes the layer."""
    return _beyond_step(case, INT8) if case.formats.quantized else None


def find(case: LayerCase) -> Diagnosis | None:
    """The candidate computes in a scaled format."""
    fmt = case.formats.candidate
    return _beyond_step(case, fmt) if fmt.is_integer or fmt.u >= COARSE else None


def _beyond_step(case: LayerCase, fmt: NumberFormat) -> Diagnosis:
    fact = BeyondStep(fmt, case.judgement.relative, case.judgement.rms_z)
    return Diagnosis(Cause.QUANTIZATION, (fact,))
