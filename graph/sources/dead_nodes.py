"""Nodes that no output of a graph depends on: what an edit or an exporter has left behind.

Runtimes leave them out. Their tensors have the names of tensors that the network no longer reads, by which another
file's tensors would be matched with them.
"""

from __future__ import annotations

import onnx

from ..nodes import reads


def dead_nodes(graph: onnx.GraphProto) -> list[int]:
    """Positions of the nodes that no output depends on, in a graph whose nodes are in order."""
    needed, dead = {output.name for output in graph.output}, []
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if needed.isdisjoint(node.output):
            dead.append(position)
        else:
            needed.update(reads(node))
    return dead


def drop_nodes(graph: onnx.GraphProto, positions: list[int]) -> None:
    """Takes nodes out of a graph, the last ones first."""
    for position in positions:
        del graph.node[position]
