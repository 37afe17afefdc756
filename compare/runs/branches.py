"""Branches of an If that no sample takes: what stands in them was not compared."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx

from ...graph.cutting.slices import backward, slice_model
from ...graph.nodes import attribute
from ...graph.operators import CONTROL_FLOW, FLAT, operator
from ..notices import branch_not_run
from ..sides import other_file
from .samples import feed_of

if TYPE_CHECKING:
    from ...dataloaders.base import Sample
    from ...graph.index import GraphIndex
    from ...runners.contract.session import Session
    from ..comparison import Comparison
    from ..report.model import Notice

MOST = 64
"""Most nodes that may compute a condition: they are run once more, beside the network."""

log = logging.getLogger(__name__)


class Branches:
    """The conditions of the reference's graph, looked at as samples are run.

    Of each If of the graph itself, whose condition few nodes compute of inputs. ONNX Runtime runs those nodes alone.

    Args:
        comparison: What is compared.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._seen: dict[str, set[bool]] = {}
        self._session: Session | None = None
        self._begun = False

    def take(self, sample: Sample) -> None:
        """Looks at the conditions of a sample, unless all of them have been both."""
        try:
            if not self._begun:
                self._begun = True
                self._begin()
            if all(len(values) > 1 for values in self._seen.values()):
                return
            made = {} if self._session is None else self._session.infer(feed_of(self._session, sample))
            for name, values in self._seen.items():
                values.update(np.asarray(made[name] if name in made else sample[name]).astype(bool).reshape(-1)[:1])
        except Exception:  # what is told of branches is an extra
            log.debug("the conditions of branches are not known", exc_info=True)
            self._seen.clear()

    def _begin(self) -> None:
        model = self._comparison.reference.model
        index = model.index
        computed = []
        for position in _choices(index):
            name = index.nodes[position].input[0]
            if name in index.producer:
                part = backward(index, [name], ())
                inner = {operator(index.nodes[p]) for p in part.nodes}
                if len(part.nodes) > MOST or inner & CONTROL_FLOW or not part.inputs:
                    continue
                computed.append(name)
            elif name in index.initializers:
                continue
            self._seen[name] = set()
        if computed:
            from ...runners.onnxrt.runner import OnnxrtRunner

            specs = {spec.name: spec for spec in model.inputs}
            part = backward(index, list(dict.fromkeys(computed)), ())
            self._session = OnnxrtRunner(threads=1).session(slice_model(model, part, specs))

    def notices(self) -> Iterator[Notice]:
        """What to say, after the last sample, of each branch that was not run and computes something."""
        if self._session is not None:
            self._session.close()
            self._session = None
        known = {name: values for name, values in self._seen.items() if len(values) == 1}
        if not known:
            return
        reference = self._comparison.reference
        index = reference.model.index
        others = [side.model.index for side in self._comparison.candidates if other_file(side, reference)]
        for position in _choices(index):
            node = index.nodes[position]
            if node.input[0] not in known:
                continue
            value = next(iter(known[node.input[0]]))
            branch = "else" if value else "then"
            body = _body(node, branch)
            if not _computes(body):
                continue
            theirs = [_body(n, branch) for o in others for n in o.nodes if n.name == node.name and operator(n) == "If"]
            unlike = any(other != body for other in theirs)
            yield branch_not_run(index.names[position], branch, len(body.node), value, unlike)


def _choices(index: GraphIndex) -> Iterator[int]:
    return (position for position, node in enumerate(index.nodes) if operator(node) == "If")


def _body(node: onnx.NodeProto, branch: str) -> onnx.GraphProto:
    body = attribute(node, f"{branch}_branch")
    assert isinstance(body, onnx.GraphProto)
    return body


def _computes(body: onnx.GraphProto) -> bool:
    """Whether it does more than to hand on what it is given, or a constant."""
    return any(operator(node) not in FLAT | {"Constant"} for node in body.node)
