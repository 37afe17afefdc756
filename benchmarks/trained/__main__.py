"""Fetches the networks and prints what they are."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import onnx

from ..kit.bodies import graphs
from ..kit.pages import table
from . import Files, Network, Unavailable, cache_folder, networks

HEAD = ("network", "package", "nodes", "parameters", "opset", "inputs of one sample", "samples", "operators")


def row(network: Network, files: Files) -> tuple[object, ...]:
    """What the network is, in the columns of `HEAD`: nodes in bodies count, and the five most frequent operators."""
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
    return (network.name, network.package, len(nodes), parameters, opset, inputs, len(samples), operators)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trained", description=__doc__)
    known = {network.name: network for network in networks()}
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="default: %(default)s")
    parser.add_argument("--commands", action="store_true", help="print commands, to be completed, instead of the table")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(known)
    if unknown:
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    fetched = {}
    for name in arguments.names or known:
        print(f"fetching {name}", file=sys.stderr)
        try:
            fetched[name] = known[name].fetch(arguments.cache)
        except Unavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
    if arguments.commands:
        for name, files in fetched.items():
            print(shlex.join(["compare", *known[name].arguments(files)]))
    else:
        print(table(HEAD, (row(known[name], files) for name, files in fetched.items())))
    return 0 if len(fetched) == len(arguments.names or known) else 1


if __name__ == "__main__":
    sys.exit(main())
