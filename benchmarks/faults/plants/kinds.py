"""The kinds of faults. Each changes a copy of a network at one node, and says which causes would be an honest answer.

A kind is a function of the network (as an `Edit`), a node and a random generator. It returns None where it cannot be
planted, else a `Plant`. Kinds that are ``emulated`` change nothing that FP32 would notice: the reference and the
candidate run the same changed network, the candidate in emulated FP16.

Causes are the words of the report: weights, attribute, scale, wrong-op, layout, overflow, underflow, saturation, nan,
narrow-accumulator, cancellation, quantization. More than one is accepted only where the fault *is* more than one of
them: a transposed weight is another weight and another layout; a wrong constant factor is a scale and a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from layerdiff.graph.nodes import attribute

from ..edit import Edit

Tensors = Mapping[str, np.ndarray]
"""Every tensor of the network on one sample."""


@dataclass(frozen=True)
class Plant:
    """A fault in its place.

    Attributes:
        what: The fault in one line.
        causes: Honest answers.
        nodes: Nodes (of the reference) that are the fault's place, beside the node that was asked for.
        candidate_tensor: Which tensor of the candidate stands for the node's output, if not that of the same name.
        node: The fault's node where it is another than the one that was asked for.
    """

    what: str
    causes: frozenset[str]
    nodes: tuple[str, ...] = ()
    candidate_tensor: str | None = None
    node: str | None = None


Function = Callable[[Edit, onnx.NodeProto, np.random.Generator, Tensors], "Plant | None"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        ops: Operators at which it can be planted.
        emulated: The format that the candidate is emulated in; None if the candidate is a second file.
        places: How many places in each network.
    """

    name: str
    ops: frozenset[str]
    plant: Function = field(repr=False)
    emulated: str | None = None
    places: int = 3

    @property
    def title(self) -> str:
        """The first line of the function's docstring."""
        return (self.plant.__doc__ or "").split("\n")[0].rstrip(".")


def kind(*ops: str, emulated: str | None = None, places: int = 3) -> Callable[[Function], Kind]:
    """Makes a kind of a function, under the function's name."""
    return lambda function: Kind(function.__name__, frozenset(ops), function, emulated, places)


def planted(what: str, *causes: str, **more) -> Plant:
    return Plant(what, frozenset(causes), **more)


PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")


def float_weight(edit: Edit, node: onnx.NodeProto) -> np.ndarray | None:
    """The float weight of a product, on its input 1."""
    value = edit.weight(node.input[1])
    return value if value is not None and value.dtype == np.float32 and value.size > 8 else None


def fold(values: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """The weight with output channels on the first axis."""
    if node.op_type == "ConvTranspose" or node.op_type == "MatMul":
        return values.swapaxes(0, 1)
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        return values.T
    return values
