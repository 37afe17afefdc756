"""Matches the nodes of two graphs, round by round, until nothing new is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ..index import GraphIndex
from .bottlenecks import bottlenecks
from .constants import constant_value
from .exchanged import by_role
from .labels import labels
from .paddings import one_sided
from .pairs import FEW, Pairing
from .roles import made_of, roles
from .scalings import moved
from .view import TELLING, GraphView, NodeKind, Told, similar

Key = TypeVar("Key")
NodePair = tuple[int, int]
"""Positions in the reference and in the candidate."""

_ROUNDS = 200
_MOST = 1 << 14
"""Most pairs of nodes with equal labels that are looked at one by one."""


def match_nodes(reference: GraphIndex, candidate: GraphIndex) -> Pairing:
    """Finds which nodes of two graphs correspond, the surest evidence first."""
    pairing = _matched(Pairing(reference, candidate))
    mine, theirs = (Told(*map(frozenset, known)) for known in zip(one_sided(pairing), moved(pairing), strict=True))
    return pairing if mine == theirs == Told() else _matched(Pairing(reference, candidate, (mine, theirs)))


def _matched(pairing: Pairing) -> Pairing:
    _by_name(pairing)
    for _ in range(_ROUNDS):
        if _accept(pairing, bottlenecks(pairing)):
            continue
        if any(_by_labels(pairing, skeleton, final=False) for skeleton in (True, False)):
            continue
        if _names_by_neighbour(pairing) or _changed_operators(pairing):
            continue
        if _by_weights(pairing) or _by_one_input(pairing):
            continue
        if any(_by_labels(pairing, skeleton, final=True) for skeleton in (True, False)):
            continue
        if _of_another_size(pairing) or by_role(pairing):
            continue
        break
    return pairing


def _accept(pairing: Pairing, pairs: Iterable[NodePair]) -> bool:
    """Takes pairs; whether any of them is new."""
    return sum([pairing.accept(n, m) for n, m in pairs]) > 0


# -- names, weights and neighbours


def _by_name(pairing: Pairing) -> None:
    """Names that structure confirms from at least one end of the graph."""
    confirmed: set[int] = set()
    for skeleton in (True, False):
        mine, theirs = labels(pairing, skeleton)
        for n, m in pairing.names.items():
            known = n in mine.before and m in theirs.before
            if known and (mine.before[n] == theirs.before[m] or mine.behind[n] == theirs.behind[m]):
                confirmed.add(n)
    for n in sorted(confirmed):
        if _named_rightly(pairing, n):
            pairing.accept(n, pairing.names[n])


def _named_rightly(pairing: Pairing, n: int, among: Sequence[int] | None = None) -> bool:
    """Whether weights do not say that a node of the same name is another one, of some or of all of its family."""
    m = pairing.names[n]
    if pairing.beside(n, m) or pairing.misnamed(n, m) or pairing.picks_another(n, m):
        return False
    others = pairing.same_family(m) if among is None else among
    return pairing.named_weights_agree(n, m) or not pairing.refuted(n, m, others)


def _names_by_neighbour(pairing: Pairing) -> bool:
    """Names that a matched neighbour confirms, for what lies between two faults."""
    progress = False
    for n, m in pairing.names.items():
        if n in pairing.nodes or m in pairing.taken:
            continue
        mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
        near = any(pairing.paired(a, b) for s, a in mine.inputs for t, b in theirs.inputs if s == t)
        readers = {p for name in mine.outputs for p, _ in pairing.r.fine.consumers.get(name, ())}
        others = {p for name in theirs.outputs for p, _ in pairing.c.fine.consumers.get(name, ())}
        near = near or any(pairing.nodes.get(p) in others for p in readers)
        if near and _named_rightly(pairing, n):
            progress = pairing.accept(n, m) or progress
    return progress


def _by_weights(pairing: Pairing) -> bool:
    """Nodes with the same weights that no other node has, wherever they stand: a hold between two faults."""

    def unique(view: GraphView, matched: Mapping[int, int]) -> dict[tuple[str, bytes], int]:
        found: dict[tuple[str, bytes], list[int]] = {}
        for p in view.live:
            told = _telling(view, p) if p not in matched else None
            if told is not None:
                found.setdefault((view.forms[p].family, told), []).append(p)
        return {key: nodes[0] for key, nodes in found.items() if len(nodes) == 1}

    mine, theirs = unique(pairing.r, pairing.nodes), unique(pairing.c, pairing.taken)
    pairs = [(n, theirs[key]) for key, n in mine.items() if key in theirs]
    pairs = [(n, m) for n, m in pairs if pairing.fits(n, m)]
    known = set(pairs)
    return _accept(pairing, [pair for pair in pairs if _many(pairing.r, pair[0]) or _beside(pairing, pair, known)])


def _many(view: GraphView, position: int) -> bool:
    sketch = view.sketch(position)
    return sketch is not None and sketch.size >= TELLING


def _beside(pairing: Pairing, pair: NodePair, known: Container[NodePair]) -> bool:
    """Whether the nodes of a pair read what those of another one make, or the reverse: a gain and a bias, which few
    values tell together. One alone may stand in another order with what is around it."""
    n, m = pair
    nodes, others = _neighbours(pairing.r, n), _neighbours(pairing.c, m)
    return any((p, q) in known for p in nodes for q in others)


def _neighbours(view: GraphView, position: int) -> list[int]:
    node = view.fine.nodes[position]
    behind = [p for name in node.outputs for p, _ in view.fine.consumers.get(name, ())]
    return [*behind, *(view.index.producer.get(name, -1) for _, name in node.inputs)]


def _telling(view: GraphView, position: int) -> bytes | None:
    """What tells a node's weights from all others; None where they are too few, or too many of one value."""
    sketch = view.sketch(position)
    if sketch is None or sketch.size >= TELLING:
        return None if sketch is None else sketch.digest
    names = list(view.forms[position].weights.values())
    value = constant_value(view.index, names[0]) if len(names) == 1 else None
    if value is None or np.unique(value).size < FEW:
        return None
    return value.astype(np.float16).tobytes()  # with any number of axes before those that it broadcasts along


