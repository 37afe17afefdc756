"""Saturation: values that stop at an end of the candidate's range.

Looks at: elements that stand at the greatest or least value of the candidate, where the reference goes on. Proves: that
most of the error is what was cut off. Of a quantizer whose scale differs, that its range is too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...graph.operators import CHOICES, operator
from ...graph.printable import counted
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import explained, in_graphs
from .evidence import count_text, index_text, whole_index
from .judgement import lifted

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ...graph.quantized.quantizers import Grid
    from .stored_scale import StoredScale

PILED_UP = 1e-3
"""Share of a tensor that stands at its extreme value, for it to be saturated."""
NAMED = 3
"""How many layers are named."""
EXPLAINS = 0.5
"""Share of the error's power that is what was cut off."""


@dataclass(frozen=True)
class PiledUp:
    """Values that stop at one value.

    Attributes:
        count, size: How many of how many.
        end: The value; of a quantizer, what it stands for.
        at: Index of the first of them in the whole tensor.
        reference: What the reference has there.
        quantizer: Whether it is that of a quantizer whose scale or zero point differs.
    """

    count: int
    size: int
    end: float
    at: tuple[int, ...]
    reference: float
    quantizer: bool = False

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{count_text(self.count, self.size)} stop at {self.end:.6g}, first at {index_text(self.at)}: "
            f"{self.reference:.6g} in the reference"
        )


NOTHING = 1e-5
"""Relative difference up to which values are the same."""


@dataclass(frozen=True)
class BeyondCalibration:
    """Values of what a layer is given or gives that lie beyond the range that was calibrated for them.

    Attributes:
        tensor: The tensor.
        given: Whether it is an input of the graph.
        count, size: How many of how many.
        low, high: The range.
        reach: The value that is farthest beyond.
        at: Its index in the whole tensor.
        stored: What the candidate's file says of what rounds them; None where a runner calibrated the range.
        least, greatest: All that the tensor takes.
    """

    tensor: str
    given: bool
    count: int
    size: int
    low: float
    high: float
    reach: float
    at: tuple[int, ...]
    stored: StoredScale | None = None
    least: float = 0.0
    greatest: float = 0.0

    @property
    def text(self) -> str:
        """See `Fact`."""
        if self.stored is not None:
            return self._in_file(self.stored)
        seen = f"at most {self.high:.4g}" if self.reach > self.high else f"at least {self.low:.4g}"
        return (
            f"'{self.tensor}'{', an input of the graph' if self.given else ''}: data reach {self.reach:.6g} at "
            f"{index_text(self.at)}, calibration saw {seen}; {count_text(self.count, self.size)} lie beyond the "
            f"calibrated range, {self.low:.4g} to {self.high:.4g}"
        )

    def _in_file(self, stored: StoredScale) -> str:
        what = f"'{self.tensor}'{', an input of the graph,' if self.given else ''}"
        told = (
            f"{stored.text}, where {what} takes {self.least:.4g} to {self.greatest:.4g} on these inputs: "
            f"{count_text(self.count, self.size)} are cut off, the farthest, {self.reach:.6g}, at {index_text(self.at)}"
        )
        zero = stored.other_zero(self.least, self.greatest)
        if zero is not None:
            low, high = replace(stored, zero=zero).range
            above = self.reach > self.high
            unused = round((self.least - self.low if above else self.high - self.greatest) / stored.scale)
            where = "below" if above else "above"
            return (
                f"{told}, and {unused} of {stored.levels} levels are {where} all that it takes; "
                f"with zero point {zero}, the same scale represents {low:.4g} to {high:.4g}"
            )
        scale = stored.fitting(self.least, self.greatest)
        if scale is None:
            return f"{told}; its zero point leaves no level on that side of zero"
        why = [f"its scale is {scale / stored.scale:.3g} times too small", "calibration saw smaller values"]
        return f"{told}; {' or '.join(reversed(why) if self.given else why)}"

    @property
    def remedy(self) -> str:
        """What lets the range hold the values."""
        again = f"calibrate the range of '{self.tensor}' again: it has to hold {self.reach:.6g}"
        scale = None if self.stored is None else self.stored.fitting(self.least, self.greatest)
        zero = None if self.stored is None else self.stored.other_zero(self.least, self.greatest)
        if self.stored is None or (zero is None and scale is None):
            return again
        if zero is not None:
            return f"set the zero point of {self.stored.node} to {zero}, or {again}"
        put = f"set {self.stored.named} to {scale:.6g}"
        return " or ".join((again, put) if self.given else (put, again))


