"""Nodes that stay FP32 in a graph whose types are narrow: those whose operators TensorRT takes in FP32 alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...graph.operators import operator
from ...graph.printable import counted

if TYPE_CHECKING:
    from ...graph.index import GraphIndex

_NEITHER = frozenset(["Celu", "MeanVarianceNormalization"])
_NOT_BF16 = frozenset(["ConvTranspose", "GRU", "GlobalLpPool", "HardSwish", "LpNormalization", "LpPool", "Mish"])
FP32_ONLY = {"fp16": _NEITHER, "bf16": _NEITHER | _NOT_BF16}
"""By format, what the parser or the builder of TensorRT for RTX 1.7 refuses: each was tried in a network of its own."""


def in_fp32(index: GraphIndex, fmt: str) -> tuple[str, ...]:
    """Names of the nodes that cannot compute in a format, in the order of the graph."""
    return tuple(n for n, node in zip(index.names, index.nodes, strict=True) if operator(node) in FP32_ONLY[fmt])


def note_of(index: GraphIndex, fmt: str, names: tuple[str, ...]) -> str:
    """What the user should know of such nodes."""
    operators = {n: node.op_type for n, node in zip(index.names, index.nodes, strict=True)}
    told = ", ".join(f"{operators[n]} {n}" for n in names[:3]) + (f" and {len(names) - 3} more" * (len(names) > 3))
    what = f"{counted(len(names), 'node')} {'stays' if len(names) == 1 else 'stay'} in FP32"
    return f"{what}, whose operator TensorRT does not take in {fmt.upper()}: {told}."
