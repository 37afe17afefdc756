"""A weight of nodes that one of the two files writes with other operators: the bias of a BiasGelu, of an Add before.

Looks at: the constants that the layer's nodes read on both sides, told apart by their shape alone, since no nodes
correspond; and at the channels of what the layer makes. Proves: that the reference with the candidate's weight makes
most of the error, or that some channels are off in all their values and the others in none, and are no other channels
of the reference: either way, the other operators compute what they should.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...graph.cutting.dataflow import Kind, dataflow
from ...graph.index import GraphIndex
from ...graph.operators import PRODUCTS, operator
from ...graph.pairing.changes import OperatorChange, OpName
from ...graph.pairing.constants import constant_value, noun_of
from ...graph.pairing.differences import Difference
from ...graph.pairing.weight_changes import WeightChange, weight_change
from ...graph.pairing.weight_patterns import OfNode
from ...graph.printable import few
from ...graph.specs import is_float
from ..report.model import Cause
from . import permutation
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import GraphsDiffer, explained, replaced
from .judgement import by_channel, channel_axis

SAME = 1e-5
"""Error of a channel, relative to the largest channel, up to which its values are those of the reference."""
THROUGHOUT = 0.9
"""Share of a channel's values that are off where its weights are."""
FEWEST = 4
"""Values of a channel from which on one number for all of them says something."""
NAMED = 4
"""Most channels that are named."""

Read = tuple[int, str, np.ndarray]
"""Position of a node, a constant that it reads, and its value."""


@dataclass(frozen=True)
class ChannelsOff:
    """Channels that are off, in all their values, where the others are the reference's.

    Attributes:
        channels: Which, along the axis.
        of: How many there are.
        axis: Where they lie.
        gains: How many times the reference's they are, by least squares.
    """

    channels: tuple[int, ...]
    of: int
    axis: int
    gains: tuple[float, ...]

    @property
    def text(self) -> str:
        """See `Fact`."""
        named = ", ".join(f"{c} ({g:.4g} times)" for c, g in zip(self.channels[:NAMED], self.gains, strict=False))
        more = ", ..." if len(self.channels) > NAMED else ""
        return (
            f"{len(self.channels)} of {self.of} channels (axis {self.axis}) are off and the others are the same to "
            f"within rounding, so that the operators compute the same with other weights: {named}{more}"
        )


@dataclass(frozen=True)
class ChannelsMoved:
    """Channels each of which is the reference's plus one number, or times one.

    Attributes:
        of: How many there are.
        axis: Where they lie.
        added: Whether the numbers are added; else they are factors.
        at: The channel with the number that is farthest from none.
        number: That number.
        lost: The constant of the reference that is not added: the numbers are those of it with the other sign.
    """

    of: int
    axis: int
    added: bool
    at: int
    number: float
    lost: str = ""

    @property
    def text(self) -> str:
        """See `Fact`."""
        what = "plus one number" if self.added else "times one number"
        lost = f"; it is '{self.lost}' that is not added" if self.lost else ""
        return (
            f"each of {self.of} channels (axis {self.axis}) is the reference's {what}, to within rounding, so that the "
            f"operators compute the same with {'another bias' if self.added else 'other weights'}: "
            f"{self.number:.4g} in channel {self.at}{lost}"
        )


@dataclass(frozen=True)
class LacksTheSame:
    """A product or a Gather behind a layer, which is given the reference's values in another order, or turned.

    Attributes:
        product: Its operator and name.
        how: Which of these: how it reads them.
        what: What of it was to be changed with that: its weights, its indices.
        others: The same of layers beside the one that is told, which change with it.
    """

    product: OpName
    how: str
    what: str = "weights"
    others: tuple[OpName, ...] = ()

    @property
    def text(self) -> str:
        """See `Fact`."""
        beside = f"{', '.join(f'{op} {name}' for op, name in self.others)} changed with it; " if self.others else ""
        return (
            f"{beside}{self.product[0]} {self.product[1]} then reads the reference's values {self.how}: if that is "
            f"meant, its {self.what} lack the same"
        )