@dataclass(frozen=True)
class CalibratedBehind:
    """Ranges behind a fault that were calibrated with it.

    Attributes:
        layers: Names of the layers that have such a range.
    """

    layers: tuple[str, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        ranges = counted(len(self.layers), "layer behind it has a range", "layers behind it have ranges")
        names = f"{', '.join(self.layers[:NAMED])}{', ...' if len(self.layers) > NAMED else ''}"
        return f"{ranges} other than the reference's values need ({names}), since calibration saw what this fault makes"


def of_operand(case: LayerCase) -> Diagnosis | None:
    """What the layer is given or gives lies beyond its calibrated range, and more is cut off than the steps round; or
    what a node inside makes, where that explains the error."""
    worst, most = None, EXPLAINS
    for name, grid in case.grids.items():
        known = case.known(name)
        if known is None or not grid.calibrated or not known.size or not np.isfinite(known).all():
            continue
        values = known.astype(np.float64)
        if name in case.values:
            excess = np.maximum(np.maximum(values - grid.high, grid.low - values), 0.0)
        else:
            excess = _excess_inside(case, name, values, grid)
        beyond = excess > 2 * grid.step
        count = int(np.count_nonzero(beyond))
        if not count or (name not in case.values and not _makes_the_error(case, name, values, grid)):
            continue
        cut = float(np.square(excess).sum())
        share = cut / (cut + float(np.square(np.broadcast_to(grid.deviation, values.shape)).sum()))
        if share > most:
            most = share
            at = np.unravel_index(int((excess / grid.step).argmax()), values.shape)
            low, high = (float(np.broadcast_to(end, values.shape)[at]) for end in (grid.low, grid.high))
            index = whole_index(at, case.entry)
            given = name in case.graphs[0].inputs
            ends = float(values.min()), float(values.max())
            reach, stored = float(values[at]), case.stored.get(name)
            worst = BeyondCalibration(name, given, count, values.size, low, high, reach, index, stored, *ends)
    if worst is None:
        return None
    maker = case.graphs[0].producer.get(worst.tensor)
    return Diagnosis(Cause.SATURATION, (worst,), maker if maker in case.pair.reference.nodes else None)


def _excess_inside(case: LayerCase, name: str, values: np.ndarray, grid: Grid) -> np.ndarray:
    """How far a tensor inside lies beyond its range, at ends that change what the layer gives: what a Relu behind it
    cuts off is not lost there."""
    below, above = np.maximum(grid.low - values, 0.0), np.maximum(values - grid.high, 0.0)
    for excess, cut in ((below, values + below), (above, values - above)):
        made = case.reweighted({name: cut.astype(np.float32)}) if below.any() and above.any() else None
        if made is not None and np.allclose(made, case.y, rtol=NOTHING, atol=NOTHING * float(np.abs(case.y).max())):
            excess[...] = 0.0
    return np.maximum(below, above)


def _makes_the_error(case: LayerCase, name: str, values: np.ndarray, grid: Grid) -> bool:
    """Whether the reference makes most of the error where a tensor inside stops at the ends of its range: a Relu behind
    it, for one, cuts off what is negative anyway."""
    made = case.reweighted({name: np.clip(values, grid.low, grid.high).astype(np.float32)})
    return made is not None and explained(case, made)


def of_quantizer(case: LayerCase) -> Diagnosis | None:
    """A quantizer whose range is too small, where the graphs say that its scale or zero point differs."""
    stated = in_graphs(case)
    if stated is None or stated.cause is not Cause.QUANTIZATION:
        return None
    y, c = case.y, case.c
    if y.dtype.kind in "iu":
        mine = _dequantized(case.graphs[0], case.pair.reference.nodes, y)
        theirs = _dequantized(case.graphs[1], case.pair.candidate.nodes, c)
        if mine is None or theirs is None:
            return None
        y, c = mine, theirs
    found = _piled_up(case, y, c)
    facts = () if found is None else (replace(f, quantizer=True) if isinstance(f, PiledUp) else f for f in found.facts)
    return None if found is None else replace(found, facts=tuple(facts))


def find(case: LayerCase) -> Diagnosis | None:
    """Values that stop at the greatest or the least value of the output, unless they number what was chosen, or are
    most of what another operator makes: that has no such range, but is given what it was not made for."""
    chosen = operator(case.graphs[0].nodes[case.pair.main]) in CHOICES and case.y.dtype.kind in "iu"
    found = None if chosen else _piled_up(case, case.y, case.c)
    if found is None or not any(isinstance(fact, PiledUp) and 2 * fact.count > fact.size for fact in found.facts):
        return found
    stated = in_graphs(case)
    return None if stated is not None and stated.cause is Cause.WRONG_OP else found


def _piled_up(case: LayerCase, y: np.ndarray, c: np.ndarray) -> Diagnosis | None:
    if not c.size or "b" in (y.dtype.kind, c.dtype.kind):
        return None
    wide, narrow = y.astype(np.float64), c.astype(np.float64)
    error = narrow - wide
    for end, excess in ((narrow.max(), wide - narrow.max()), (narrow.min(), narrow.min() - wide)):
        piled = (narrow == end) & (excess > 0)
        count = int(np.count_nonzero(piled))
        if end == 0 or count < 2 or count < PILED_UP * c.size:
            continue
        cut = float(np.sum(error[piled] ** 2))
        if cut > EXPLAINS * float(np.sum(error**2)) and lifted(narrow == end, excess) < cut / 4:
            at = np.unravel_index(int(np.argmax(piled)), piled.shape)
            fact = PiledUp(count, c.size, float(end), whole_index(at, case.entry), float(wide[at]))
            return Diagnosis(Cause.SATURATION, (fact,))
    return None


def _dequantized(index: GraphIndex, nodes: Sequence[int], values: np.ndarray) -> np.ndarray | None:
    """What the integers that the last QuantizeLinear of some nodes makes stand for; None where its scale is not one."""
    position = next((p for p in reversed(nodes) if index.nodes[p].op_type == "QuantizeLinear"), None)
    if position is None:
        return None
    inputs = index.nodes[position].input
    scale = index.constant(inputs[1])
    zero = index.constant(inputs[2]) if len(inputs) > 2 and inputs[2] else np.zeros(1)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None
    return (values.astype(np.float64) - float(zero.reshape(-1)[0])) * float(scale.reshape(-1)[0])
