"""What two sides of a comparison may round, and how far that may move a tensor (see `error_bound`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..formats import FP16, FP32, NumberFormat


@dataclass(frozen=True)
class RoundoffModel:
    """What both sides of a comparison may round, as unit roundoffs; where both do, their sum.

    Attributes:
        source: Of what a layer is given, and of its weights.
        operand: Of the operands of products, beyond that.
        node: Of what a node returns.
        adding: Of one addition, on either side.
        normal: The smallest normal number of what a layer is given: below it the error is absolute.
        tiny: The smallest subnormal numbers of results, and of sums.
        largest: Of operands that are scaled by their range: that range by tensor. None: not scaled.
        full: The format's number that the range is scaled to.
        integer: Whether operands are scaled integers.
        proven: Whether both sides are known to add as IEEE arithmetic does.
    """

    source: float
    operand: float
    node: float
    adding: tuple[float, float]
    normal: float
    tiny: tuple[float, float]
    largest: Mapping[str, float] | None = field(default=None, hash=False)
    full: float = 1.0
    integer: bool = False
    proven: bool = True

    def gamma(self, count: int) -> float:
        """What ``count`` roundings of sums on both sides come to; infinite where nothing can be said."""
        return sum(count * u / (1 - count * u) if count * u < 0.5 else math.inf for u in self.adding)

    def adding_in(self, fmt: NumberFormat) -> RoundoffModel:
        """The same with a candidate that adds in a narrower format."""
        return replace(self, adding=(self.adding[0], fmt.u), tiny=(self.tiny[0], fmt.smallest_subnormal))


def roundoff_model(
    reference: NumberFormat,
    candidate: NumberFormat,
    accumulator: NumberFormat = FP32,
    *,
    largest: Mapping[str, float] | None = None,
    proven: bool = True,
) -> RoundoffModel | None:
    """The roundings of two sides that compute layers in these formats, the reference adding in FP32.

    Args:
        reference, candidate: Formats of operands and results.
        accumulator: The format in which the candidate adds.
        largest: Ranges that the operands of scaled formats (INT8, FP8) are scaled by, by tensor.
        proven: Whether both are known to add as IEEE arithmetic does.

    Returns:
        None where a scaled format's ranges are not known.
    """
    adding = (FP32.u, accumulator.u)
    tiny = FP32.smallest_subnormal + accumulator.smallest_subnormal
    coarse = [f for f in (reference, candidate) if f.is_integer or f.u > FP32.u]
    fine = 2 * FP32.u
    scaled = [f for f in coarse if f.is_integer or f.name in ("e4m3", "e5m2")]
    if scaled:
        if len(coarse) > 1 or largest is None:
            return None
        # what is not a product's operand is kept in FP16 in practice
        fmt = scaled[0]
        return RoundoffModel(
            source=FP16.u,
            operand=0.0 if fmt.is_integer else fmt.u,
            node=fine + FP16.u,
            adding=adding,
            normal=FP16.smallest_normal if fmt.is_integer else fmt.smallest_normal,
            tiny=(FP16.smallest_subnormal, tiny),
            largest=largest,
            full=fmt.max,
            integer=fmt.is_integer,
            proven=proven,
        )
    stored = sum(f.u for f in coarse if f.dtype != "float32")
    return RoundoffModel(
        source=stored,
        operand=sum(f.u for f in coarse) - stored,
        node=fine + sum(f.u for f in coarse),
        adding=adding,
        normal=max((f.smallest_normal for f in coarse), default=0.0),
        tiny=(sum(f.smallest_subnormal for f in (reference, candidate)), tiny),
        proven=proven,
    )


@dataclass(frozen=True)
class ErrorBound:
    """The largest error of a tensor that rounding explains: ``relative * magnitude + extra``.

    Attributes:
        magnitude: The tensor that holds it.
        relative: Its factor.
        extra: The tensor that holds what is added, if anything is.
        roundings: How often it was rounded on the way; the magnitude itself was as often.
    """

    magnitude: str
    relative: float
    extra: str | None
    roundings: int

    def tensors(self) -> tuple[str, ...]:
        """The tensors that it is made of."""
        return (self.magnitude,) if self.extra is None else (self.magnitude, self.extra)

    def value(
        self, made: Mapping[str, np.ndarray], result: np.ndarray, roundoff: RoundoffModel, step: float = 0.0
    ) -> np.ndarray:
        """The largest error that rounding explains, float64, of the result's shape.

        Args:
            made: The tensors that the bound is made of.
            result: What the candidate returned.
            roundoff: What was rounded.
            step: An absolute error of results that no other term covers.
        """
        slack = 1 + 2 * self.roundings * FP32.u
        with np.errstate(all="ignore"):
            total = (self.relative * slack) * made[self.magnitude].astype(np.float64)
            if self.extra is not None:
                total = total + slack * made[self.extra]
            total = total + roundoff.node * np.abs(result.astype(np.float64))
        return np.asarray(total + (step + roundoff.tiny[0] + self.roundings * roundoff.tiny[1]))
