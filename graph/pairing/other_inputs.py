"""Nodes that read other tensors at several of their inputs: of what a Concat joins, one is another tensor and all stand
in another order."""

from __future__ import annotations

from .changes import OtherInputs
from .normal_form import CAPTURED
from .pairs import Pairing


def other_inputs(pairing: Pairing, n: int, m: int) -> OtherInputs | None:
    """How two nodes of one operator, to which the order of its inputs matters, read other tensors at several of them;
    None where one of these has no counterpart, and what is read may be the same, made otherwise.

    Args:
        pairing: The matched nodes.
        n, m: A node of the reference, and the node of the candidate that it is matched with.
    """
    mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    form = pairing.r.forms[n]
    if mine.kind != theirs.kind or form.commutative or [s for s, _ in mine.inputs] != [s for s, _ in theirs.inputs]:
        return None
    if any(slot.startswith(CAPTURED) for slot, _ in mine.inputs):
        return None
    both = [
        (name, pairing.counterpart(name), other)
        for (_, name), (_, other) in zip(mine.inputs, theirs.inputs, strict=True)
    ]
    known = all(meant is not None and pairing.known(other) for _, meant, other in both)
    if not known or sum(meant != other for _, meant, other in both) < 2:
        return None
    names, meant, others = zip(*both, strict=True)
    return OtherInputs(form.op, names, others, tuple(map(str, meant)), pairing.c.index.names[m])
