"""A runner that builds before it runs, as TensorRT does, with ONNX Runtime behind it."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from layerdiff import OnnxrtRunner
from layerdiff.graph.cutting.slices import original_name
from layerdiff.graph.errors import BuildError
from layerdiff.graph.model import Model
from layerdiff.runners.contract.capabilities import Capabilities
from layerdiff.runners.contract.workload import Workload


@dataclass(frozen=True)
class Plan:
    """What `Prebuilt.build` gives: the serialized network, and the process in which it was made."""

    content: bytes
    process: int
    refitted: bool = False


@dataclass(frozen=True)
class Prebuilt(OnnxrtRunner):
    """ONNX Runtime, which builds pieces first, for the shapes of their workload alone.

    Attributes:
        refuses: A node beside which no other layer can be built.
        alone: Whether it cannot be built by itself either.
        dies: Whether a process that is to build it ends.
        replaces: Whether an engine can be given the weights of another.
        fails: A node whose weights cannot be given to an engine.
        made: See `Building.opened_on`.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        inner_tensors=True, builds_for_shapes=True, keeps_inputs=True, builds_apart=True
    )
    opened: ClassVar[Counter[str]] = Counter()
    """How many pieces were opened that were built ahead, how many of them beside the walk, and how many that were not
    built ahead."""

    refuses: str = ""
    alone: bool = False
    dies: bool = False
    replaces: bool = False
    fails: str = ""
    made: Plan | None = None

    @property
    def refits(self) -> bool:
        return self.replaces

    def refit(self, model: Model, made: Plan, before: Model) -> Plan:
        assert made.content == before.serialized()
        nodes, old = model.proto.graph.node, before.proto.graph.node
        assert [(n.op_type, *n.input, *n.output) for n in nodes] == [(n.op_type, *n.input, *n.output) for n in old]
        if self.fails in [original_name(node.name) for node in nodes]:
            raise BuildError(f"{self.fails} keeps its weights.")
        return Plan(model.serialized(), os.getpid(), refitted=True)

    def build(self, model: Model, workload: Workload, refittable: bool = False) -> Plan:
        nodes = [original_name(node.name) for node in model.proto.graph.node]
        if self.refuses in nodes:
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.alone or len(nodes) > 1:
                raise BuildError(f"no kernel for {self.refuses}.")
        assert workload.samples is None
        assert {spec.name for spec in model.inputs} <= {*workload.shapes} or not model.derived
        return Plan(model.serialized(), os.getpid())

    def opened_on(self, made: Plan) -> Prebuilt:
        return replace(self, made=made)

    def open(
        self, model: Model, *, fetch: Sequence[str] = (), workload: Workload | None = None, progress: Any = None
    ) -> Any:
        if self.made is not None:
            assert self.made.process != os.getpid()
            assert self.made.content == model.serialized()
            self.opened["refitted" if self.made.refitted else "ahead"] += 1
            self.opened["beside"] += threading.current_thread() is not threading.main_thread()
        elif model.derived:
            self.opened["here"] += 1
            Prebuilt.build(self, model, replace(workload or Workload(), samples=None))
        session = OnnxrtRunner(threads=1).open(model, fetch=fetch)
        fed: dict[str, Any] = {}

        def run(feed: dict[str, Any]) -> dict[str, Any]:
            fed.update(feed)
            return session.infer(fed)

        return run if model.derived else session
