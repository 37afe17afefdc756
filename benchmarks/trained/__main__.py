"""Fetches the networks and prints what they are."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx

from . import Files, Network, Unavailable, cache_folder, networks

HEADER = "| network | package | nodes | parameters | opset | inputs of one sample | samples | most frequent operators |"


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def row(network: Network, files: Files) -> str:
    """The network's row of the table."""
    model = onnx.load(str(files.model))
    everywhere = list(graphs(model.graph))
    nodes = [node for graph in everywhere for node in graph.node if node.op_type != "Constant"]
    constants = (a.t for graph in everywhere for node in graph.node for a in node.attribute if a.HasField("t"))
    held = [*(weight for graph in everywhere for weight in graph.initializer), *constants]
    samples = sorted(files.data.glob("*.npz"))
    with np.load(samples[0]) as sample:
        inputs = ", ".join(f"{key} {value.dtype}{list(value.shape)}" for key, value in sample.items())
    operators = ", ".join(f"{op} {count}" for op, count in Counter(node.op_type for node in nodes).most_common(5))
    opset = ", ".join(str(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    parameters = f"{sum(prod(tensor.dims) for tensor in held):,}"
    cells = (network.name, network.package, len(nodes), parameters, opset, inputs, len(samples), operators)
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trained", description=__doc__)
    names = [network.name for network in networks()]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="default: %(default)s")
    parser.add_argument("--paths", action="store_true", help="print the paths of the files instead of the table")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names)
    if unknown:
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    if not arguments.paths:
        print(HEADER, "|".join(["", *["---"] * HEADER.count(" | "), "---", ""]), sep="\n")
    missing = 0
    for network in networks():
        if arguments.names and network.name not in arguments.names:
            continue
        try:
            files = network.fetch(arguments.cache)
        except Unavailable as error:
            missing += 1
            print(f"{network.name}: {error}", file=sys.stderr)
            continue
        print("\t".join(map(str, files)) if arguments.paths else row(network, files), flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
