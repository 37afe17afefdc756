"""A graph and the bodies of If, Loop and Scan inside it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from layerdiff.graph.nodes import subgraphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies inside it, outer ones first."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from graphs(body)
