"""Weights that nodes of the candidate have from each other: found where the same tensors are read and readers agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ..operators import AFFINE_PRODUCTS, PRODUCTS
from .constants import constant_value
from .differences import Difference
from .pairs import FEW, Pairing
from .roles import roles
from .weight_changes import WeightChange
from .weight_patterns import OfNode

Key = TypeVar("Key")

SMALL = 1 << 14
"""Most elements of weights that are compared one by one with those of all other nodes."""
READERS = 2
"""Readers that would all have other inputs, from which on exchanged weights are the simpler account of two graphs."""


def cycles(held: Mapping[Key, Key]) -> Iterator[tuple[Key, ...]]:
    """The groups in which each has what the next one is to have, and the last one what the first is to have.

    Args:
        held: Who has what is another's -> that other one.
    """
    seen: set[Key] = set()
    for first in held:
        way: list[Key] = []
        here: Key | None = first
        while here is not None and here not in seen:
            seen.add(here)
            way.append(here)
            here = held.get(here)
        if here in way and len(way[way.index(here) :]) > 1:
            yield tuple(way[way.index(here) :])


def by_role(pairing: Pairing) -> bool:
    """Matches anew, in place, nodes that were matched by their weights and that stand in each other's place: they read
    the same tensors, and every reader of one of them reads the other. Then weights are exchanged, not readers' inputs.

    Not where names say what the weights say, or where one reader alone would have other inputs and no name tells which.

    Returns:
        Whether there were any.
    """
    expected = roles(pairing)
    meant = {n: m for n in pairing.nodes if (m := _in_place(pairing, n, expected)) is not None}
    held = {n: pairing.taken[m] for n, m in meant.items() if m in pairing.taken}
    found = [group for group in cycles(held) if _likelier(pairing, group, meant)]
    for group in found:
        for mine, theirs in [pair for n in group for pair in _with_head(pairing, n, meant[n])]:
            pairing.nodes[mine] = theirs
            pairing.taken[theirs] = mine
    return bool(found)


def _in_place(pairing: Pairing, n: int, expected: Mapping[str, str]) -> int | None:
    """Another node than its partner that stands in the candidate where node ``n`` stands in the reference."""
    name = expected.get(pairing.r.first(n), "")
    m = pairing.c.index.producer.get(name)
    if m is None or m == pairing.nodes[n] or m not in pairing.c.forms or pairing.c.first(m) != name:
        return None
    one, other = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    sketch, form, twin = pairing.r.sketch(n), pairing.r.forms[n], pairing.c.forms[m]
    alike = one.kind == other.kind and repr(form.settings) == repr(twin.settings) and pairing.fits(n, m)
    if sketch is None or sketch.size < FEW or not alike or len(one.inputs) != len(other.inputs):
        return None
    return m if _reads_same(pairing, n, m) or len(_with_head(pairing, n, m)) > 1 else None


def _reads_same(pairing: Pairing, n: int, m: int) -> bool:
    """Whether all that a node reads is read by a node of the candidate in the same places."""
    slots = dict(pairing.c.fine.nodes[m].inputs)
    return all(slot in slots and pairing.paired(name, slots[slot]) for slot, name in pairing.r.fine.nodes[n].inputs)


def _with_head(pairing: Pairing, n: int, m: int) -> list[tuple[int, int]]:
    """Two nodes, and with them the products whose biases they add, where both products read the same tensors."""
    pair = [(n, m)]
    views = (pairing.r, n), (pairing.c, m)
    if not all(v.forms[p].op == "Add" and len(v.fine.nodes[p].inputs) == 1 for v, p in views):
        return pair
    heads = [v.index.producer.get(v.fine.nodes[p].inputs[0][1], -1) for v, p in views]
    if not all(p in v.forms and v.forms[p].family in PRODUCTS for (v, _), p in zip(views, heads, strict=True)):
        return pair
    p, q = heads
    mine, theirs = pairing.r.fine.nodes[p], pairing.c.fine.nodes[q]
    alike = mine.kind == theirs.kind and len(mine.inputs) == len(theirs.inputs) == 1 and pairing.fits(p, q)
    moved = pairing.nodes.get(p) != q and _reads_same(pairing, p, q)
    return [*pair, (p, q)] if alike and moved else pair


def _likelier(pairing: Pairing, group: tuple[int, ...], meant: Mapping[int, int]) -> bool:
    """Whether weights are exchanged, and not what reads them."""
    names = [pairing.names.get(n) for n in group]
    if all(name == meant[n] for n, name in zip(group, names, strict=True)):
        return True
    if any(name == pairing.nodes[n] for n, name in zip(group, names, strict=True)):
        return False
    readers = {p for n in group for p, _ in pairing.r.fine.consumers.get(pairing.r.first(n), ()) if p in pairing.nodes}
    return sum(_reads_others(pairing, p) for p in readers) >= READERS


def _reads_others(pairing: Pairing, n: int) -> bool:
    """Whether a node reads what its partner does not, or in another place."""
    theirs = pairing.c.fine.nodes[pairing.nodes[n]].inputs
    return any(
        not any(slot == other and pairing.paired(name, twin) for other, twin in theirs)
        for slot, name in pairing.r.fine.nodes[n].inputs
    )


def with_holders(pairing: Pairing, found: Iterable[Difference]) -> list[Difference]:
    """Differences of weights, with the node of the reference that has the candidate's weights, where there is one."""
    result = list(found)
    open_ones = [i for i, d in enumerate(result) if _unexplained(pairing, d)]
    families = {pairing.r.forms[result[i].node].family for i in open_ones}
    held: dict[tuple[str, bytes], int] = {}
    for p in pairing.r.live:
        family = pairing.r.forms[p].family
        sketch = pairing.r.sketch(p) if family in families else None
        if sketch is not None and sketch.size >= FEW:
            held.setdefault((family, sketch.digest), p)
    for i in open_ones:
        difference = result[i]
        sketch = pairing.c.sketch(difference.candidate_node)
        family = pairing.r.forms[difference.node].family
        holder = None if sketch is None else held.get((family, sketch.digest))
        if holder is not None and holder != difference.node and isinstance(difference.change, WeightChange):
            index = pairing.r.index
            pattern = OfNode(index.nodes[holder].op_type, index.names[holder])
            change = replace(difference.change, patterns=(*difference.change.patterns, pattern))
            result[i] = replace(difference, change=change)
    return _swapped(pairing, result)


