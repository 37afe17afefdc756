"""Quantization: steps that are too large for the values, or more error than they explain and nothing that says why.

Looks at: whether the layer is quantized, by the candidate's file or by its arithmetic (INT8, FP8), and in which of its
tensors the steps do most. Proves: of a layer within its expected noise that makes most of the final error, which tensor
that is, and what its scale leaves of each channel. Of one beyond its noise nothing; it names the format that the error
is the first to be looked for in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...graph.formats import INT8, NumberFormat
from ...graph.printable import share_of
from ..outputs.by_expectation import SMALL
from ..report.model import Cause
from .case import LayerCase, LoudLayer
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from .quantized_layer import QuantizedLayer

COARSE = 2.0**-4
"""Unit roundoff from which on a float format is scaled like an integer: FP8."""


@dataclass(frozen=True)
class BeyondStep:
    """An error beyond that of a format's step.

    Attributes:
        format: The format.
        relative: Relative L2 error.
        rms_z: Times what the step explains; None where that is not known.
        seen: Where it is more than the step explains, if not in the whole: the test that fired, with its numbers.
    """

    format: NumberFormat
    relative: float
    rms_z: float | None
    seen: str = ""

    @property
    def text(self) -> str:
        """See `Fact`."""
        z = "" if self.rms_z is None else f", {self.rms_z:.1f} times what its step explains"
        return f"relative error {self.relative:.2g} in {self.format}{z}{self.seen}"


@dataclass(frozen=True)
class StepsHold:
    """A layer whose rounding to scaled integers is most of the error at the outputs.

    Attributes:
        layer: Name of its node.
        contribution: Its share of the final error.
        found: What of it matters most.
    """

    layer: str
    contribution: float
    found: QuantizedLayer

    @property
    def text(self) -> str:
        """See `Fact`."""
        what = {"operand": "what it is given", "weights": "its weights", "result": "its result"}[self.found.place]
        return (
            f"the rounding of {what}, '{self.found.tensor}', alone explains an error of {self.found.relative:.2g} in "
            f"{self.layer}, which makes {share_of(self.contribution)} of the final error; leaving {self.layer} in "
            "floating point avoids it"
        )


@dataclass(frozen=True)
class OneScaleForAll:
    """A node that puts tensors of different size together, which have one scale from there on."""

    node: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"{self.node} puts tensors together that need scales of their own"


def of_loudest(layer: LoudLayer) -> Diagnosis | None:
    """A quantized layer within what its steps explain that explains most of the final error.

    An error that is small at the outputs is nobody's fault, but where most channels of tensors that were put together
    are zero (boxes in pixels, and scores). Whoever makes an operand whose channels are of very
    different size is named, for the reader only rounds it.
    """
    found = layer.quantized
    if found is None:
        return None
    if not found.part_lost and (not layer.holds_most or layer.growth * layer.judgement.relative <= SMALL):
        return None
    facts = (StepsHold(layer.joins or layer.name, layer.contribution, found),)
    if found.shared is None:
        return Diagnosis(Cause.QUANTIZATION, facts)
    if found.joins is not None:
        joined = OneScaleForAll(layer.joins)
        return Diagnosis(Cause.QUANTIZATION, (found.shared, joined, *facts), found.joins)
    producer = found.tensor if found.place == "operand" else None
    return Diagnosis(Cause.QUANTIZATION, (found.shared, *facts), producer=producer)


def in_file(case: LayerCase) -> Diagnosis | None:
    """The candidate's file quantizes the layer."""
    return _beyond_step(case, INT8) if case.formats.quantized else None


def find(case: LayerCase) -> Diagnosis | None:
    """The candidate computes in a scaled format."""
    fmt = case.formats.candidate
    return _beyond_step(case, fmt) if fmt.is_integer or fmt.u >= COARSE else None


def _beyond_step(case: LayerCase, fmt: NumberFormat) -> Diagnosis:
    verdict, seen = case.judgement, ""
    if verdict.reason == "gain" and verdict.gain_sigma is not None:
        seen = f"; all channels have a gain of {verdict.gain:+.3%} in common, {verdict.gain_sigma:.0f} standard errors"
    elif verdict.reason == "slice" and verdict.slice_z is not None:
        seen = f", and {verdict.slice_z:.1f} times in the worst of its slices"
    fact = BeyondStep(fmt, verdict.relative, verdict.rms_z, seen)
    return Diagnosis(Cause.QUANTIZATION, (fact,))
