"""Operators that one graph alone has, and behind which all sizes are others, so that nothing there is matched.

A pooling that is missing, a Pad or a Slice more: what follows is the same in both graphs but for its sizes. The nodes
that are left unmatched are therefore laid beside each other in their order, whatever their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from difflib import SequenceMatcher

from ..operators import BROADCASTING, RESHAPES, operator
from ..specs import is_float
from .changes import Resized
from .differences import Difference, op_names
from .pairs import Pairing
from .view import GraphView

MOST = 4096
"""Most unmatched nodes of a graph that are laid beside those of the other."""
NodePair = tuple[int, int]
"""Positions in the reference and in the candidate."""
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
        if not _led_to(pairing, (gone, more), behind) or _crossed(pairing, *behind):
            return None
        sizes = pairing.r.shape(pairing.r.first(behind[0])), pairing.c.shape(pairing.c.first(behind[1]))
        ops = op_names(pairing.r.index, gone), op_names(pairing.c.index, more)
        change = Resized(*ops, op_names(pairing.r.index, behind[:1])[0], *(tuple(s or ()) for s in sizes))
        if gone:
            return Difference(gone[0], behind[1], change)
        return Difference(behind[0], more[0], change, candidate_origin=more[0])
    return None


def _led_to(pairing: Pairing, resizing: tuple[Sequence[int], Sequence[int]], behind: NodePair) -> bool:
    """Whether what one graph has more leads to what both have, with none but unmatched nodes between them: behind a
    node that is matched, sizes are the same again."""
    for view, matched, some, last in zip(
        (pairing.r, pairing.c), (pairing.nodes, pairing.taken), resizing, behind, strict=True
    ):
        if some and _before(view, last, matched).isdisjoint(some):
            return False
    return True


def _crossed(pairing: Pairing, n: int, m: int) -> bool:
    """Whether a matched pair says that two nodes are not the same: it is before the one, and behind the other."""
    before, others_before = _before(pairing.r, n), _before(pairing.c, m)
    behind, others_behind = _behind(pairing.r, n), _behind(pairing.c, m)
    return any(
        (one in before and other in others_behind) or (one in behind and other in others_before)
        for one, other in pairing.nodes.items()
    )


def _before(view: GraphView, position: int, unless: Container[int] = ()) -> set[int]:
    """The nodes from which one is made, not past those of ``unless``."""
    waiting, seen = [position], set[int]()
    while waiting:
        read = {view.index.producer.get(name, -1) for _, name in view.fine.nodes[waiting.pop()].inputs}
        new = {p for p in read - seen if p in view.fine.nodes and p not in unless}
        waiting.extend(new)
        seen |= new
    return seen


def _behind(view: GraphView, position: int) -> set[int]:
    """The nodes that are made of what one makes."""
    waiting, seen = [position], set[int]()
    while waiting:
        made = view.fine.nodes[waiting.pop()].outputs
        new = {p for name in made for p, _ in view.fine.consumers.get(name, ())} - seen
        waiting.extend(new)
        seen |= new
    return seen


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
