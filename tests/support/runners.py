"""Runners for tests: a function as a runtime, and ONNX Runtime with one node that is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from layerdiff import OnnxrtRunner, Runner, RunnerError, Session
from layerdiff.graph.formats import FP32, NumberFormat
from layerdiff.runners.contract.session import SessionInfo
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class FunctionRunner(Runner):
    """A runner whose runtime is ``function(feed) -> outputs``."""

    function: Callable[[dict[str, np.ndarray]], dict[str, Any]] = lambda feed: {}
    label: str = "function"
    rank: int = 45
    number_format: NumberFormat = FP32
    refuses: Exception | None = None
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

    def infer(self, feed, fetch: Sequence[str] | None = None):
        found = self.runner.function(dict(feed))
        if fetch is not None:
            found = {name: {**feed, **found}[name] for name in fetch}
        return {name: np.asarray(value) for name, value in found.items()}


@dataclass(frozen=True)
class Off(OnnxrtRunner):
    """ONNX Runtime with one node whose result is multiplied, or that it cannot run on given values."""

    node: str = ""
    factor: float = 1.0
    refuses: str = ""

    @property
    def name(self) -> str:
        return "off"

    def open(self, model, *, fetch=(), workload=None, progress=None):
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        nodes = list(proto.graph.node)
        del proto.graph.node[:]
        for original in nodes:
            proto.graph.node.append(original)
            name, cut_off, _ = original.name.partition("\x1f")
            if cut_off and name == self.refuses:
                raise RunnerError(f"off: no kernel for {original.op_type}.")
            if name == self.node:
                output = original.output[0]
                proto.graph.node[-1].output[0] = f"{output}/raw"
                factor = f"{output}/factor"
                proto.graph.initializer.append(numpy_helper.from_array(np.float32(self.factor), factor))
                proto.graph.node.append(helper.make_node("Mul", [f"{output}/raw", factor], [output], f"{output}/off"))
        return super().open(model.derive(proto), fetch=fetch, workload=workload, progress=progress)
