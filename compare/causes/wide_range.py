"""A range far wider than the data: of the levels that a scaled integer has, next to none are left for the values.

Looks at: what the layer is given and gives, and what the candidate rounds these to. Proves: that the steps alone leave
little of the layer's output, and that the rounding of one tensor, whose range is many times what the data take, does
most of that. Data calibrated as 0 to 255 and fed as -1 to 1 do this, at the input and behind it. So do a few values
that take the range for themselves, as a mask of -1e9 does that is added to scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph.operators import STRETCHES
from ...graph.printable import counted
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .evidence import count_text
from .layer_grids import LOST, crowd_of, excess_of

if TYPE_CHECKING:
    from ...graph.quantized.quantizers import Grid

MOST = 0.5
"""Share of a layer's error, and of what its steps may make of it, that the rounding of one tensor must make, for it to
be named."""


@dataclass(frozen=True)
class WiderThanData:
    """A range that is many times what the data take of it.

    Attributes:
        tensor: The tensor.
        given: Whether it is an input of the graph.
        low, high: The range.
        least, greatest: The data.
        left: How many levels lie between these.
        levels: How many there are.
    """

    tensor: str
    given: bool
    low: float
    high: float
    least: float
    greatest: float
    left: int
    levels: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        times = (self.high - self.low) / (max(self.greatest, 0.0) - min(self.least, 0.0))
        return (
            f"'{self.tensor}'{', an input of the graph' if self.given else ''}: the calibrated range, {self.low:.4g} "
            f"to {self.high:.4g}, is {times:.3g} times that of the data, {self.least:.4g} to {self.greatest:.4g}, "
            f"which have {self.left} of {self.levels} levels"
        )


@dataclass(frozen=True)
class Crowded:
    """Values that all become the same beside others that take the whole range.

    Attributes:
        tensor: The tensor.
        low, high: The range.
        step: The distance between neighbouring levels.
        count, size: How many of how many values become the same.
        least, greatest: The range of these.
    """

    tensor: str
    low: float
    high: float
    step: float
    count: int
    size: int
    least: float
    greatest: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"'{self.tensor}': the calibrated range, {self.low:.4g} to {self.high:.4g}, has steps of {self.step:.4g}; "
            f"{count_text(self.count, self.size)} lie between {self.least:.4g} and {self.greatest:.4g} and become the "
            "same"
        )


@dataclass(frozen=True)
class BehindToo:
    """Layers behind such an input whose ranges are too wide as well."""

    count: int

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"the same holds for {counted(self.count, 'layer')} behind it"


def find(case: LayerCase) -> Diagnosis | None:
    """The tensor whose rounding does most, where its range is far wider than the data and the steps leave little of the
    output whatever else is wrong."""
    expected = case.judgement.expected or 0.0
    if case.y.shape != case.c.shape:
        return None
    if expected < LOST:
        return _crowded(case)
    alone = {name: _alone(case, name, grid) for name, grid in case.grids.items() if _is_wide(case, name, grid)}
    most = max(alone.values(), default=0.0)
    if most < MOST * min(expected, case.judgement.relative, 1.0):
        return _crowded(case)
    facts = {name: _fact(case, name) for name, error in alone.items() if error >= min(most, LOST)}
    name = max(facts, key=lambda n: (facts[n].given, alone[n]))
    maker = case.graphs[0].producer.get(name)
    node = maker if maker in case.pair.reference.nodes and name not in case.values else None
    return Diagnosis(Cause.QUANTIZATION, (facts[name],), node)


def _crowded(case: LayerCase) -> Diagnosis | None:
    """The tensor of which most values become the same, where its rounding makes the error."""
    for name, grid in case.grids.items():
        values = case.known(name)
        rest = None if values is None else crowd_of(grid, values)
        if values is None or rest is None or _alone(case, name, grid) < MOST * min(case.judgement.relative, 1.0):
            continue
        low, high, step = (float(v.reshape(-1)[0]) for v in (grid.low, grid.high, grid.step))
        fact = Crowded(name, low, high, step, rest.size, values.size, float(rest.min()), float(rest.max()))
        maker = case.graphs[0].producer.get(name)
        node = maker if maker in case.pair.reference.nodes and name not in case.values else None
        return Diagnosis(Cause.QUANTIZATION, (fact,), node)
    return None


def _is_wide(case: LayerCase, name: str, grid: Grid) -> bool:
    known = case.known(name)
    return known is not None and excess_of(grid, known) is not None


def _alone(case: LayerCase, name: str, grid: Grid) -> float:
    """The relative error of the output that the rounding of one tensor makes by itself; 0 where it is not known."""
    known = case.known(name)
    assert known is not None
    values = known.astype(np.float64)
    rounded = np.clip(np.rint(values / grid.step) * grid.step, grid.low, grid.high).astype(np.float32)
    made = rounded if name == case.tensor else case.reweighted({name: rounded})
    size = float(np.linalg.norm(case.y.astype(np.float64)))
    if made is None or not size or made.shape != case.y.shape:
        return 0.0
    return float(np.linalg.norm(made.astype(np.float64) - case.y.astype(np.float64))) / size


def _fact(case: LayerCase, name: str) -> WiderThanData:
    grid, values, index = case.grids[name], case.known(name), case.graphs[0]
    assert values is not None
    source = index.moved_from(name, STRETCHES)
    given = source in index.inputs
    low, high, least, greatest = (float(v) for v in (grid.low.min(), grid.high.max(), values.min(), values.max()))
    left = round((max(greatest, 0.0) - min(least, 0.0)) / float(grid.step.max())) + 1
    return WiderThanData(source if given else name, given, low, high, least, greatest, left, grid.levels)
