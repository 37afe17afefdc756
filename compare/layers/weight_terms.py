"""What a product with weights expects of what it reads, told by its weights alone: factors of channels, another order,
or a rotation that they would take back.

Estimates: whoever asks for them runs the layer on such values, which proves them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...graph.operators import PRODUCTS, Kind, facts_of, operator
from ...graph.pairing.constants import noun_of
from ...graph.pairing.normal_form import slots
from ...graph.pairing.weight_changes import WeightChange, weight_change
from ...graph.specs import is_float
from .channel_maps import ENOUGH, LARGEST, TURNABLE, ChannelMap, Turn

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from ..lockstep.plan import LayerPair

ROUNDS = 4
"""How often medians along both axes are taken in turn."""
RANK = 1e-3
"""The smallest singular value, relative to the largest, with which a rotation is known."""

CLOSE = 1e-5
"""Relative difference of weights up to which they are the same."""

Terms = ChannelMap | Turn


def expected(
    pair: LayerPair, graphs: tuple[GraphIndex, GraphIndex], shape: tuple[int, ...], axis: int
) -> Iterator[Terms]:
    """What the weights of a layer would take back along an axis of what it reads.

    Args:
        pair: The layer.
        graphs: The reference's graph and the candidate's.
        shape: The shape of what it reads.
        axis: The axis that its weights are multiplied along.
    """
    mine, theirs = (
        _weights(index, part.nodes) for index, part in zip(graphs, (pair.reference, pair.candidate), strict=True)
    )
    if mine is None or theirs is None or mine.values.shape != theirs.values.shape:
        return
    if np.array_equal(mine.values, theirs.values):
        return
    for place in range(min(2, mine.values.ndim)):
        if mine.values.shape[place] != shape[axis]:
            continue
        a, b = (np.moveaxis(w.values, place, -1).astype(np.float64) for w in (mine, theirs))
        yield ChannelMap((axis,), np.arange(shape[axis]), _factors(a, b, (mine.bias, theirs.bias)))
        if shape[axis] <= LARGEST:
            yield ChannelMap((axis,), _order(a, b), np.ones(shape[axis]))
        if a.ndim == 2 and axis == len(shape) - 1 and shape[axis] <= TURNABLE:
            u, size, v = np.linalg.svd(a.T @ b)
            if size[-1] > RANK**2 * size[0]:
                yield Turn(u @ v)


@dataclass(frozen=True)
class Differing:
    """A constant that is not the reference's in the candidate's terms.

    Attributes:
        node: Place of the reference's node that reads it.
        change: How it differs from what it should be.
        name: What the operator calls it, where that tells more than that it is a weight or a bias.
    """

    node: int
    change: WeightChange
    name: str = ""


def as_rewritten(
    pair: LayerPair, graphs: tuple[GraphIndex, GraphIndex], reads: Terms | None, makes: Terms | None
) -> Differing | None:
    """The constant of a layer that the candidate has otherwise than the reference's is in other terms.

    Where all constants but one are what they should be, that one; else the weights of the layer's product, if less than
    half of them are others.

    Args:
        pair: The layer.
        graphs: The reference's graph and the candidate's.
        reads: The terms that what it reads stands in; None: the reference's.
        makes: The same of what it makes.

    Returns:
        None where several constants are others, or none is.
    """
    mine, theirs = (
        _weights(index, part.nodes) for index, part in zip(graphs, (pair.reference, pair.candidate), strict=True)
    )
    if (mine is None) != (theirs is None):
        return None
    if mine is None or theirs is None:
        off, _ = _vectors_off(pair, graphs, reads, makes)
        return off[0] if len(off) == 1 else None
    if mine.values.shape != theirs.values.shape:
        return None
    own = _own_order(mine.values, theirs.values, makes)
    for terms in (own, makes) if own is not None else (makes,):
        change = _product_off(mine.values, theirs.values, reads, terms)
        off, moved = _vectors_off(pair, graphs, reads, terms)
        if change is None and len(off) == 1:
            return off[0]
        if change is not None and (2 * change.count < change.size or (moved and not off)):
            return Differing(mine.node, change)
    return None


def _product_off(mine: np.ndarray, theirs: np.ndarray, reads: Terms | None, makes: Terms | None) -> WeightChange | None:
    """How the candidate's weights differ from the reference's in other terms, along whichever axis is read."""
    found = []
    for place in (0, 1):
        would = mine.astype(np.float64)
        for terms, axis, made in ((reads, place, False), (makes, 1 - place, True)):
            if terms is not None and terms.channels == would.shape[axis]:
                would = terms.of_weights(would, axis, made=made)
        found.append(_unlike(_scaled(would, theirs, 1 - place), theirs))
    return None if None in found else min((c for c in found if c is not None), key=_extent)


def _own_order(mine: np.ndarray, theirs: np.ndarray, makes: Terms | None) -> ChannelMap | None:
    """The order of the channels that weights make, as these tell it: what is made may be off, and tells it less well.
    None where most channels stand elsewhere than what is made tells."""
    if not isinstance(makes, ChannelMap) or makes.channels > LARGEST:
        return None
    for axis in (0, 1):
        if mine.shape[axis] == makes.channels:
            order = _order(*(np.moveaxis(w, axis, -1).astype(np.float64) for w in (mine, theirs)))
            if np.mean(order == makes.order) >= ENOUGH and not np.array_equal(order, makes.order):
                return replace(makes, order=order)
    return None


def _extent(change: WeightChange) -> tuple[int, float]:
    return change.count, change.greatest or 0.0


def _unlike(would: np.ndarray, theirs: np.ndarray) -> WeightChange | None:
    """How some weights differ from what they should be, but for rounding."""
    close = np.abs(would - theirs) <= CLOSE * np.abs(would)
    return weight_change(np.where(close, theirs, would).astype(theirs.dtype), theirs)


def _vectors_off(
    pair: LayerPair, graphs: tuple[GraphIndex, GraphIndex], reads: Terms | None, makes: Terms | None
) -> tuple[list[Differing], bool]:
    """The constants of one value for each channel that are none of what they may be in other terms: in their order, and
    with factors of what is made (a bias), of what is read (a mean), of both (a scale), or with none (a slope). And
    whether another one is, and not what it was."""
    sides = zip(graphs, (pair.reference, pair.candidate), strict=True)
    mine, theirs = (list(_vectors(index, part.nodes)) for index, part in sides)
    off: list[Differing] = []
    moved = False
    if [(one.read_as, one.values.shape) for one in mine] != [(other.read_as, other.values.shape) for other in theirs]:
        return off, moved
    nouns = [noun_of(graphs[0], one.node, one.name, one.values) for one in mine]
    last = max((i for i, noun in enumerate(nouns) if noun == "biases"), default=-1)
    for i, (one, other, noun) in enumerate(zip(mine, theirs, nouns, strict=True)):
        powers = ((1, 0),) if i == last else _powers(graphs[0].nodes[one.node], one)
        terms = _in_terms(one.values.astype(np.float64), reads, makes, powers)
        found = [_unlike(would, other.values) for would in terms]
        changes = [change for change in found if change is not None]
        if len(changes) == len(found):
            least = min(changes, key=_extent)
            name = _name(graphs[0], one) if noun == "weights" else ""
            off.append(Differing(one.node, replace(least, noun=noun), name))
        elif not np.array_equal(one.values, other.values):
            moved = True
    return off, moved


def _powers(node: onnx.NodeProto, one: _Vector) -> tuple[tuple[int, int], ...]:
    """The powers of the factors of what is made, and of what is read, that a constant of a node may have: a slope has
    none, and a variance squares. What a node inside a layer reads may have the factors of either side, or none; the
    last bias is added to what is made, and has its."""
    if operator(node) == "PRelu":
        return ((0, 0),)
    power = 2 if facts_of(node).kind is Kind.NORMALIZATION and one.read_as[1] == 4 else 1
    return (0, 0), (power, 0), (0, power), (power, -power)


def _in_terms(
    vector: np.ndarray, reads: Terms | None, makes: Terms | None, powers: Iterable[tuple[int, int]]
) -> Iterator[np.ndarray]:
    """What a constant of one value for each channel may be in other terms; see `_powers`."""
    fit = [terms if terms is not None and terms.channels == vector.size else None for terms in (makes, reads)]
    known = next((terms for terms in fit if terms is not None), None)
    if not isinstance(known, ChannelMap):
        yield vector if known is None else (vector.reshape(-1) @ known.matrix).reshape(vector.shape)
        return
    flat = vector.reshape(-1)[known.order]
    out, given = (
        np.where(terms.factors == 0, 1.0, terms.factors) if isinstance(terms, ChannelMap) else np.ones(flat.size)
        for terms in fit
    )
    for of_made, of_read in powers:
        yield (flat * out**of_made * given**of_read).reshape(vector.shape)


class _Vector(NamedTuple):
    """A constant of one value for each channel: what reads it, as which operator's which input, its name and value."""

    node: int
    read_as: tuple[str, int]
    name: str
    values: np.ndarray


