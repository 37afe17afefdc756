"""None of the causes: what exceeds the noise, and where the two differ most."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.printable import share_of
from ..report.model import Cause, Fact
from .case import LayerCase, LoudLayer
from .diagnosis import Diagnosis
from .evidence import greatest_difference


@dataclass(frozen=True)
class CommonGain:
    """A gain that all channels have in common: the candidate is larger by this share."""

    gain: float
    sigma: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"all channels are larger by {self.gain:.3%}, {self.sigma:.0f} standard errors"


@dataclass(frozen=True)
class TimesNoise:
    """RMS of error over that of the expected noise."""

    rms_z: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"{self.rms_z:,.3g} times the expected noise"


@dataclass(frozen=True)
class SliceTimesNoise:
    """RMS of error over that of the expected noise, in the worst slice: a channel, or elements of like size."""

    slice_z: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"{self.slice_z:,.3g} times the expected noise in one channel, or among elements of like size"


@dataclass(frozen=True)
class NoiseUnknown:
    """A layer that explains the final error, and whose own cannot be held against anything.

    Attributes:
        relative: Its local error.
        contribution: Its share of the final error.
    """

    relative: float
    contribution: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"its expected noise is unknown; it is off by {self.relative:.1e} of its values and explains "
            f"{share_of(self.contribution)} of the final error"
        )


def find(case: LayerCase) -> Diagnosis:
    """What is always true of a layer beyond its noise."""
    verdict = case.judgement
    if verdict.reason == "gain" and verdict.gain_sigma is not None:
        return Diagnosis(Cause.UNKNOWN, (CommonGain(verdict.gain, verdict.gain_sigma),))
    facts: list[Fact] = [] if verdict.rms_z is None else [TimesNoise(verdict.rms_z)]
    if verdict.reason == "slice" and verdict.slice_z is not None:
        facts = [SliceTimesNoise(verdict.slice_z)]
    return Diagnosis(Cause.UNKNOWN, (*facts, greatest_difference(case)))


def without_noise(layer: LoudLayer) -> Diagnosis | None:
    """A layer of which the expected noise is unknown."""
    if layer.judgement.known:
        return None
    return Diagnosis(Cause.UNKNOWN, (NoiseUnknown(layer.judgement.relative, layer.contribution),))
