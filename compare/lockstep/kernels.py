"""Layers by a runtime's own kernels, where it tells them: groups as it fused them, the rest as they are estimated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ...graph.cutting.fusion import Group, fused_groups

if TYPE_CHECKING:
    from ...graph.index import GraphIndex


def kernel_groups(index: GraphIndex, kernels: Sequence[Collection[int]]) -> list[Group]:
    """Every node in one group, none of which is cut by a kernel's border.

    A node that no kernel names was folded away (Identity, Reshape, a BatchNormalization in a convolution's weights) or
    is not told of: it stays with the named nodes of its estimated group, or in that group. Where several tensors leave
    a kernel, each of them ends a group.

    Args:
        index: The graph.
        kernels: Positions of nodes that run as one kernel, each node in at most one of them.
    """
    owner: dict[int, int] = {}
    for number, kernel in enumerate(kernels):
        owner.update(dict.fromkeys(kernel, number))
    for number, group in enumerate(fused_groups(index), len(kernels)):
        last = next((owner[p] for p in group.nodes if p in owner), number)
        for position in group.nodes:
            last = owner.setdefault(position, last)
    members: dict[int, list[int]] = {}
    for position in sorted(owner):
        members.setdefault(owner[position], []).append(position)
    found = [group for nodes in members.values() for group in _ending(index, nodes)]
    return sorted(found, key=lambda group: group.nodes[-1])


def _ending(index: GraphIndex, members: Sequence[int]) -> list[Group]:
    """The nodes of one kernel, divided behind each node that others read."""
    outputs, own = set(index.outputs), set(members)
    groups, nodes = [], []
    for position in members:
        nodes.append(position)
        names = [n for n in index.nodes[position].output if n]
        read = any(c not in own for n in names for c in index.consumers.get(n, ()))
        if read or not outputs.isdisjoint(names) or position == members[-1]:
            groups.append(Group(tuple(nodes), nodes[-1]))
            nodes = []
    return groups
