"""What a product with weights expects of what it reads, told by its weights alone: factors of channels, another order,
or a rotation that they would take back.

Estimates: whoever asks for them runs the layer on such values, which proves them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...graph.operators import PRODUCTS, operator
from ...graph.pairing.weight_changes import WeightChange, weight_change
from .channel_maps import LARGEST, TURNABLE, ChannelMap, Turn

if TYPE_CHECKING:
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
    if mine is None or theirs is None or mine[0].shape != theirs[0].shape or np.array_equal(mine[0], theirs[0]):
        return
    for place in range(min(2, mine[0].ndim)):
        if mine[0].shape[place] != shape[axis]:
            continue
        a, b = (np.moveaxis(w[0], place, -1).astype(np.float64) for w in (mine, theirs))
        yield ChannelMap((axis,), np.arange(shape[axis]), _factors(a, b, (mine[1], theirs[1])))
        if shape[axis] <= LARGEST:
            yield ChannelMap((axis,), _order(a, b), np.ones(shape[axis]))
        if a.ndim == 2 and axis == len(shape) - 1 and shape[axis] <= TURNABLE:
            u, size, v = np.linalg.svd(a.T @ b)
            if size[-1] > RANK**2 * size[0]:
                yield Turn(u @ v)


def as_rewritten(
    pair: LayerPair, graphs: tuple[GraphIndex, GraphIndex], reads: Terms | None, makes: Terms | None
) -> WeightChange | None:
    """How the candidate's weights of a product differ from what the reference's are in other terms; None where that is
    in half of them or more, or in none.

    Args:
        pair: The layer.
        graphs: The reference's graph and the candidate's.
        reads: The terms that what it reads stands in; None: the reference's.
        makes: The same of what it makes.
    """
    mine, theirs = (
        _weights(index, part.nodes) for index, part in zip(graphs, (pair.reference, pair.candidate), strict=True)
    )
    if mine is None or theirs is None or mine[0].shape != theirs[0].shape:
        return None
    found: list[WeightChange] = []
    for place in (0, 1):
        would = mine[0].astype(np.float64)
        for terms, axis, made in ((reads, place, False), (makes, 1 - place, True)):
            if terms is not None and terms.channels == would.shape[axis]:
                would = terms.of_weights(would, axis, made=made)
        would = _scaled(would, theirs[0], 1 - place)
        close = np.abs(would - theirs[0]) <= CLOSE * np.abs(would)
        change = weight_change(np.where(close, theirs[0], would).astype(theirs[0].dtype), theirs[0])
        if change is not None and 2 * change.count < change.size:
            found.append(change)
    return min(found, key=lambda change: change.count, default=None)


def _scaled(would: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
    """Weights with a factor for each place along an axis, so that most of them are others."""
    others = tuple(i for i in range(would.ndim) if i != axis)
    with np.errstate(all="ignore"):
        factors = np.nan_to_num(_median(np.where(would == 0, np.nan, theirs / would), axis=others, keepdims=True))
    return np.where(np.abs(factors - 1) <= CLOSE, 1.0, factors) * would


def _weights(index: GraphIndex, nodes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The weights of the one product of a layer, and a constant of one value for each of its channels, if there is
    one; None of other layers."""
    products = [index.nodes[p] for p in nodes if operator(index.nodes[p]) in PRODUCTS]
    if len(products) != 1:
        return None
    found = [w for name in products[0].input if name and (w := index.weight(name)) is not None and w.ndim > 1]
    others = [w for p in nodes for name in index.nodes[p].input if name and (w := index.weight(name)) is not None]
    bias = [w for w in others if w.ndim == 1 and w.size > 1 and found and w.size in found[0].shape]
    return (found[0], bias[0] if len(bias) == 1 else None) if len(found) == 1 else None


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
