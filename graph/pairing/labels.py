"""Labels of nodes: one hashed from what lies before a node, one from what lies behind it.

Nodes of two graphs whose labels are equal stand in the same place. A node that is matched passes the number of its pair
on instead of its label, so that a fault breaks the labels around itself and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..operators import COMMUTATIVE
from .pairs import Pairing
from .view import GraphView, Net, NodeKind


class Labels(NamedTuple):
    """The labels of a net's nodes, by position."""

    before: dict[int, int]
    behind: dict[int, int]


def labels(pairing: Pairing, skeleton: bool) -> tuple[Labels, Labels]:
    """The labels of the reference's nodes and of the candidate's: of the skeletons, or of all nodes."""
    numbers = {m: n for n, m in pairing.nodes.items()}
    views = (pairing.r, {n: n for n in pairing.nodes}), (pairing.c, numbers)
    mine, theirs = (_labels(pairing, view, skeleton, pairs) for view, pairs in views)
    return mine, theirs


def _labels(pairing: Pairing, view: GraphView, skeleton: bool, numbers: Mapping[int, int]) -> Labels:
    """Labels of one graph; ``numbers`` gives matched nodes the number of their pair."""
    net = view.skeleton if skeleton else view.fine
    inputs = [name for name in view.index.inputs if name in pairing.inputs]
    ends = view.skeleton_outputs if skeleton else view.output_roots
    outputs = {root: [o for o in names if o in pairing.outputs] for root, names in ends.items()}
    return Labels(_before(net, inputs, numbers), _behind(net, outputs, numbers))


def _before(net: Net, inputs: list[str], numbers: Mapping[int, int]) -> dict[int, int]:
    known: dict[str, int] = {name: hash(("in", name)) for name in inputs}
    result: dict[int, int] = {}
    for position, node in net.nodes.items():
        said = [(slot, known.get(name, 0)) for slot, name in node.inputs]
        if _family(node.kind) in COMMUTATIVE:
            said = sorted(("*", value) for _, value in said)
        result[position] = label = hash((node.kind, tuple(said)))
        number = numbers.get(position)
        for i, name in enumerate(node.outputs):
            known[name] = hash(("of", i, label if number is None else ("pair", number)))
    return result


def _behind(net: Net, outputs: Mapping[str, list[str]], numbers: Mapping[int, int]) -> dict[int, int]:
    result: dict[int, int] = {}
    for position in reversed(net.nodes):
        node = net.nodes[position]
        behind = []
        for name in node.outputs:
            parts: list[tuple[str, int, int]] = [("out", 0, hash(o)) for o in outputs.get(name, ())]
            for reader, slot in net.consumers.get(name, ()):
                number = numbers.get(reader)
                where = hash("*" if net.nodes[reader].kind in COMMUTATIVE else slot)
                parts.append(("by", where, result[reader]) if number is None else ("pair", where, number))
            behind.append(hash(tuple(sorted(parts))))
        result[position] = hash((node.kind, tuple(behind)))
    return result


def _family(kind: NodeKind) -> str:
    return kind if isinstance(kind, str) else kind[0]
