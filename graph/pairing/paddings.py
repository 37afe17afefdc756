"""Pads that one of two graphs has in the window operator behind them, told once that operator is matched."""

from __future__ import annotations

from .pairs import Pairing
from .view import PADDING, GraphView


def one_sided(pairing: Pairing) -> tuple[set[int], set[int]]:
    """The convolutions and poolings of each graph before which a Pad stands, where their counterparts have none and pad
    themselves: the two are one there. Not a Pad that both graphs have."""
    found: tuple[set[int], set[int]] = set(), set()
    for n, m in pairing.nodes.items():
        pads = _pad_before(pairing.r, n), _pad_before(pairing.c, m)
        if pads[1] is None and pads[0] is not None and pads[0] not in pairing.nodes and _pads_itself(pairing.c, m):
            found[0].add(n)
        if pads[0] is None and pads[1] is not None and pads[1] not in pairing.taken and _pads_itself(pairing.r, n):
            found[1].add(m)
    return found


def _pad_before(view: GraphView, p: int) -> int | None:
    """The Pad that a node reads, where the two are not one already."""
    _, name = view.fine.nodes[p].inputs[0] if view.fine.nodes[p].inputs else ("", "")
    before = view.index.producer.get(name)
    return before if before in view.forms and view.forms[before].op == "Pad" else None


def _pads_itself(view: GraphView, p: int) -> bool:
    return view.forms[p].op in PADDING and any(view.forms[p].settings.get("pads") or ())
