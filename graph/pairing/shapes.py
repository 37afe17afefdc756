"""What matched nodes read besides data: shapes and other constants that the graph computes, in both graphs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from ..index import GraphIndex
from ..operators import COMMUTATIVE, QUANTIZERS, operator
from .changes import InputsExchanged
from .differences import Difference, setting_differences
from .normal_form import normal_form, slots, spelled
from .pairs import Pairing
from .view import GraphView
from .weight_changes import weight_change

Key = int
"""A hash of how a constant is computed: equal in two graphs that compute the same from the same tensors."""
MOST = 4096
"""Most elements of a value that is looked at; larger ones are weights."""


def follow_shapes(pairing: Pairing, nodes: dict[int, int], tensors: dict[str, str]) -> list[Difference]:
    """Matches what matched nodes read besides data, as far as operators agree.

    Args:
        pairing: The pairs.
        nodes, tensors: What corresponds; what is found is added.

    Returns:
        What differs at these nodes: inputs in another order, attributes, integers that are stored in the graph.
    """
    taken = set(nodes.values())
    found: list[Difference] = []
    mine, theirs = _Keys(pairing.r, tensors), _Keys(pairing.c, {name: name for name in pairing.c.alias})
    stack: list[tuple[str, str]] = []
    for n, m in pairing.nodes.items():
        weights, others = pairing.r.forms[n].weights, pairing.c.forms[m].weights
        stack.extend((weights[s], others[s]) for s in sorted(weights.keys() & others.keys()))
    while stack:
        mine_read, theirs_read = stack.pop()
        a, b = _rounded(pairing.r, mine_read), _rounded(pairing.c, theirs_read)
        p, q = pairing.r.index.producer.get(a), pairing.c.index.producer.get(b)
        if p is None or q is None or p in nodes or q in taken or not pairing.r.constant(a):
            continue
        left, right = pairing.r.index.nodes[p], pairing.c.index.nodes[q]
        if left.op_type != right.op_type or len(left.input) != len(right.input) or left.op_type == "Constant":
            continue
        if list(left.output).index(a) != list(right.output).index(b):
            continue
        nodes[p] = q
        taken.add(q)
        if mine_read not in tensors and mine_read not in pairing.r.index.outputs:
            tensors[mine_read] = theirs_read
        names = slots(left, pairing.r.index.opset.get(left.domain, 1))
        if operator(left) not in QUANTIZERS:  # whose weights are compared as what they stand for
            found.extend(_differences(pairing, p, q, names))
        order = _order([mine.of(n) for n in left.input], [theirs.of(n) for n in right.input])
        stack.extend((name, right.input[order[i]]) for i, name in enumerate(left.input))
        if order != list(range(len(order))) and operator(left) not in COMMUTATIVE:
            told = [spelled(pairing.r.index, p, name) for name in names]
            moved = tuple((told[i], told[j]) for i, j in enumerate(order) if i != j)
            found.append(Difference(p, q, InputsExchanged(left.op_type, moved)))
    return found


def _rounded(view: GraphView, name: str) -> str:
    """What a constant is a copy of, up to rounding, where quantizers are looked through: of rows that are gathered of a
    table, the rows in floating point."""
    while view.skips and (position := view.index.producer.get(name)) is not None:
        node = view.index.nodes[position]
        if operator(node) not in QUANTIZERS or node.input[0] not in view.index.producer:
            break
        name = node.input[0]
    return name


def _differences(pairing: Pairing, p: int, q: int, names: list[str]) -> Iterator[Difference]:
    """What two nodes of one operator do otherwise, by their attributes and by integers that they read."""
    mine, theirs = pairing.r, pairing.c
    a, b = normal_form(mine.index, p, mine.constant), normal_form(theirs.index, q, theirs.constant)
    settings = {d.name: d for d in setting_differences(mine.index, p, a, theirs.index, q, b)}
    yield from (d for name, d in settings.items() if name not in names)
    for name, one, other in zip(names, mine.index.nodes[p].input, theirs.index.nodes[q].input, strict=True):
        if name not in settings and (name in a.settings or name in b.settings):
            continue  # the same, with axes counted from the other end or as the default
        x, y = _integers(mine.index, one), _integers(theirs.index, other)
        change = None if x is None or y is None else weight_change(x, y)
        if change is not None:
            yield Difference(p, q, change, name)


def _integers(index: GraphIndex, name: str) -> np.ndarray | None:
    """A few integers that the graph holds; None for all else."""
    position = index.producer.get(name)
    if not name or (position is not None and index.nodes[position].op_type != "Constant"):
        return None
    value = index.constant(name)
    return value if value is not None and value.dtype.kind in "iub" and value.size <= MOST else None


def _order(mine: list[Key], theirs: list[Key]) -> list[int]:
    """For each input of one node the input of another one that reads the same, where both read the same in all; in the
    order of the inputs otherwise."""
    plain = list(range(len(mine)))
    if mine == theirs or Counter(mine) != Counter(theirs):
        return plain
    left, order = set(plain), []
    for i, key in enumerate(mine):
        choice = i if i in left and theirs[i] == key else min(j for j in left if theirs[j] == key)
        left.discard(choice)
        order.append(choice)
    return order


class _Keys:
    """Keys of one graph's constants.

    Args:
        view: The graph.
        names: What a tensor that is not constant is called in the key.
    """

    def __init__(self, view: GraphView, names: Mapping[str, str]) -> None:
        self._view = view
        self._names = names
        self._known: dict[str, Key] = {}

    def of(self, name: str) -> Key:
        """The key of a tensor: of weights and of what depends on data, its name's."""
        index = self._view.index
        waiting = [name]
        while waiting:
            at = waiting[-1]
            position = index.producer.get(at)
            node = None if position is None or not self._view.constant(at) else index.nodes[position]
            rest = [n for n in node.input if n and n not in self._known] if node is not None else []
            if rest:
                waiting.extend(rest)
                continue
            waiting.pop()
            if at in self._known:
                continue
            value = self._value(at) if node is None or node.op_type == "Constant" else None
            if value is not None:
                self._known[at] = hash((value.dtype.str, value.shape, value.tobytes()))
            elif node is None:
                self._known[at] = hash(self._names.get(at, at))
            else:
                settings = tuple(sorted(a.SerializeToString(deterministic=True) for a in node.attribute))
                place = list(node.output).index(at)
                inputs = tuple(self._known[n] if n else 0 for n in node.input)
                self._known[at] = hash((node.op_type, place, settings, inputs))
        return self._known[name]

    def _value(self, name: str) -> np.ndarray | None:
        """A small constant of the graph."""
        spec = self._view.index.specs.get(name)
        if spec is not None and spec.shape and math.prod(d for d in spec.shape if isinstance(d, int)) > MOST:
            return None
        value = self._view.index.constant(name)
        return value if value is not None and value.size <= MOST else None