def _name(index: GraphIndex, one: _Vector) -> str:
    node = index.nodes[one.node]
    if facts_of(node).kind is not Kind.NORMALIZATION:
        return ""
    return slots(node, index.opset.get(node.domain, 1))[one.read_as[1]]


def _vectors(index: GraphIndex, nodes: tuple[int, ...]) -> Iterator[_Vector]:
    """Those that some nodes read."""
    for p in nodes:
        for slot, name in enumerate(index.nodes[p].input):
            value = index.weight(name) if name else None
            if value is not None and 1 < value.size == max(value.shape, default=0) and is_float(value.dtype):
                yield _Vector(p, (operator(index.nodes[p]), slot), name, value)


def _scaled(would: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
    """Weights with a factor for each place along an axis, so that most of them are others."""
    others = tuple(i for i in range(would.ndim) if i != axis)
    with np.errstate(all="ignore"):
        factors = np.nan_to_num(_median(np.where(would == 0, np.nan, theirs / would), axis=others, keepdims=True))
    return np.where(np.abs(factors - 1) <= CLOSE, 1.0, factors) * would


class _Weights(NamedTuple):
    """The weights of a product.

    Attributes:
        node: Place of the product.
        values: The weights.
        bias: A constant of one value for each of the layer's channels; None where there is none, or several.
    """

    node: int
    values: np.ndarray
    bias: np.ndarray | None


def _weights(index: GraphIndex, nodes: tuple[int, ...]) -> _Weights | None:
    """Those of the one product of a layer; None of other layers."""
    products = [p for p in nodes if operator(index.nodes[p]) in PRODUCTS]
    if len(products) != 1:
        return None
    read = index.nodes[products[0]].input
    found = [w for name in read if name and (w := index.weight(name)) is not None and w.ndim > 1]
    others = [w for p in nodes for name in index.nodes[p].input if name and (w := index.weight(name)) is not None]
    bias = [w for w in others if w.ndim == 1 and w.size > 1 and found and w.size in found[0].shape]
    return _Weights(products[0], found[0], bias[0] if len(bias) == 1 else None) if len(found) == 1 else None


def _median(x: np.ndarray, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> np.ndarray:
    """The median of what is known; NaN, without a warning, where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmedian(x, axis=axis, keepdims=keepdims))


def _factors(a: np.ndarray, b: np.ndarray, biases: tuple[np.ndarray | None, np.ndarray | None]) -> np.ndarray:
    """By how much the last axis is divided, where the first one may have factors of its own, too: by medians, so that
    single weights do not count. The two are told apart by the bias, if there is one, else most of the first have
    none."""
    with np.errstate(all="ignore"):
        ratio = np.where((a == 0) | (b == 0), np.nan, b / a).reshape(len(a), -1, a.shape[-1])
        rows = np.ones(len(a))
        columns = np.ones(a.shape[-1])
        for _ in range(ROUNDS):
            columns = np.nan_to_num(_median(ratio / rows[:, None, None], axis=(0, 1)), nan=1.0)
            rows = np.nan_to_num(_median(ratio / columns, axis=(1, 2)), nan=1.0)
        common = rows
        if biases[0] is not None and biases[1] is not None and biases[0].shape == biases[1].shape == rows.shape:
            common = rows * biases[0] / biases[1]
        scale = float(_median(common))
        factors = 1 / (columns * scale)
    return np.where(np.isfinite(factors) & (factors != 0), factors, 1.0)


def _order(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each place along the last axis of the second, which of the first has the same values, in any order."""
    a, b = (np.sort(np.abs(w.reshape(-1, w.shape[-1])), axis=0) for w in (a, b))
    apart = (a * a).sum(0) - 2 * b.T @ a + (b * b).sum(0)[:, None]
    order, free = np.full(len(apart), -1), np.ones(len(apart), bool)
    for place in np.argsort(apart.min(1)):
        best = int(np.argmin(np.where(free, apart[place], np.inf)))
        order[place], free[best] = best, False
    return order
