"""What a number format cannot hold: values above its greatest, values among its subnormals or below them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...graph.formats import NumberFormat
from ...graph.nodes import attribute
from ...graph.operators import operator
from ...graph.rounding.roundings import KAPPA
from ...graph.specs import is_float
from .evidence import count_text, index_text, whole_index

if TYPE_CHECKING:
    from ...graph.index import GraphIndex
    from ..report.model import Fact
    from .case import LayerCase

Loss = Literal["overflow", "underflow"]


def format_loss(values: np.ndarray, fmt: NumberFormat) -> Loss | None:
    """Why a tensor cannot be held in a format; None if it can.

    It cannot if a finite value is above the largest finite one, or if rounding it costs more than 16 times what
    rounding in the normal range costs, because its values lie among the subnormals or below.
    """
    if fmt.is_integer or not is_float(values.dtype) or not values.size:
        return None
    flat = np.ascontiguousarray(values).reshape(-1).astype(np.float64)
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return None
    magnitude = np.abs(flat)
    if float(magnitude.max()) >= fmt.max * (1 + fmt.u / (2 - 2 * fmt.u)):  # half a step above: it rounds to infinity
        return "overflow"
    power = float(flat @ flat)
    small = flat[magnitude < fmt.smallest_normal]
    if not power or not small.size:
        return None
    step = fmt.smallest_subnormal
    lost = np.rint(small / step) * step - small
    return "underflow" if float(lost @ lost) > 256 * KAPPA * fmt.u**2 * power else None


@dataclass(frozen=True)
class Holder:
    """What holds the values.

    Attributes:
        kind: The layer's output, one of its inputs, its weights, or what a node inside it makes.
        name: The tensor's name; of what is inside, the node's.
    """

    kind: Literal["output", "input", "weights", "inside"]
    name: str

    @property
    def text(self) -> str:
        """What stands before the clause about its values."""
        return {
            "output": "",
            "input": f"'{self.name}': ",
            "weights": f"weights '{self.name}': ",
            "inside": f"inside, at {self.name}: ",
        }[self.kind]


@dataclass(frozen=True)
class AboveGreatest:
    """Values above the greatest that a format has.

    Attributes:
        holder: Whose values.
        format: The format.
        count, size: How many of how many.
        greatest: The greatest magnitude.
        at: Its index in the whole tensor.
    """

    holder: Holder
    format: NumberFormat
    count: int
    size: int
    greatest: float
    at: tuple[int, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.holder.text}{count_text(self.count, self.size)} are above {self.format}'s greatest, "
            f"{self.format.max:g}: {self.greatest:.6g} at {index_text(self.at)}"
        )


@dataclass(frozen=True)
class BelowNormal:
    """Values among the subnormals of a format or below them.

    Attributes:
        holder: Whose values.
        format: The format.
        count, size: How many of how many.
        zeros: How many of them become zero.
        greatest: The greatest magnitude of all.
    """

    holder: Holder
    format: NumberFormat
    count: int
    size: int
    zeros: int
    greatest: float

    @property
    def text(self) -> str:
        """See `Fact`."""
        return (
            f"{self.holder.text}{count_text(self.count, self.size)} are below {self.format}'s smallest normal, "
            f"{self.format.smallest_normal:.2g}, {self.zeros:,} of them become zero; "
            f"the greatest is {self.greatest:.2g}"
        )


def lost_values(values: np.ndarray, fmt: NumberFormat, loss: Loss, holder: Holder, entry: int = 0) -> Fact:
    """What a format loses of a tensor.

    Args:
        values: The tensor.
        fmt: The format.
        loss: What `format_loss` says.
        holder: Whose values they are.
        entry: Which entry of the batch they are the only one of.
    """
    flat = np.abs(values.astype(np.float64))
    flat = np.where(np.isfinite(flat), flat, 0.0)
    if loss == "overflow":
        at = np.unravel_index(int(flat.argmax()), flat.shape)
        count = int(np.count_nonzero(flat > fmt.max))
        return AboveGreatest(holder, fmt, count, flat.size, float(flat.max()), whole_index(at, entry))
    small = (flat > 0) & (flat < fmt.smallest_normal)
    zero = (flat > 0) & (flat < fmt.smallest_subnormal / 2)
    count, zeros = int(np.count_nonzero(small)), int(np.count_nonzero(zero))
    return BelowNormal(holder, fmt, count, flat.size, zeros, float(flat.max()))


def stops_at_the_range(case: LayerCase) -> bool:
    """Whether nothing is wrong but values that the format does not reach: they stop at its ends, or are infinite."""
    fmt, y, c = case.formats.narrow, case.y, case.c
    if fmt is None or fmt.is_integer or not is_float(y.dtype) or y.shape != c.shape:
        return False
    wide, narrow = y.astype(np.float64), c.astype(np.float64)
    beyond = np.abs(wide) > fmt.max
    ends = (np.abs(narrow) >= fmt.max) & (np.signbit(wide) == np.signbit(narrow))
    with np.errstate(invalid="ignore"):
        rounded = np.abs(narrow - wide) <= ROUNDINGS * fmt.u * np.abs(wide) + ROUNDINGS * fmt.smallest_subnormal
    return bool(beyond.any() and np.where(beyond, ends, rounded).all())


def lossy_weights(index: GraphIndex, nodes: Iterable[int], fmt: NumberFormat, loss: Loss) -> tuple[int, Fact] | None:
    """The first weights of a layer that a format cannot hold: position of the node that reads them, what is lost."""
    for position in nodes:
        variance = _variance(index, position)
        for name in (n for n in index.reads[position] if n in index.initializers):
            weight = index.weight(name)
            if weight is None or weight.ndim < 1 or (weight.size < FEWEST_WEIGHTS and name != variance):
                continue
            if format_loss(weight, fmt) == loss:
                return position, lost_values(weight, fmt, loss, Holder("weights", name))
    return None


def _variance(index: GraphIndex, position: int) -> str:
    """The variance that a BatchNormalization divides by the root of, where it is more than the epsilon beside it: its
    channels may be few."""
    node = index.nodes[position]
    if operator(node) != "BatchNormalization" or len(node.input) < 5:
        return ""
    known, epsilon = index.weight(node.input[4]), attribute(node, "epsilon")
    beside = epsilon if isinstance(epsilon, float) else EPSILON
    return "" if known is None or not known.size or float(known.max()) < beside else node.input[4]


EPSILON = 1e-5
"""The epsilon of a BatchNormalization that has none."""
FEWEST_WEIGHTS = 16
"""Size from which on a constant is weights."""
ROUNDINGS = 16
"""Units roundoff up to which a value beside those that are beyond the range is right."""