@dataclass(frozen=True)
class NotTakenBack:
    """A layer that does not take back what another one changes, as others do.

    Attributes:
        layer: Operator and name of the layer.
        change: The same of the layer that makes the change.
        takers: The same of those that take it back.
        kind: What this one does: its weights are the ``same``, they are ``changed`` otherwise, it ``adds`` the
            reference's own values, or values that are changed ``otherwise``; or it is the layer ``itself`` that makes
            the change, which is more than they take back, or makes ``none``. Without takers, it takes back most of it,
            and not all.
        shared: A weight of the layer that others read, too, and how many nodes that are.
    """

    layer: OpName
    change: OpName
    takers: tuple[OpName, ...]
    kind: str
    shared: tuple[str, int] | None = None

    @property
    def text(self) -> str:
        """See `Fact`."""
        change = f"what the second file changes in {self.change[0]} {self.change[1]}"
        if not self.takers:
            return f"its weights take back most of {change}, and not all"
        takers = few([f"{op} {name}" for op, name in self.takers], NAMED)
        lacks = {
            "same": "its own weights, which are the first file's, do not",
            "changed": "its own do not",
            "adds": "it adds the first file's values to what is changed",
            "otherwise": "what it makes of that, or adds to it, is changed otherwise",
            "itself": "it changes more than that",
            "none": "",
        }[self.kind]
        if self.kind == "none":
            return f"the weights of {takers} take back a change that it does not make: its own are the first file's"
        most = "most of " if self.kind == "itself" else ""
        return f"the weights of {takers} take back {most}{change}; {lacks}"

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"{self._remedy}{_shared_by(self.shared)}"

    @property
    def _remedy(self) -> str:
        if self.kind in ("adds", "otherwise"):
            return f"change the weights of {self.layer[1]} in the second file as {self.change[1]} is changed"
        if self.kind in ("itself", "none"):
            return f"change {self.layer[1]} in the second file anew: {self.takers[0][1]} was changed to take it back"
        lets = f"let the weights of {self.layer[1]} in the second file take back what is changed in {self.change[1]}"
        return f"{lets}, as those of {self.takers[0][1]} do" if self.takers else lets


