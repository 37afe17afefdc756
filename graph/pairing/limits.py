"""Limits in a row: a Relu in front of a Clip, which the other file has folded into the Clip's minimum.

Nodes of which one stands behind the other limit values to what both let through. Where one file alone has some of them
beside a Clip that both have, these rows are compared, and each is one layer: what a bound of one node becomes in the
other is nothing that differs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..index import GraphIndex
from .changes import AttributeChange
from .constants import constant_value
from .differences import same_setting
from .pairs import Pairing
from .view import GraphView

Bounds = tuple[float, float]


@dataclass(frozen=True)
class LimitsInARow:
    """Two Clips, of which at least one has other limits beside it that the other graph has not.

    Attributes:
        nodes: Positions of the reference's nodes, in the order in which they limit.
        candidate_nodes: The same of the candidate's.
        changes: How the bounds of the rows differ.
    """

    nodes: tuple[int, ...]
    candidate_nodes: tuple[int, ...]
    changes: tuple[AttributeChange, ...]

    def corrected(self, reference: GraphIndex, candidate: GraphIndex, pairs: dict[str, str]) -> None:
        """Pairs what goes into the rows and what comes out of them, and nothing between.

        Args:
            reference, candidate: The graphs.
            pairs: Tensors that stand for each other, changed in place.
        """
        ends = []
        for index, nodes in ((reference, self.nodes), (candidate, self.candidate_nodes)):
            inner = {index.nodes[p].output[0] for p in nodes}
            ends.append((_given(index, nodes[0]), index.nodes[nodes[-1]].output[0], inner))
        (given, made, inner), (its_given, its_made, its_inner) = ends
        for name in [a for a, b in pairs.items() if a in inner or b in its_inner]:
            del pairs[name]
        pairs[given], pairs[made] = its_given, its_made


def limits_in_rows(pairing: Pairing) -> Iterator[LimitsInARow]:
    """The rows of which the bounds say more than those of the Clips alone."""
    for n, m in sorted(pairing.nodes.items()):
        if pairing.r.forms[n].op != "Clip" or pairing.c.forms[m].op != "Clip":
            continue
        row, other = _row(pairing.r, n, pairing.nodes), _row(pairing.c, m, pairing.taken)
        own, its_own = limits(pairing.r, n), limits(pairing.c, m)
        if len(row) == len(other) == 1 or own is None or its_own is None:
            continue
        whole, its_whole = _through(pairing.r, row), _through(pairing.c, other)
        alike = [same_setting(x, y) for x, y in zip(whole, its_whole, strict=True)]
        differ = [not same_setting(x, y) for x, y in zip(own, its_own, strict=True)]
        if any(a and b for a, b in zip(alike, differ, strict=True)):
            view, nodes = (pairing.r, row) if len(row) > 1 else (pairing.c, other)
            *names, last = (view.index.names[p] for p in nodes)
            together = f"{', '.join(names)} and {last} together"
            changes = []
            for name, x, y, plain, same in zip(
                ("min", "max"), whole, its_whole, zip(own, its_own, strict=True), alike, strict=True
            ):
                if not same:
                    changes.append(AttributeChange(name, _shown(x), _shown(y), "" if (x, y) == plain else together))
            yield LimitsInARow(row, other, tuple(changes))


def limits(view: GraphView, position: int) -> Bounds | None:
    """The least and the greatest value that a node lets through; None of a node that limits nothing, or to what is
    computed."""
    form = view.forms[position]
    if len(form.data) != 1:
        return None
    if form.op == "Relu":
        return 0.0, math.inf
    if form.op == "Clip" and not {"min", "max"} & form.weights.keys():
        return float(form.settings.get("min", -math.inf)), float(form.settings.get("max", math.inf))
    if form.op not in ("Min", "Max") or len(form.weights) != 1:
        return None
    (value,) = (constant_value(view.index, name) for name in form.weights.values())
    if value is None or value.size != 1:
        return None
    end = float(value.reshape(-1)[0])
    return (-math.inf, end) if form.op == "Min" else (end, math.inf)


def _row(view: GraphView, position: int, matched: Collection[int]) -> tuple[int, ...]:
    """A Clip with the nodes before and behind it that limit, too, and that the other graph has not."""
    row = [position]
    while (before := view.index.producer.get(_given(view.index, row[0]), -1)) not in matched:
        if before not in view.forms or limits(view, before) is None or not _read_once(view.index, before):
            break
        row.insert(0, before)
    while _read_once(view.index, row[-1]):
        (behind,) = view.index.consumers[view.index.nodes[row[-1]].output[0]]
        if behind in matched or behind not in view.forms or limits(view, behind) is None:
            break
        row.append(behind)
    return tuple(row)


def _given(index: GraphIndex, position: int) -> str:
    """What a node of one tensor limits."""
    names = [name for name in index.nodes[position].input if name]
    return next((name for name in names if constant_value(index, name) is None), names[0])


def _read_once(index: GraphIndex, position: int) -> bool:
    made = index.nodes[position].output[0]
    return made not in index.outputs and len(index.consumers.get(made, ())) == 1


def _through(view: GraphView, row: Collection[int]) -> Bounds:
    """What comes through all nodes of a row."""
    low, high = -math.inf, math.inf
    for bounds in (limits(view, p) for p in row):
        assert bounds is not None
        low, high = (min(max(end, bounds[0]), bounds[1]) for end in (low, high))
    return low, high


def _shown(end: float) -> float | None:
    """A bound as an attribute has it: None where there is none."""
    return end if math.isfinite(end) else None
