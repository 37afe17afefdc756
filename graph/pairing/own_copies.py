"""Nodes that the candidate has for one reader alone, where the reference has one for several: the same operator on the
same data, with another constant, perhaps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .changes import AttributeChange
from .constants import constant_value
from .differences import Difference
from .pairs import Pairing


def own_copies(pairing: Pairing, n: int, m: int) -> Iterator[Difference]:
    """Constants of such nodes before two matched ones that are not the reference's.

    Args:
        pairing: The matched nodes.
        n, m: Positions in the reference and the candidate.
    """
    mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    if mine.kind != theirs.kind or len(mine.inputs) != len(theirs.inputs):
        return
    left = [a for _, a in mine.inputs if not any(pairing.paired(a, b) for _, b in theirs.inputs)]
    right = [b for _, b in theirs.inputs if not any(pairing.paired(a, b) for _, a in mine.inputs)]
    if len(left) != 1 or len(right) != 1 or pairing.counterpart(left[0]) is None:
        return
    p, q = pairing.r.index.producer.get(left[0], -1), pairing.c.index.producer.get(right[0], -1)
    if p < 0 or q < 0 or q in pairing.taken:
        return
    one, other = pairing.r.fine.nodes.get(p), pairing.c.fine.nodes.get(q)
    a, b = pairing.r.forms.get(p), pairing.c.forms.get(q)
    if one is None or other is None or len(one.inputs) != len(other.inputs):
        return
    if a is None or b is None or a.op != b.op or a.weights.keys() != b.weights.keys():
        return
    if not all(pairing.paired(x, y) for (_, x), (_, y) in zip(one.inputs, other.inputs, strict=False)):
        return
    for slot in sorted(a.weights):
        x, y = (constant_value(view.index, form.weights[slot]) for view, form in ((pairing.r, a), (pairing.c, b)))
        if x is None or y is None or x.size != 1 or y.size != 1 or np.array_equal(x.reshape(()), y.reshape(())):
            continue
        of = f"{pairing.c.index.nodes[q].op_type} {pairing.c.index.names[q]}"
        yield Difference(n, m, AttributeChange("constant", x.reshape(()).item(), y.reshape(()).item(), of), "constant")
