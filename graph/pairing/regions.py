"""Where nodes of two graphs do not correspond one to one, but the tensors around them do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..nodes import attribute_string
from ..operators import AFFINE_STEPS, LANDMARKS, POINTWISE, SCATTERS, SEVERAL_STEPS, operator
from .affine import affine, distance
from .changes import AttributeChange, OperatorChange
from .differences import Difference, node_differences, op_names
from .folds import Folds
from .groups import Groups
from .merged import OTHER_MAP
from .pairs import Pairing
from .view import GraphView

Place = tuple[bool, int]
"""Whether a node is in the reference, and its position."""


PADDING = "padding"
"""What two window operators differ in that pad with other values: one of them by a Pad before it."""
ZEROS = "zeros"
"""What a window operator pads with."""


@dataclass(frozen=True)
class _Added:
    """What a Pad adds.

    Attributes:
        outer: To batch and channels.
        inner: To the axes that a window behind it runs over.
        filled: With what: zeros, or the mode of the Pad.
    """

    outer: tuple[int, ...]
    inner: tuple[int, ...]
    filled: str


@dataclass(frozen=True)
class Region:
    """Nodes of the two graphs that do the same between matched tensors, in different ways.

    Attributes:
        nodes: Positions in the reference; empty where the candidate has something more.
        candidate_nodes: Positions in the candidate; empty where it has nothing there.
        outputs: Matched tensors that are made, as (reference, candidate).
    """

    nodes: tuple[int, ...]
    candidate_nodes: tuple[int, ...]
    outputs: tuple[tuple[str, str], ...]


def regions(pairing: Pairing, pairs: Mapping[str, str], folded: Folds, partial: Mapping[int, int]) -> list[Region]:
    """What is left when matched and folded nodes are taken away, grouped.

    Args:
        pairing: The matched nodes.
        pairs: Tensors that stand for each other.
        folded: What was folded.
        partial: Matched nodes of which one does more than the other.
    """
    left = {n for n in pairing.r.live if n not in pairing.nodes and n not in folded.nodes} | set(partial)
    right = {m for m in pairing.c.live if m not in pairing.taken and m not in folded.candidate_nodes}
    right |= set(partial.values())
    groups = Groups[Place]([*((True, n) for n in sorted(left)), *((False, m) for m in sorted(right))])
    for n, m in partial.items():
        groups.join((True, n), (False, m))
    matched = set(pairs), set(pairs.values())
    for mine, view, nodes, known in ((True, pairing.r, left, matched[0]), (False, pairing.c, right, matched[1])):
        for p in sorted(nodes):
            for _, name in view.fine.nodes[p].inputs:
                q = view.index.producer.get(name, -1)
                if q in nodes and name not in known and not _shared_integers(view, name):
                    groups.join((mine, p), (mine, q))
    for a, b in pairs.items():
        p, q = pairing.r.index.producer.get(a, -1), pairing.c.index.producer.get(b, -1)
        if p in left and q in right:
            groups.join((True, p), (False, q))
    found = [_region(pairing, pairs, group) for group in groups.all()]
    return sorted(found, key=lambda region: (region.nodes or (1 << 30,), region.candidate_nodes))


def _shared_integers(view: GraphView, name: str) -> bool:
    """Whether a tensor is integers that several nodes read: the indices that all blocks pick by."""
    spec = view.index.specs.get(name)
    return len(view.fine.consumers.get(name, ())) > 1 and spec is not None and spec.dtype.kind in "iu"


def _region(pairing: Pairing, pairs: Mapping[str, str], group: Iterable[Place]) -> Region:
    nodes = sorted(p for mine, p in group if mine)
    others = sorted(p for mine, p in group if not mine)
    back: dict[str, str] = {}
    for a, b in pairs.items():
        back.setdefault(b, a)
    outputs = {(a, pairs[a]): None for n in nodes for a in pairing.r.fine.nodes[n].outputs if a in pairs}
    outputs |= {(back[b], b): None for m in others for b in pairing.c.fine.nodes[m].outputs if b in back}
    return Region(tuple(nodes), tuple(others), tuple(outputs))


def region_difference(pairing: Pairing, pairs: Mapping[str, str], region: Region) -> Difference | None:
    """What one graph has between two matched tensors where the other has none, or others; None if they do the same.
    ``pairs``: tensors that stand for each other."""
    if not region.outputs:
        return _between(pairing, region)
    if _same_scaling(pairing, region):
        return None
    region = _beyond_both(pairing, pairs, region)
    if region.nodes and region.candidate_nodes:
        main = max(region.nodes, key=lambda p: (pairing.r.forms[p].family in LANDMARKS, _works(pairing.r, p), p))
        place = main, region.candidate_nodes[-1]
    elif region.nodes:
        place = region.nodes[-1], pairing.c.index.producer.get(region.outputs[-1][1], -1)
    else:
        place = pairing.r.index.producer.get(region.outputs[-1][0], -1), region.candidate_nodes[-1]
    mine, theirs = op_names(pairing.r.index, region.nodes), op_names(pairing.c.index, region.candidate_nodes)
    return Difference(*place, OperatorChange(mine, theirs))


def _beyond_both(pairing: Pairing, pairs: Mapping[str, str], region: Region) -> Region:
    """A region without the nodes with which both graphs begin it, and those with which both end it."""
    if not region.nodes or not region.candidate_nodes:
        return region
    known, left, right = dict(pairs), list(region.nodes), list(region.candidate_nodes)
    for name, _ in region.outputs:
        known.pop(name, None)
    for n in region.nodes:
        m = next((m for m in right if _alike(pairing, known, n, m)), None)
        if m is not None:
            known[pairing.r.first(n)] = pairing.c.first(m)
            left.remove(n)
            right.remove(m)
    waiting = list(region.outputs)
    while waiting and left and right:
        made, twin = waiting.pop()
        n, m = pairing.r.index.producer.get(made, -1), pairing.c.index.producer.get(twin, -1)
        before = _ends_alike(pairing, known, n, m) if n in left and m in right else None
        if before is not None:
            left.remove(n)
            right.remove(m)
            waiting.append(before)
    return replace(region, nodes=tuple(left), candidate_nodes=tuple(right)) if left or right else region


def _ends_alike(pairing: Pairing, known: Mapping[str, str], n: int, m: int) -> tuple[str, str] | None:
    """What two nodes read in one input, where that is all in which they can differ, and nobody else reads it."""
    mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    if [slot for slot, _ in mine.inputs] != [slot for slot, _ in theirs.inputs] or not _does_the_same(pairing, n, m):
        return None
    both = [(a, b) for (_, a), (_, b) in zip(mine.inputs, theirs.inputs, strict=True) if known.get(a) != b]
    if len(both) != 1:
        return None
    readers = (len(view.fine.consumers.get(x, ())) for view, x in zip((pairing.r, pairing.c), both[0], strict=True))
    return both[0] if all(count == 1 for count in readers) else None


def _alike(pairing: Pairing, known: Mapping[str, str], n: int, m: int) -> bool:
    """Whether two nodes make the same of the same tensors. ``known``: tensors that stand for each other."""
    mine, theirs = pairing.r.fine.nodes[n], pairing.c.fine.nodes[m]
    same = [(slot, known.get(name)) for slot, name in mine.inputs] == theirs.inputs
    return same and _does_the_same(pairing, n, m)


def _does_the_same(pairing: Pairing, n: int, m: int) -> bool:
    """Whether two nodes make the same, given the same."""
    if pairing.r.fine.nodes[n].kind != pairing.c.fine.nodes[m].kind or pairing.r.forms[n].op != pairing.c.forms[m].op:
        return False
    place = pairing.r.index, n, pairing.r.forms[n], pairing.c.index, m, pairing.c.forms[m]
    return not node_differences(*place)


def scattered_otherwise(pairing: Pairing, region: Region) -> Difference | None:
    """What the scattering nodes of a region do with values that come to one place, where all of one side do something
    else than all of the other."""
    sides = []
    for view, nodes in ((pairing.r, region.nodes), (pairing.c, region.candidate_nodes)):
        found = [p for p in nodes if operator(view.index.nodes[p]) in SCATTERS]
        sides.append({p: attribute_string(view.index.nodes[p], "reduction", "none") for p in found})
    mine, theirs = sides
    ways, others = set(mine.values()), set(theirs.values())
    if len(ways) != 1 or len(others) != 1 or ways == others:
        return None
    *names, last = (" ".join(name) for name in op_names(pairing.c.index, theirs))
    of = f"{', '.join(names)} and {last}" if names else last
    return Difference(max(mine), max(theirs), AttributeChange("reduction", ways.pop(), others.pop(), of), "reduction")


def _between(pairing: Pairing, region: Region) -> Difference | None:
    """What one graph has between a tensor that both have and a node that reads it, and makes of other tensors, too: a
    factor that follows from the number of the iteration."""
    if region.nodes and region.candidate_nodes:
        return None
    ours = bool(region.nodes)
    view, other = (pairing.r, pairing.c) if ours else (pairing.c, pairing.r)
    alone = region.nodes or region.candidate_nodes
    made = {name for p in alone for name in view.fine.nodes[p].outputs}
    read = {name for p in alone for _, name in view.fine.nodes[p].inputs} - made
    if len(read) < 2:
        return None
    for n, m in sorted(pairing.nodes.items()):
        reader, twin = (n, m) if ours else (m, n)
        slots = {slot for slot, name in view.fine.nodes[reader].inputs if name in made}
        passed = (name for slot, name in other.fine.nodes[twin].inputs if slot in slots)
        if any(pairing.paired(*((r, name) if ours else (name, r))) for name in passed for r in read):
            names = op_names(view.index, alone)
            place = (alone[-1], m) if ours else (n, alone[-1])
            return Difference(*place, OperatorChange(names, ()) if ours else OperatorChange((), names))
    return None


def _works(view: GraphView, position: int) -> bool:
    """Whether a node adds up what it computes itself, as a normalization does: not an activation behind it."""
    return view.forms[position].op in SEVERAL_STEPS - POINTWISE


def _same_scaling(pairing: Pairing, region: Region) -> bool:
    """Whether both sides are scalings and shifts of each channel, and the same ones up to rounding."""
    maps = []
    for view, nodes in ((pairing.r, region.nodes), (pairing.c, region.candidate_nodes)):
        if not nodes or any(view.forms[p].op not in AFFINE_STEPS or len(view.forms[p].data) != 1 for p in nodes):
            return False
        maps.append(affine(view.index, nodes, view.forms))
    return maps[0] is not None and maps[1] is not None and distance(maps[0], maps[1]) < OTHER_MAP


def padding_moved(pairing: Pairing, n: int, m: int) -> tuple[set[int], AttributeChange | None]:
    """The Pads before two window operators of which one alone has a Pad, or each one of its own, and how the two pad
    otherwise with what stands before them; no Pads where that is not so, and no change where both pad alike."""
    total: list[list[int]] = []
    filled: list[str] = []
    pads: list[str] = []
    used: list[tuple[GraphView, int, int]] = []
    for view, p, matched in ((pairing.r, n, pairing.nodes), (pairing.c, m, pairing.taken)):
        own = view.forms[p].settings.get("pads")
        if not own or view.forms[p].family not in ("Conv", "MaxPool", "AveragePool"):
            return set(), None
        before = view.index.producer.get(view.fine.nodes[p].inputs[0][1], -1)
        extra = _added(view, p, before, len(own) // 2) if before not in matched else None
        filled.append(ZEROS)
        pads.append("")
        if extra is not None:
            if any(extra.outer):  # batch and channels, which no window operator pads
                return set(), None
            if extra.filled != ZEROS and any(own):  # in two ways
                return set(), None
            own = [a + b for a, b in zip(own, extra.inner, strict=True)]
            filled[-1] = extra.filled
            pads[-1] = f"Pad {view.index.names[before]}" if extra.filled != ZEROS else ""
            used.append((view, before, p))
        total.append(own)
    change = None
    if filled[0] != filled[1]:
        if total[0] != total[1] or not any(total[0]):
            return set(), None
        change = AttributeChange(PADDING, filled[0], filled[1], given=(pads[0], pads[1]))
    elif used and total[0] != total[1]:
        view, *together = used[-1]
        of = " and ".join(view.index.names[p] for p in together)
        change = AttributeChange("pads", total[0], total[1], f"{of} together")
    return {before for _, before, _ in used}, change


def _added(view: GraphView, window: int, before: int, axes: int) -> _Added | None:
    """What a Pad in front of a convolution adds."""
    step = view.forms.get(before)
    if step is None or step.op != "Pad" or view.forms[window].family != "Conv":
        return None
    pads, mode = step.settings.get("pads"), step.settings.get("mode", "constant")
    filled = mode if mode != "constant" else ZEROS if not step.settings["constant_value"] else ""
    if not filled or not isinstance(pads, list) or len(pads) != 2 * (axes + 2):
        return None
    first, last = pads[: axes + 2], pads[axes + 2 :]
    return _Added((*first[:2], *last[:2]), (*first[2:], *last[2:]), filled)
