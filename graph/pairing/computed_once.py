"""Nodes that the candidate has once, for two of the reference that read different tensors: a simplifier made them one
since an export let both read the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .changes import ComputedOnce
from .constants import constant_value
from .differences import Difference, op_names, same_setting
from .pairs import Pairing
from .regions import Region


def computed_once(pairing: Pairing, pairs: Mapping[str, str], region: Region) -> Difference | None:
    """What the candidate computes of another tensor than the reference does, where it lacks nodes of which it has the
    like; None where it lacks them for another reason.

    Args:
        pairing: The matched nodes.
        pairs: Tensors that stand for each other.
        region: Nodes that the candidate lacks.
    """
    if region.candidate_nodes or len(region.outputs) != 1:
        return None
    ((made, other),) = region.outputs
    for twin in (a for a, b in pairs.items() if b == other and a != made):
        reads, seen = dict[tuple[str, str], None](), dict[int, int]()
        if not _alike(pairing, made, twin, reads, seen) or set(seen) != set(region.nodes) or len(reads) != 1:
            continue
        ((name, instead),) = reads
        meant = pairs.get(name) or pairing.counterpart(name)
        if meant is None or instead not in pairs or pairs[instead] == meant:
            continue
        ops = op_names(pairing.r.index, sorted(seen))
        twins = op_names(pairing.r.index, sorted(seen.values()))
        place = region.nodes[-1], pairing.c.index.producer.get(other, -1)
        return Difference(*place, ComputedOnce(ops, twins, name, pairs[instead], meant))
    return None


def _alike(pairing: Pairing, made: str, twin: str, reads: dict[tuple[str, str], None], seen: dict[int, int]) -> bool:
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
    return all(_alike(pairing, a, b, reads, seen) for (_, a), (_, b) in inputs)


def _same_constants(pairing: Pairing, p: int, q: int) -> bool:
    """Whether two nodes of the reference have the same settings and constants."""
    index, a, b = pairing.r.index, pairing.r.forms[p], pairing.r.forms[q]
    if a.op != b.op or a.weights.keys() != b.weights.keys() or a.settings.keys() != b.settings.keys():
        return False
    if not all(same_setting(a.settings[name], b.settings[name]) for name in a.settings):
        return False
    values = ((constant_value(index, a.weights[slot]), constant_value(index, b.weights[slot])) for slot in a.weights)
    return all(x is not None and y is not None and np.array_equal(x, y) for x, y in values)