def _swapped(pairing: Pairing, found: list[Difference]) -> list[Difference]:
    """The same with small weights and biases that nodes have from each other, in a round: of few values, that one has
    another's would say little by itself."""
    changes: dict[int, WeightChange] = {}
    alike: dict[tuple[str, str, tuple[int, ...]], list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for i, difference in enumerate(found):
        change, values = difference.change, _values(pairing, difference)
        if isinstance(change, WeightChange) and values is not None and not change.patterns and not change.rounded_to:
            changes[i] = change
            kind = pairing.r.forms[difference.node].family, difference.name, change.shape
            alike.setdefault(kind, []).append((i, *values))
    result = list(found)
    index = pairing.r.index
    for members in alike.values():
        makers = {x.tobytes(): j for j, x, _ in reversed(members)}
        held = {i: j for i, _, y in members if (j := makers.get(y.tobytes(), i)) != i}
        for i in (i for group in cycles(held) for i in group):
            holder = found[held[i]].node
            pattern = OfNode(index.nodes[holder].op_type, index.names[holder])
            result[i] = replace(found[i], change=replace(changes[i], patterns=(pattern,)))
    return result


def _values(pairing: Pairing, difference: Difference) -> tuple[np.ndarray, np.ndarray] | None:
    """Both values of a small weight that differs; None where they have other shapes, or are not of these nodes."""
    n, m, change = difference.node, difference.candidate_node, difference.change
    if n not in pairing.r.forms or m not in pairing.c.forms or difference.inside is not None:
        return None
    if not isinstance(change, WeightChange) or change.size > SMALL:
        return None
    names = (form.weights.get(difference.name, "") for form in (pairing.r.forms[n], pairing.c.forms[m]))
    graphs = pairing.r.index, pairing.c.index
    x, y = (constant_value(i, k) if k else None for i, k in zip(graphs, names, strict=True))
    return None if x is None or y is None or x.shape != y.shape or x.dtype != y.dtype else (x, y)


def _unexplained(pairing: Pairing, difference: Difference) -> bool:
    """Whether weights of a node differ, other than the bias of a product, and nothing says why."""
    change, form = difference.change, pairing.r.forms.get(difference.node)
    if not isinstance(change, WeightChange) or form is None or change.rounded_to or change.quantized or change.folded:
        return False
    known = difference.inside is None and difference.candidate_node in pairing.c.forms
    return known and not change.patterns and (form.family not in AFFINE_PRODUCTS or len(change.shape) > 1)