@dataclass(frozen=True)
class AsRewritten:
    """Weights that are not the first file's as the layers beside them are rewritten.

    Attributes:
        layer: Name of the node that reads them.
        change: How they differ from these.
        name: What its operator calls them, where that tells more.
        shared: As of `NotTakenBack`.
    """

    layer: str
    change: WeightChange
    name: str = ""
    shared: tuple[str, int] | None = None

    @property
    def text(self) -> str:
        """See `Fact`."""
        name = f"{self.name}: " if self.name else ""
        return (
            f"once the first file's {self.change.noun} are rewritten as the layers beside it are, {name}{self.change}"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        noun, shared = self.change.noun, _shared_by(self.shared)
        if self.change.count == 1 and self.change.values is not None:
            where = ",".join(map(str, self.change.index))
            one = {"biases": "bias"}.get(noun, noun.removesuffix("s"))
            value = f"{self.change.values[0]:.6g}"
            return f"set the {one} of {self.layer} at [{where}] to {value} in the second file{shared}"
        return f"rewrite the first file's {noun} of {self.layer} as the layers beside it are rewritten{shared}"


def _shared_by(shared: tuple[str, int] | None) -> str:
    return "" if shared is None else f": '{shared[0]}', which {shared[1]} nodes read"


def find(case: LayerCase) -> Diagnosis | None:
    """The weight that differs, of which each side has one of its shape, where it makes the error; else the channels
    that weights must differ in."""
    if not replaced(case):
        return None
    for (position, name, mine), (twin, other, theirs) in _of_one_shape(case):
        theirs = theirs.reshape(mine.shape)
        change = weight_change(mine, theirs)
        if change is None or change.explained_by_format is not None:
            continue
        made = case.reweighted({name: theirs})
        if made is not None and explained(case, made):
            places = zip(case.graphs, (position, twin), (name, other), strict=True)
            nouns = [noun_of(index, node, read, mine) for index, node, read in places]
            change = replace(change, noun=next((noun for noun in nouns if noun != "weights"), "weights"))
            change = replace(change, patterns=change.patterns or _held_elsewhere(case.graphs[0], position, theirs))
            return Diagnosis(Cause.WEIGHTS, (GraphsDiffer(Difference(position, twin, change, name)),), position)
    return None if permutation.find(case) else _of_channels(case) or _moved(case)


def _held_elsewhere(index: GraphIndex, position: int, values: np.ndarray) -> tuple[OfNode, ...]:
    """The one node of the same operator in the reference that reads these values, which are not all the same."""
    if values.size < FEWEST or not np.ptp(values):
        return ()
    op, found = operator(index.nodes[position]), []
    for p, node in enumerate(index.nodes):
        weights = [index.weight(name) for name in node.input] if p != position and operator(node) == op else []
        if any(w is not None and w.size == values.size and np.array_equal(w.ravel(), values.ravel()) for w in weights):
            found.append(OfNode(node.op_type, index.names[p]))
    return tuple(found) if len(found) == 1 else ()


def _of_channels(case: LayerCase) -> Diagnosis | None:
    """At most half of the channels, if they are off in nearly all their values and the others in none; not of a layer
    that has no weights for each of its channels, such as a Concat of other layers' ones."""
    axis = channel_axis(case.y.shape)
    if axis is None or case.y.shape != case.c.shape or case.formats.coarse:
        return None
    weights = [value for _, _, value in _read(case.graphs[0], case.pair.reference.nodes)]
    if not any(case.y.shape[axis] in value.shape for value in weights):
        return None
    mine, theirs = by_channel(case.y, axis), by_channel(case.c, axis)
    if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        return None
    error, size = (np.sqrt(np.mean(x**2, axis=1)) for x in (theirs - mine, mine))
    off = np.flatnonzero(error > SAME * size.max(initial=0.0))
    if not 0 < len(off) <= len(error) // 2:
        return None
    mine, theirs = mine[off], theirs[off]
    alive = (mine != 0) | (theirs != 0)
    wrong = alive & (np.abs(theirs - mine) > SAME * np.abs(mine))
    if (wrong.sum(axis=1) < THROUGHOUT * np.maximum(alive.sum(axis=1), 1)).any():
        return None
    power = (mine**2).sum(axis=1)
    gains = np.divide((mine * theirs).sum(axis=1), power, out=np.zeros(len(off)), where=power > 0)
    fact = ChannelsOff(tuple(map(int, off)), len(error), axis, tuple(map(float, gains)))
    return Diagnosis(Cause.WEIGHTS, (fact,))


def _moved(case: LayerCase) -> Diagnosis | None:
    """One number for each channel, added to all its values or multiplied with them, that leaves nothing of the error:
    along an axis that weights of the reference have. One factor for all may be a scale that the operators lack, and the
    same operators in another order are that."""
    changes = (d.change for _, d in case.differences)
    turned = any(isinstance(change, OperatorChange) and change.in_another_order for change in changes)
    if turned or case.y.shape != case.c.shape or case.formats.coarse:
        return None
    read = [(name, value) for _, name, value in _read(case.graphs[0], case.pair.reference.nodes)]
    for axis in {channel_axis(case.y.shape): 0, case.y.ndim - 1: 0, 1: 0}:
        if axis is None or not 0 < axis < case.y.ndim or not any(case.y.shape[axis] in v.shape for _, v in read):
            continue
        mine, theirs = by_channel(case.y, axis), by_channel(case.c, axis)
        if mine.shape[1] < FEWEST or not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
            continue
        allowed = SAME * float(np.sqrt(np.mean(mine**2, axis=1)).max())
        shifts, gains = _shifts_and_gains(mine, theirs)
        if _rms(theirs - mine - shifts) <= allowed:
            at = int(np.abs(shifts).argmax())
            lost = next(
                (n for n, v in read if v.size == len(shifts) and _rms(v.reshape(-1, 1) + shifts) <= allowed), ""
            )
            fact = ChannelsMoved(len(shifts), axis, True, at, float(shifts[at, 0]), lost)
        elif _rms(theirs - gains * mine) <= allowed and np.ptp(gains) > SAME:
            at = int(np.abs(gains - 1).argmax())
            fact = ChannelsMoved(len(gains), axis, False, at, float(gains[at, 0]))
        else:
            continue
        return Diagnosis(Cause.WEIGHTS, (fact,))
    return None


def _shifts_and_gains(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is to be added to each channel, or multiplied with it, to come nearest to another one."""
    power = np.sum(mine**2, axis=1, keepdims=True)
    gains = np.divide(np.sum(mine * theirs, axis=1, keepdims=True), power, out=np.ones_like(power), where=power > 0)
    return np.mean(theirs - mine, axis=1, keepdims=True), gains


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _of_one_shape(case: LayerCase) -> Iterator[tuple[Read, Read]]:
    """The weights of which each side has one of a shape; none where one side has several products merged into one,
    whose weights are those of none of them."""
    products = [
        sum(operator(index.nodes[p]) in PRODUCTS for p in part.nodes)
        for index, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    ]
    if products[0] != products[1]:
        return
    mine, theirs = (
        _by_shape(_read(index, part.nodes))
        for index, part in zip(case.graphs, (case.pair.reference, case.pair.candidate), strict=True)
    )
    for shape, reads in mine.items():
        others = theirs.get(shape, [])
        if len(reads) == len(others) == 1:
            yield reads[0], others[0]


def _by_shape(reads: Iterable[Read]) -> dict[tuple[int, ...], list[Read]]:
    """Weights by their shape, without axes of one: a bias that is added has as many as what it is added to."""
    found: dict[tuple[int, ...], list[Read]] = {}
    for read in reads:
        found.setdefault(tuple(d for d in read[2].shape if d > 1), []).append(read)
    return found


def _read(index: GraphIndex, nodes: Iterable[int]) -> Iterator[Read]:
    """Floating constants of more than one value that the nodes of a layer read besides their data."""
    kind = dataflow(index).kind
    for position in nodes:
        node = index.nodes[position]
        if all(kind.get(name) is Kind.CONSTANT for name in node.output if name):
            continue
        for name in dict.fromkeys(node.input):
            value = constant_value(index, name) if name else None
            if value is not None and value.size > 1 and is_float(value.dtype):
                yield position, name, value