def _by_one_input(pairing: Pairing) -> bool:
    """The only readers of their kind of a matched tensor, whatever else they read."""
    progress = False
    matched = list(pairing.inputs.items())
    for n, m in pairing.nodes.items():
        matched.extend(zip(pairing.r.fine.nodes[n].outputs, pairing.c.fine.nodes[m].outputs, strict=False))
    for a, b in matched:
        mine = _readers(pairing.r, a, pairing.nodes)
        theirs = _readers(pairing.c, b, pairing.taken)
        for key, some in mine.items():
            others = theirs.get(key, [])
            if len(some) == len(others) == 1 and pairing.fits(some[0], others[0]):
                progress = pairing.accept(some[0], others[0]) or progress
    return progress


def _readers(view: GraphView, name: str, matched: Mapping[int, int]) -> dict[tuple[NodeKind, str], list[int]]:
    """Unmatched readers of a tensor, by their kind and the slot that they read it in."""
    found: dict[tuple[NodeKind, str], list[int]] = {}
    for p, slot in view.fine.consumers.get(name, ()):
        if p not in matched:
            found.setdefault((view.fine.nodes[p].kind, slot), []).append(p)
    return found


def _of_another_size(pairing: Pairing) -> bool:
    """The only readers of their kind of the same matched tensors, though what they make has other sizes: an attribute
    was changed there (``ceil_mode``, ``perm``), or before."""
    numbers = {m: n for n, m in pairing.nodes.items()}
    mine = _by_reads(pairing.r, {n: n for n in pairing.nodes})
    theirs = _by_reads(pairing.c, numbers)
    both = ((some, theirs.get(key, [])) for key, some in mine.items())
    return _accept(pairing, [(some[0], others[0]) for some, others in both if len(some) == len(others) == 1])


def _by_reads(view: GraphView, numbers: Mapping[int, int]) -> dict[tuple[object, int, tuple[str, ...]], list[int]]:
    """Unmatched nodes of which all inputs are matched, by kind, rank, and what they read of which pair."""
    found: dict[tuple[object, int, tuple[str, ...]], list[int]] = {}
    for p in view.live:
        node = view.fine.nodes[p]
        if p in numbers or not node.inputs:
            continue
        read: list[tuple[str, str | int, int]] = []
        for slot, name in node.inputs:
            q = view.index.producer.get(name)
            if q is None:
                read.append((slot, name, 0))
            elif q in numbers:
                read.append((slot, numbers[q], list(view.index.nodes[q].output).index(name)))
        rank = len(view.shape(node.outputs[0]) or ())
        if rank and len(read) == len(node.inputs):
            kind = node.kind if isinstance(node.kind, str) else node.kind[:2]  # in whatever order it puts the axes
            found.setdefault((kind, rank, tuple(map(str, sorted(read, key=str)))), []).append(p)
    return found


