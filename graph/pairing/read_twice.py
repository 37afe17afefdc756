"""Nodes that read one tensor twice in the candidate, and two in the reference, of which it does not have the other."""

from __future__ import annotations

import numpy as np

from .changes import ReadTwice
from .constants import constant_value
from .differences import op_names, same_setting
from .pairs import Pairing


def read_twice(pairing: Pairing, n: int, m: int) -> ReadTwice | None:
    """What the candidate's node reads twice, where the reference's reads another tensor in place of it once: not where
    the two are computed alike, of which a simplifier makes one.

    Args:
        pairing: The matched nodes.
        n, m: A node of the reference and the candidate's.
    """
    mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    if mine.kind != theirs.kind or len(mine.inputs) != len(theirs.inputs):
        return None
    left, right = list(mine.inputs), list(theirs.inputs)
    same: dict[str, str] = {}
    for one in list(left):
        twin = next((t for t in right if pairing.paired(one[1], t[1]) and t[0] == one[0]), None)
        if twin is not None:
            same[twin[1]] = one[1]
            left.remove(one)
            right.remove(twin)
    if len(left) != 1 or left[0][0] != right[0][0] or right[0][1] not in same:
        return None
    (_, name), (_, twice) = left[0], right[0]
    made = pairing.r.index.producer.get(name)
    if made is None or made in pairing.nodes or made not in pairing.r.fine.nodes:
        return None
    if computed_alike(pairing, name, same[twice], {}, {}):
        return None
    lacking = op_names(pairing.r.index, _lacking(pairing, made))
    return ReadTwice(pairing.r.forms[n].op, name, twice, pairing.c.index.names[m], lacking)


def _lacking(pairing: Pairing, made: int) -> list[int]:
    """The nodes in a row that the candidate lacks, or has and does not use, up to one."""
    found, waiting = {made}, [made]
    while waiting:
        for _, name in pairing.r.fine.nodes[waiting.pop()].inputs:
            before = pairing.r.index.producer.get(name, -1)
            if before in pairing.r.fine.nodes and before not in pairing.nodes and before not in found:
                found.add(before)
                waiting.append(before)
    return sorted(found)


def computed_alike(
    pairing: Pairing, made: str, twin: str, reads: dict[tuple[str, str], None], seen: dict[int, int]
) -> bool:
    """Whether two tensors of the reference are computed alike of two others; notes these and the nodes between."""
    view = pairing.r
    p, q = view.index.producer.get(made), view.index.producer.get(twin)
    if made == twin:
        return True
    if p is None or q is None or p in pairing.nodes:
        reads[made, twin] = None
        return True
    if p in seen:
        return seen[p] == q
    mine, theirs = view.fine.nodes.get(p), view.fine.nodes.get(q)
    if mine is None or theirs is None or mine.kind != theirs.kind or not _same_constants(pairing, p, q):
        return False
    if [slot for slot, _ in mine.inputs] != [slot for slot, _ in theirs.inputs]:
        return False
    seen[p] = q
    inputs = zip(mine.inputs, theirs.inputs, strict=True)
    return all(computed_alike(pairing, a, b, reads, seen) for (_, a), (_, b) in inputs)


def _same_constants(pairing: Pairing, p: int, q: int) -> bool:
    """Whether two nodes of the reference have the same settings and constants."""
    index, a, b = pairing.r.index, pairing.r.forms[p], pairing.r.forms[q]
    if a.op != b.op or a.weights.keys() != b.weights.keys() or a.settings.keys() != b.settings.keys():
        return False
    if not all(same_setting(a.settings[name], b.settings[name]) for name in a.settings):
        return False
    values = ((constant_value(index, a.weights[slot]), constant_value(index, b.weights[slot])) for slot in a.weights)
    return all(x is not None and y is not None and np.array_equal(x, y) for x, y in values)
