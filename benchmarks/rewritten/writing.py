"""Small networks from text, files of trained networks, and changes to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

from benchmarks import trained
from benchmarks.blind.graph import Graph, attribute, named, set_attribute
from benchmarks.kit.runtime import Feed

from .expectation import Pair

IR_VERSION = 9
NEWER = 11
"""The version of the format that opset 23 needs."""
CONTRIB = "com.microsoft"


class File(Graph):
    """A network to be changed in place: its nodes are found by their name or what they make."""

    def node(self, name: str) -> onnx.NodeProto:
        """A node by its name, or by the name of a tensor that it makes.

        Raises:
            KeyError: There is none.
        """
        for node in self.nodes():
            if name == node.name or name in node.output:
                return node
        raise KeyError(name)

    def value(self, name: str) -> np.ndarray:
        """A copy of a constant.

        Raises:
            KeyError: There is none of that name.
        """
        found = self.weight(name)
        if found is None:
            raise KeyError(name)
        return found

    def add(self, name: str, values: Any) -> str:
        """Adds a constant to the main graph; returns its name."""
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def scaled(self, name: str, factor: Any) -> None:
        """Multiplies a constant; the factor may have one value for each place."""
        values = self.value(name)
        self.set_weight(name, (values * factor).astype(values.dtype))

    def before(self, node: onnx.NodeProto, *made: onnx.NodeProto) -> None:
        """Puts nodes before another one."""
        nodes = self.proto.graph.node
        place = [n.name for n in nodes].index(node.name)
        for offset, new in enumerate(made):
            nodes.insert(place + offset, new)

    def replace(self, node: onnx.NodeProto, *made: onnx.NodeProto) -> None:
        """Puts nodes in the place of another one."""
        self.before(node, *made)
        self.remove(node)

    def remove(self, *nodes: onnx.NodeProto) -> None:
        """Takes nodes out of the main graph; the last one of the name, as the new one may have it too."""
        for node in nodes:
            last = [n for n in self.proto.graph.node if n.SerializeToString() == node.SerializeToString()][-1]
            self.proto.graph.node.remove(last)

    def rewire(self, tensor: str, instead: str) -> None:
        """Makes every node that reads a tensor read another one."""
        for node in self.nodes():
            node.input[:] = [instead if name == tensor else name for name in node.input]

    def first(self, op: str, *inputs: str, name: str, **attributes: Any) -> None:
        """Puts a node behind the first input: everything that has read the input reads what the node makes."""
        self.rewire(inputs[0], name)
        self.proto.graph.node.insert(0, made(op, *inputs, name=name, **attributes))

    def domain(self, name: str = CONTRIB, version: int = 1) -> None:
        """Imports a set of operators."""
        self.proto.opset_import.append(helper.make_opsetid(name, version))


def made(op: str, *inputs: str, name: str, makes: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node that makes a tensor ``makes``, which is called like the node if nothing is said."""
    return helper.make_node(op, list(inputs), [makes or name], name=name, **attributes)


def network(text: str, opset: int = 17, **weights: Any) -> onnx.ModelProto:
    """A model from the body of a graph in ONNX's textual form; each node is called like the first tensor it makes."""
    version = IR_VERSION if opset < 23 else NEWER
    model = onnx.parser.parse_model(f'<ir_version: {version}, opset_import: ["" : {opset}]>\n{text}')
    for node in model.graph.node:
        node.name = node.output[0]
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
    # The parser gives an output without a type none at all; a float is what they all are.
    for info in model.graph.output:
        if not info.type.tensor_type.elem_type:
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return model


class Drawn:
    """Random weights and inputs: the same ones for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Normal values in FP32."""
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def weight(self, *shape: int) -> np.ndarray:
        """A weight that keeps the size of what it multiplies: (inputs, outputs), or (outputs, inputs, kernel...)."""
        terms = shape[0] if len(shape) == 2 else np.prod(shape[1:])
        return self.normal(*shape, scale=float(1 / np.sqrt(terms)))


def inputs(*shape: int, scale: float = 1.0, name: str = "x") -> list[Feed]:
    """One sample of normal values."""
    return [{name: Drawn(1).normal(*shape, scale=scale)}]


def file(proto: onnx.ModelProto) -> File:
    """A copy of a model that may be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return File(copy)


@lru_cache(maxsize=2)
def _fetched(name: str) -> tuple[onnx.ModelProto, list[Feed]]:
    files = trained.fetch(name)
    feeds = []
    for path in sorted(files.data.glob("*.npz"), key=lambda path: int(path.stem)):
        with np.load(path) as arrays:
            feeds.append(dict(arrays))
    return named(onnx.load(str(files.model))), feeds


def known(name: str, samples: int | None = None) -> Pair:
    """A trained network with its inputs, of which at most ``samples`` are used; there is no candidate yet.

    Raises:
        Unavailable: It is neither in the cache nor to be had.
    """
    proto, feeds = _fetched(name)
    return Pair(proto, None, feeds[:samples])


def beside(pair: Pair, candidate: File | onnx.ModelProto, **more: Any) -> Pair:
    """The pair with another candidate."""
    return replace(pair, candidate=candidate.proto if isinstance(candidate, File) else candidate, **more)


def pair(reference: onnx.ModelProto, candidate: File | onnx.ModelProto, feeds: list[Feed], **more: Any) -> Pair:
    """Two small networks."""
    return beside(Pair(reference, None, feeds), candidate, **more)


def with_attributes(node: onnx.NodeProto, values: Mapping[str, Any]) -> None:
    """Gives attributes other values."""
    for name, value in values.items():
        set_attribute(node, name, value)


__all__ = [
    "CONTRIB", "Drawn", "File", "attribute", "beside", "file", "inputs", "known", "made", "network", "pair",
    "set_attribute", "with_attributes",
]  # fmt: skip
