"""Nodes that stay FP32 in a graph whose types are narrow: those whose operators TensorRT takes in FP32 alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...graph.cutting.slices import original_name
from ...graph.operators import operator
from ...graph.printable import counted, few

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

_NEITHER = frozenset(["Celu", "MeanVarianceNormalization"])
_NOT_BF16 = frozenset(["ConvTranspose", "GRU", "GlobalLpPool", "HardSwish", "LpNormalization", "LpPool", "Mish"])
FP32_ONLY = {"fp16": _NEITHER, "bf16": _NEITHER | _NOT_BF16}
"""By format, what the parser or the builder of TensorRT for RTX 1.7 refuses: each was tried in a network of its own."""


def in_fp32(index: GraphIndex, fmt: str) -> dict[str, str]:
    """The nodes that cannot compute in a format: their names and operators, in the order of the graph. Layers that are
    run side by side have the names of the whole graph, as what a user keeps has."""
    nodes = zip(index.names, index.nodes, strict=True)
    return {original_name(name): node.op_type for name, node in nodes if operator(node) in FP32_ONLY[fmt]}


def note_of(nodes: Mapping[str, str], fmt: str) -> str:
    """What the user should know of such nodes."""
    what = f"{counted(len(nodes), 'node')} {'stays' if len(nodes) == 1 else 'stay'} in FP32"
    told = few([f"{op} {name}" for name, op in nodes.items()], 3)
    return f"{what}, whose operator TensorRT does not take in {fmt.upper()}: {told}."