def _changed_operators(pairing: Pairing) -> bool:
    """Nodes of different operators that stand in the same place: same readers, same inputs."""
    progress = False
    for name, other in roles(pairing).items():
        n, m = pairing.r.index.producer.get(name), pairing.c.index.producer.get(other)
        if n is None or m is None or n in pairing.nodes or m in pairing.taken:
            continue
        if n not in pairing.r.forms or m not in pairing.c.forms:
            continue
        mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
        if mine.kind == theirs.kind and pairing.fits(n, m):
            progress = pairing.accept(n, m) or progress  # the same operator makes the same tensor
            continue
        left, right = ([name for _, name in node.inputs] for node in (mine, theirs))
        if len(left) == len(right) and left and all(any(pairing.paired(a, b) for b in right) for a in left):
            same = pairing.r.forms[n].family == pairing.c.forms[m].family
            if pairing.accept(n, m) and not same:
                pairing.changed.add(n)
            progress = True
    return progress


# -- labels


def _by_labels(pairing: Pairing, skeleton: bool, *, final: bool) -> bool:
    """Nodes with equal labels; where none has both equal, those with one equal label.

    Args:
        pairing: What is known so far.
        skeleton: Whether to look at the skeletons alone.
        final: Whether to take the nearest weights, nothing better being left.
    """
    mine, theirs = labels(pairing, skeleton)
    nets = (pairing.r.skeleton, pairing.c.skeleton) if skeleton else (pairing.r.fine, pairing.c.fine)
    kinds = {n: node.kind for n, node in nets[0].nodes.items() if n not in pairing.nodes}
    others = {m: node.kind for m, node in nets[1].nodes.items() if m not in pairing.taken}
    if not kinds or not others:
        return False
    both = _classes(
        {n: (kind, mine.before[n], mine.behind[n]) for n, kind in kinds.items()},
        {m: (kind, theirs.before[m], theirs.behind[m]) for m, kind in others.items()},
    )
    progress = False
    for left, right in both:
        progress = _accept(pairing, _resolve(pairing, left, right, whole=True, final=final)) or progress
    if progress:
        return True
    proposals: dict[NodePair, set[str]] = {}
    for way, ours, yours in (("before", mine.before, theirs.before), ("behind", mine.behind, theirs.behind)):
        alike = _classes(
            {n: (kind, ours[n]) for n, kind in kinds.items()}, {m: (kind, yours[m]) for m, kind in others.items()}
        )
        for left, right in alike:
            for pair in _resolve(pairing, left, right, whole=False, final=final):
                if not pairing.picks_another(*pair):
                    proposals.setdefault(pair, set()).add(way)
    joined = _joined_behind(pairing, proposals)
    return _decide(pairing, {pair: ways for pair, ways in proposals.items() if pair not in joined})


def _decide(pairing: Pairing, proposals: Mapping[NodePair, set[str]]) -> bool:
    """Takes the pairs that nothing else was proposed against; if there are none, the best one by weights and names.

    Args:
        pairing: What is known so far.
        proposals: Pairs, and which of their labels are equal: ``before``, ``behind``.
    """
    left, right = Counter(n for n, _ in proposals), Counter(m for _, m in proposals)
    if _accept(pairing, [(n, m) for n, m in proposals if left[n] == 1 and right[m] == 1]):
        return True
    if not proposals:
        return False

    def score(pair: NodePair) -> tuple[float, bool, bool, bool, int]:
        n, m = pair
        ways, named = proposals[pair], pairing.names.get(n) == m
        return similar(pairing.r.sketch(n), pairing.c.sketch(m)), len(ways) == 2, named, "before" in ways, -n

    return pairing.accept(*max(proposals, key=score))


def _classes(left: Mapping[int, Key], right: Mapping[int, Key]) -> list[tuple[list[int], list[int]]]:
    """Nodes of both graphs with equal keys."""
    mine: dict[Key, list[int]] = {}
    theirs: dict[Key, list[int]] = {}
    for n, key in left.items():
        mine.setdefault(key, []).append(n)
    for m, key in right.items():
        theirs.setdefault(key, []).append(m)
    return [(nodes, theirs[key]) for key, nodes in mine.items() if key in theirs]


