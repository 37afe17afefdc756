"""Operators that one graph alone has, and behind which all sizes are others, so that nothing there is matched.

A pooling that is missing, a Pad or a Slice more: what follows is the same in both graphs but for its sizes. The nodes
that are left unmatched are therefore laid beside each other in their order, whatever their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import SequenceMatcher

from ..operators import BROADCASTING, RESHAPES, operator
from ..specs import is_float
from .changes import Resized
from .differences import Difference, op_names
from .pairs import Pairing
from .view import GraphView

MOST = 4096
"""Most unmatched nodes of a graph that are laid beside those of the other."""
Size = tuple[int, tuple[str, ...]]
"""How many elements a tensor has: the product of known dimensions, and the names of the others."""


def resized(pairing: Pairing) -> Difference | None:
    """The first place where one graph has operators more that change how many elements there are, where what follows
    is the same in both but for that.

    Args:
        pairing: The matched nodes.
    """
    left = [n for n in pairing.r.live if n not in pairing.nodes]
    right = [m for m in pairing.c.live if m not in pairing.taken]
    if not left or not right or max(len(left), len(right)) > MOST:
        return None
    mine, theirs = ([_token(v, p) for p in some] for v, some in ((pairing.r, left), (pairing.c, right)))
    steps = SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
    for place, (kind, i, j, k, m) in enumerate(steps):
        if kind == "equal":
            continue
        gone, more = _resizing(pairing.r, left[i:j]), _resizing(pairing.c, right[k:m])
        if not gone and not more:
            continue
        same = next(((a, c) for kind, a, _, c, _ in steps[place:] if kind == "equal"), None)
        if same is None or (gone and more) or pairing.fits(left[same[0]], right[same[1]]):
            return None
        behind = left[same[0]], right[same[1]]
        sizes = pairing.r.shape(pairing.r.first(behind[0])), pairing.c.shape(pairing.c.first(behind[1]))
        ops = op_names(pairing.r.index, gone), op_names(pairing.c.index, more)
        change = Resized(*ops, op_names(pairing.r.index, behind[:1])[0], *(tuple(s or ()) for s in sizes))
        if gone:
            return Difference(gone[0], behind[1], change)
        return Difference(behind[0], more[0], change, candidate_origin=more[0])
    return None


def _token(view: GraphView, position: int) -> tuple[object, ...]:
    """What is equal of two nodes that are the same but for their sizes."""
    form, sketch = view.forms[position], view.sketch(position)
    return view.fine.nodes[position].kind, repr(form.settings), None if sketch is None else sketch.digest


def _resizing(view: GraphView, nodes: Sequence[int]) -> list[int]:
    """Those of some nodes whose result has more or fewer elements than all that they read. Known of both."""
    still = RESHAPES | BROADCASTING
    return [p for p in nodes if operator(view.index.nodes[p]) not in still and _resizes(view, p)]


def _resizes(view: GraphView, position: int) -> bool:
    sizes = [_size(view, name) for _, name in view.forms[position].data]
    made = _size(view, view.first(position))
    return made is not None and bool(sizes) and None not in sizes and made not in sizes


def _size(view: GraphView, name: str) -> Size | None:
    spec = view.index.specs.get(name)
    if spec is None or spec.shape is None or not is_float(spec.dtype) or None in spec.shape:
        return None
    known = math.prod(d for d in spec.shape if isinstance(d, int))
    return known, tuple(sorted(d for d in spec.shape if isinstance(d, str)))
