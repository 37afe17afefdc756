"""Runners for tests: a function as a runtime, and ONNX Runtime with one node that is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx
from layerdiff import Capabilities, OnnxrtRunner, Runner, RunnerError, Session
from layerdiff.graph.formats import FP32, NumberFormat
from layerdiff.graph.specs import TensorSpec
from layerdiff.runners.contract.session import SessionInfo
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class FunctionRunner(Runner):
    """A runner whose runtime is ``function(feed) -> outputs``."""

    capabilities: ClassVar[Capabilities] = Capabilities(inner_tensors=True)

    function: Callable[[dict[str, np.ndarray]], dict[str, Any]] = lambda feed: {}
    label: str = "function"
    rank: int = 45
    number_format: NumberFormat = FP32
    refuses: Exception | None = None
    gives: tuple[str, ...] | None = None
    """Names of its outputs; None: the model's."""
    opened: list[Any] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        return self.label

    @property
    def trust(self) -> int:
        return self.rank

    @property
    def arithmetic(self) -> NumberFormat:
        return self.number_format

    def open(self, model, *, fetch=(), workload=None, progress=None):
        self.opened.append(model)
        if self.refuses is not None:
            raise self.refuses
        return FunctionSession(self, model)


class FunctionSession(Session):
    info = SessionInfo(options={"speed": "slow"}, versions={"python": "3"})

    def __init__(self, runner: FunctionRunner, model) -> None:
        self.runner = runner
        self.inputs = model.inputs
        self.outputs = model.outputs
        if runner.gives is not None:
            self.outputs = tuple(TensorSpec(name, np.dtype(np.float32), None) for name in runner.gives)

    def infer(self, feed, fetch: Sequence[str] | None = None):
        found = self.runner.function(dict(feed))
        if fetch is not None:
            found = {name: {**feed, **found}[name] for name in fetch}
        return {name: np.asarray(value) for name, value in found.items()}


def node_name(node: onnx.NodeProto) -> tuple[str, bool]:
    """The name that a node has in the whole model, and whether this is a copy of it, in an exploded one."""
    name, copied, _ = node.name.partition("\x1f")
    return name, bool(copied)


def spliced(
    proto: onnx.ModelProto,
    name: str,
    behind: Callable[[onnx.GraphProto, str, str], list[onnx.NodeProto]],
    output: int = 0,
) -> onnx.ModelProto:
    """A copy in which an output of a node comes from other nodes: ``behind(graph, what the node made, the output)``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    for original in proto.graph.node:
        copy.graph.node.append(original)
        if node_name(original)[0] == name:
            made = original.output[output]
            copy.graph.node[-1].output[output] = f"{made}/raw"
            copy.graph.node.extend(behind(copy.graph, f"{made}/raw", made))
    return copy


@dataclass(frozen=True)
class Off(OnnxrtRunner):
    """ONNX Runtime with one node whose result is multiplied, or that it cannot run on given values.

    With ``late`` it opens what it refuses, and does not run it.
    """

    node: str = ""
    factor: float = 1.0
    refuses: str = ""
    late: bool = False

    @property
    def name(self) -> str:
        return "off"

    def open(self, model, *, fetch=(), workload=None, progress=None):
        refused = next((n for n in model.proto.graph.node if node_name(n) == (self.refuses, True)), None)
        error = None if refused is None else RunnerError(f"off: no kernel for {refused.op_type}.")
        if error is not None and not self.late:
            raise error

        def multiplied(graph: onnx.GraphProto, raw: str, made: str) -> list[onnx.NodeProto]:
            graph.initializer.append(numpy_helper.from_array(np.float32(self.factor), f"{made}/factor"))
            return [helper.make_node("Mul", [raw, f"{made}/factor"], [made], f"{made}/off")]

        def infer(*given):
            raise error

        proto = spliced(model.proto, self.node, multiplied)
        session = super().open(model.derive(proto), fetch=fetch, workload=workload, progress=progress)
        if error is not None:
            session.infer = infer
        return session
