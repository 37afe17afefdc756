"""Amplified: mere rounding, which what reads it enlarges until it is most of the error at the outputs.

Looks at: a layer within its expected noise that explains most of the final error. Proves: that this layer's rounding,
or that of the one tensor that it computes from, is what the outputs show, so that it needs more precision, whatever its
own error is.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.printable import share_of
from ..report.model import Cause
from .case import LoudLayer
from .diagnosis import Diagnosis

ENLARGED = 8.0
"""Times that a layer's rounding has to grow on the way to the outputs to be named for it."""


@dataclass(frozen=True)
class RoundingEnlarged:
    """A layer whose rounding is enlarged behind it.

    Attributes:
        relative: Its local error.
        growth: How many times larger it is at the outputs.
        contribution: Its share of the final error.
        readers: Name and operator of what reads it.
        coordinates: Whether it is read as coordinates, between which values are interpolated.
    """

    relative: float
    growth: float
    contribution: float
    readers: tuple[str, ...]
    coordinates: bool

    @property
    def text(self) -> str:
        """See `Fact`."""
        verb = "reads" if len(self.readers) == 1 else "read"
        read = f", which {' and '.join(self.readers)} {verb}{' as coordinates' if self.coordinates else ''}"
        return (
            f"its error is rounding, {self.relative:.1e} of its values{read if self.readers else ''}; it grows "
            f"{self.growth:.3g} times on the way to the outputs and makes {share_of(self.contribution)} of the final "
            "error: keep it in FP32"
        )


@dataclass(frozen=True)
class InputEnlarged:
    """A tensor of which functions enlarge the rounding: the sine of a large angle, the logarithm of what is near one.

    Attributes:
        tensor: The tensor.
        readers: Name and operator of the layers that compute from it alone.
        relative: The error that its rounding makes in the first of them.
        growth: How many times larger that is than the rounding of a result.
        contribution: The share of the final error that this one makes.
    """

    tensor: str
    readers: tuple[tuple[str, str], ...]
    relative: float
    growth: float
    contribution: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        names = " and ".join(f"{name} ({op})" for name, op in self.readers)
        grow = "enlarge" if self.readers[1:] else "enlarges"
        return (
            f"{names} {grow} the rounding of {self.tensor!r} {self.growth:.3g} times, to {self.relative:.1e} of the "
            f"values, which makes {share_of(self.contribution)} of the final error: keep it in FP32, with what reads it"
        )


def of_input(layer: LoudLayer) -> Diagnosis | None:
    """The tensor whose rounding a layer that explains most of the final error enlarges, with others that read it."""
    if not layer.source or layer.quantized is not None or not layer.holds_most or not layer.enlarges:
        return None
    relative, readers = layer.judgement.relative, ((layer.name, layer.op), *layer.beside)
    fact = InputEnlarged(layer.source, readers, relative, relative / layer.plain_rounding, layer.contribution)
    return Diagnosis(Cause.AMPLIFIED, (fact,), producer=layer.source)


def find(layer: LoudLayer) -> Diagnosis | None:
    """A layer of mere rounding that explains most of the final error, and is enlarged behind it."""
    if not layer.holds_most or layer.growth < ENLARGED:
        return None
    fact = RoundingEnlarged(
        layer.judgement.relative, layer.growth, layer.contribution, layer.readers, layer.coordinates
    )
    return Diagnosis(Cause.AMPLIFIED, (fact,))