def _resolve(pairing: Pairing, left: list[int], right: list[int], *, whole: bool, final: bool) -> list[NodePair]:
    """Pairs within a class of nodes with equal labels.

    Args:
        pairing: What is known so far.
        left, right: Unmatched nodes of the reference and of the candidate.
        whole: Whether both labels are equal: then nodes with equal weights are interchangeable.
        final: Whether to take the nearest weights, nothing better being left.
    """
    if len(left) == 1 and len(right) == 1:
        one, other = left[0], right[0]
        return [(one, other)] if pairing.fits(one, other) and not pairing.elsewhere(one, other) else []
    if len(left) * len(right) > _MOST:
        return []
    pairs = _named(pairing, left, right)
    pairs += _of_equal_weights(pairing, *_without(pairs, left, right))
    mine, theirs = _without(pairs, left, right)
    if not mine or not theirs:
        return pairs
    if len(mine) == 1 and len(theirs) == 1 and len(left) == len(right) and pairing.fits(mine[0], theirs[0]):
        return [*pairs, (mine[0], theirs[0])]
    if whole and not pairs and _interchangeable(pairing, mine, theirs):
        return [(mine[0], theirs[0])]  # the labels then tell the others apart
    if final:
        pairs.extend(_nearest(pairing, mine, theirs))
    return pairs


def _joined_behind(pairing: Pairing, pairs: Iterable[NodePair]) -> set[NodePair]:
    """The pairs of which the candidate's node makes what stands for what the reference makes of several branches, of
    which the reference's node is one: it is all of them in one kernel, and not that one with other weights."""
    stands: dict[str, list[str]] = {}
    for name, other in roles(pairing).items():
        stands.setdefault(other, []).append(name)
    found = set()
    for n, m in pairs:
        a = pairing.r.first(n)
        names = [name for name in stands.get(pairing.c.first(m), ()) if pairing.r.source(name) != a]
        if any(made_of(pairing, a, name) for name in names):
            found.add((n, m))
    return found


def _without(pairs: list[NodePair], left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    """What is in no pair."""
    mine, theirs = {n for n, _ in pairs}, {m for _, m in pairs}
    return [n for n in left if n not in mine], [m for m in right if m not in theirs]


def _named(pairing: Pairing, left: list[int], right: list[int]) -> list[NodePair]:
    """Pairs of one name, if weights do not contradict."""
    pairs: list[NodePair] = []
    rest = set(right)
    for n in left:
        m = pairing.names.get(n)
        if m in rest and _named_rightly(pairing, n, right):
            pairs.append((n, m))
            rest.discard(m)
    return pairs


def _of_equal_weights(pairing: Pairing, left: list[int], right: list[int]) -> list[NodePair]:
    """Pairs with the same weights that no other node of the class has."""

    def unique(view: GraphView, nodes: list[int]) -> dict[bytes, int]:
        digests = [(s.digest, p) for p in nodes if (s := view.sketch(p)) is not None]
        counts = Counter(digest for digest, _ in digests)
        return {digest: p for digest, p in digests if counts[digest] == 1}

    mine, theirs = unique(pairing.r, left), unique(pairing.c, right)
    pairs = ((n, theirs[digest]) for digest, n in mine.items() if digest in theirs)
    return [(n, m) for n, m in pairs if pairing.fits(n, m)]


def _interchangeable(pairing: Pairing, left: list[int], right: list[int]) -> bool:
    """Whether nodes in the same place have the same weights and settings, so that any pair of them is right."""
    if len(left) != len(right) or not pairing.fits(left[0], right[0]):
        return False
    both = [(pairing.r, n) for n in left] + [(pairing.c, m) for m in right]
    weights = {s.digest if (s := view.sketch(p)) else None for view, p in both}
    settings = {repr(view.forms[p].settings) for view, p in both}
    return len(weights) == 1 and len(settings) == 1 and (weights != {None} or pairing.fed(left[0]))


def _nearest(pairing: Pairing, left: list[int], right: list[int]) -> list[NodePair]:
    """Pairs that are each other's most similar by weights, by a clear margin."""
    table = np.array([[similar(pairing.r.sketch(n), pairing.c.sketch(m)) for m in right] for n in left])
    pairs = []
    for i, n in enumerate(left):
        j = int(table[i].argmax())
        best = table[i, j]
        others = max(np.delete(table[i], j).max(initial=0.0), np.delete(table[:, j], i).max(initial=0.0))
        if best >= 0.5 and best - others >= 0.2 and pairing.fits(n, right[j]):
            pairs.append((n, right[j]))
    return pairs
