"""Convolutions of a blocked layout, as ONNX Runtime writes them at its highest level of optimization.

Their tensors hold channels in blocks, filled up with zeros to whole ones: (N, C / block, H, W, block), under a shape
that says (N, C, H, W). Filters are stored so, too: (O / block, I / block, H, W, block of I, block of O), or
(O / block, I, H, W, block of O) where the input is none of blocks and where each channel is its own group. How large a
block is follows from the processor that the file was written for; no file says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx

from .index import GraphIndex
from .nodes import attribute_int
from .operators import CONTRIB_DOMAIN
from .writer import GraphWriter, Names

if TYPE_CHECKING:
    from .model import Model

DOMAIN = "com.microsoft.nchwc"
"""Where the operators of the blocked layout are."""
INTO, OUT_OF = "ReorderInput", "ReorderOutput"
"""The operators that put channels into blocks, and back."""
BLOCKS = (16, 8)
"""How large a block may be."""
ALIGNED = 4
"""Numbers of channels that can be put into blocks are multiples of this."""
_SUFFIX = "_nchwc"
"""What ONNX Runtime puts behind the name of the tensor that a node makes."""
_NORMALIZED = "_bn"
"""What it puts there before, where a convolution of one element is written for a BatchNormalization."""


def is_blocked(node: onnx.NodeProto) -> bool:
    """Whether a node is one of the blocked layout."""
    return node.domain == DOMAIN


def plain_name(node: onnx.NodeProto) -> str:
    """What the tensor was called that a node of the blocked layout makes, or that it adds another one to; empty where
    nothing tells."""
    if not is_blocked(node) or not node.name.endswith(_SUFFIX):
        return ""
    name = node.name.removesuffix(_SUFFIX)
    return name.removesuffix(_NORMALIZED) if is_scaling(node) else name


def known_as(node: onnx.NodeProto) -> tuple[str, str]:
    """The operator and the domain of what computes the same of plain tensors, element for element."""
    if not is_blocked(node):
        return node.op_type, node.domain
    if node.op_type == "Conv":
        return "FusedConv", CONTRIB_DOMAIN
    return ("Identity" if node.op_type in (INTO, OUT_OF) else node.op_type), ""


def is_scaling(node: onnx.NodeProto) -> bool:
    """Whether a node is a BatchNormalization, written as a convolution that scales and shifts each channel."""
    return is_blocked(node) and node.op_type == "Conv" and node.name.endswith(_NORMALIZED + _SUFFIX)


def blocked_tensors(index: GraphIndex) -> dict[str, int]:
    """The tensors of the blocked layout in a graph, and how many channels each has."""
    return _Channels(index).found if any(map(is_blocked, index.nodes)) else {}


class _Channels:
    """Follows the channels of blocked tensors through a graph: there to where they are put back, for which the graph
    says how many they are; else those of which a filter has not only zeros."""

    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.found: dict[str, int] = {}
        self.known: dict[str, int] = {}
        for node in reversed(index.nodes):
            self._back(node)
        for node in index.nodes:
            blocks_made = node.op_type != OUT_OF if is_blocked(node) else any(name in self.found for name in node.input)
            if blocks_made and node.output:
                self.found[node.output[0]] = self._made(node)

    def _back(self, node: onnx.NodeProto) -> None:
        """Takes down what is known of a node's inputs."""
        count = self.known.get(node.output[0]) if node.output else None
        if not is_blocked(node):
            if count is not None and node.op_type != "Concat":
                self.known.update(dict.fromkeys(node.input, count))
        elif node.op_type == OUT_OF:
            self.known[node.input[0]] = attribute_int(node, "channels", 0)
        elif count is not None and node.op_type == "Conv":
            self.known.update(dict.fromkeys(list(node.input)[3:4], count))
        elif count is not None and node.op_type != INTO:
            self.known[node.input[0]] = count

    def _made(self, node: onnx.NodeProto) -> int:
        read = [self.found[name] for name in node.input if name in self.found]
        known = self.known.get(node.output[0])
        if known:
            return known
        if node.op_type == "Concat":
            return sum(read)
        if is_blocked(node) and node.op_type == "Conv":
            return self.found.get(node.input[3], 0) if len(node.input) > 3 else self._filters(node)
        if read:
            return read[0]
        maker = self.index.producer.get(node.input[0])
        if maker is not None and _is_back(self.index.nodes[maker]):
            return attribute_int(self.index.nodes[maker], "channels", 0)
        spec = self.index.specs.get(node.output[0])
        size = None if spec is None or spec.shape is None or len(spec.shape) < 2 else spec.shape[1]
        return size if isinstance(size, int) else 0

    def _filters(self, node: onnx.NodeProto) -> int:
        """How many filters a convolution has, without those that fill up a block: zeros, of which nobody reads what
        they make."""
        weight = self.index.weight(node.input[1])
        if weight is None:
            return 0
        bias = self.index.weight(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        least = max(weight.shape[0] - max(BLOCKS) + 1, 0 if bias is None else _filled(bias))
        blocked = node.input[0] in self.found
        made = node.output[0]
        readers = [r for p in self.index.consumers.get(made, ()) if (r := self.index.nodes[p]).input[0] == made]
        counts = []
        for block in blocks(weight, blocked):
            plain = plain_filters(weight, block, not blocked or is_depthwise(node, weight))
            counts.append(max(_filled(plain), *(self._read(reader, block) for reader in readers), 0))
        return max(min(counts, default=0), least)

    def _read(self, node: onnx.NodeProto, block: int) -> int:
        """How many channels a convolution multiplies by something else than zeros."""
        weight = self.index.weight(node.input[1]) if is_blocked(node) and node.op_type == "Conv" else None
        if weight is None or attribute_int(node, "group", 1) > 1 or block not in blocks(weight, blocked=True):
            return 0
        return _filled(plain_filters(weight, block, outputs_only=False).swapaxes(0, 1))


def _filled(values: np.ndarray) -> int:
    """The length of an array along its first axis, without the zeros at its end."""
    filled = np.flatnonzero(np.any(values.reshape(len(values), -1) != 0, axis=1))
    return int(filled[-1]) + 1 if filled.size else 0


def is_depthwise(node: onnx.NodeProto, weight: np.ndarray) -> bool:
    """Whether each channel of a convolution is a group of its own."""
    return weight.shape[1] == 1 and attribute_int(node, "group", 1) > 1


def blocks(weight: np.ndarray, blocked: bool) -> Iterator[int]:
    """How large a block may be, to judge by filters. ``blocked``: whether the convolution's input is one of blocks."""
    sizes = weight.shape[:2] if blocked and weight.shape[1] > 1 else weight.shape[:1]
    return (block for block in BLOCKS if all(size % block == 0 for size in sizes))


def plain_filters(weight: np.ndarray, block: int, outputs_only: bool) -> np.ndarray:
    """Filters as ONNX has them, with those that fill up a block.

    Args:
        weight: What the file holds.
        block: How large a block is.
        outputs_only: Whether it has no blocks of input channels.
    """
    out, read, high, wide = weight.shape
    if outputs_only:
        laid = weight.reshape(out // block, read, high, wide, block).transpose(0, 4, 1, 2, 3)
    else:
        laid = weight.reshape(out // block, read // block, high, wide, block, block).transpose(0, 5, 1, 4, 2, 3)
    return laid.reshape(weight.shape)


def with_plain_borders(model: Model) -> Model:
    """The same network, bit by bit, with a tensor of a plain layout wherever operators hand each other blocks: the
    model itself where they never do."""
    index = model.index
    handed = {name: count for name, count in blocked_tensors(index).items() if count and not count % ALIGNED}
    if not handed:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(index.proto)
    writer = GraphWriter(Names.of(index.graph), index.opset.get("", 1))
    again: dict[str, str] = {}
    back = {node.input[0]: node for node in proto.graph.node if _is_back(node) and node.input[0] in handed}
    early = {node.output[0] for node in back.values()}
    for node in list(proto.graph.node):
        if node.output[0] in early:  # written behind what makes the blocks
            continue
        node.input[:] = [again.get(name, name) for name in node.input]
        writer.nodes.append(node)
        name = node.output[0]
        if name not in handed or node.op_type == INTO:
            continue
        if name in back:
            writer.nodes.append(back[name])
            plain = back[name].output[0]
        else:
            wanted = "" if len(node.input) > 3 else plain_name(node)
            plain = writer.names.fresh(wanted or f"{name}__plain")
            writer.emit(OUT_OF, [name], plain, domain=DOMAIN, channels=handed[name], channels_last=0)
        if set(index.consumers.get(name, ())) != {index.producer.get(plain)}:
            again[name] = writer.emit(INTO, [plain], domain=DOMAIN, channels_last=0)
    writer.into(proto.graph)
    return model.derive(proto)


def _is_back(node: onnx.NodeProto) -> bool:
    return is_blocked(node) and node.op_type == OUT_OF and not attribute_int(node, "channels_last", 0)
