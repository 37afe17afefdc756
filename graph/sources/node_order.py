"""Nodes in the order in which they can run.

ONNX requires that order of a graph, and ONNX Runtime runs files all the same that do not keep it.
"""

from __future__ import annotations

import heapq

import onnx

from ..nodes import reads, subgraphs


def is_ordered(graph: onnx.GraphProto) -> bool:
    """Whether every node of a graph, and of the bodies inside, comes after those that make what it reads."""
    later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if not later.isdisjoint(reads(node)) or not all(map(is_ordered, subgraphs(node))):
            return False
        later.difference_update(node.output)
    return True


def put_in_order(graph: onnx.GraphProto) -> None:
    """Moves the nodes of a graph, and of the bodies inside, behind those that make what they read. The order stays the
    same as far as it can; nodes that wait for each other in a circle stay behind all others."""
    for node in graph.node:
        for body in subgraphs(node):
            put_in_order(body)
    maker = {name: position for position, node in enumerate(graph.node) for name in node.output if name}
    waiting: list[int] = []
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(graph.node):
        needed = {maker[name] for name in reads(node) if name in maker} - {position}
        waiting.append(len(needed))
        for other in needed:
            readers.setdefault(other, []).append(position)
    ready = [position for position, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for reader in readers.get(position, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    placed = set(order)
    order += [position for position in range(len(waiting)) if position not in placed]
    nodes = []
    for position in order:
        node = onnx.NodeProto()
        node.CopyFrom(graph.node[position])
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
