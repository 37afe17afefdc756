"""A few nodes of both sides that can be run alone: cut out, fed, and compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from ...graph.cutting.extract import value_info
from ...graph.cutting.fusion import static_tensors
from ...graph.cutting.slices import Slice, backward, slice_model
from ...graph.interface import Interface, adapted
from ...graph.nodes import subgraphs
from ...graph.specs import STRING, Arrays, TensorSpec, cast, dtype_to_onnx, is_float, specs_of
from ...runners.contract.workload import Workload
from ...runners.onnxrt.runner import OnnxrtRunner

if TYPE_CHECKING:
    from ...graph.model import Model
    from ...runners.contract.runner import Runner
    from ..lockstep.plan import LayerPair
    from .subject import Subject


@dataclass(frozen=True)
class Part:
    """Nodes of both sides that make the same tensors, with what they are fed.

    Attributes:
        reference: The reference's nodes as a model; None where its runtime opens no pieces of one.
        candidate: The candidate's, its inputs and outputs under the reference's names.
        inputs: What both are fed.
        expected: What the reference gives.
        found: What the candidate gives.
    """

    reference: Model | None
    candidate: Model
    inputs: Arrays
    expected: Arrays
    found: Arrays

    @property
    def nodes(self) -> int:
        """How many nodes the larger of the two has, those of bodies among them. Constants are none."""
        return max(_count(model.proto.graph) for model in (self.reference, self.candidate) if model is not None)

    @property
    def error(self) -> float:
        """The largest relative L2 error of an output; infinite where one side alone is not finite."""
        return max(relative(self.expected[n], self.found[n]) for n in self.expected)


def relative(expected: np.ndarray, found: np.ndarray) -> float:
    """``|found - expected| / |expected|`` in L2; infinite where shapes differ, or one side alone is not finite."""
    if expected.shape != found.shape:
        return np.inf
    if expected.dtype == STRING:
        return float(np.mean(expected != found)) if expected.size else 0.0
    with np.errstate(all="ignore"):
        a, b = expected.astype(np.float64), found.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        norm = np.linalg.norm(a[np.isfinite(a)])
        error = np.linalg.norm(np.where(same, 0.0, b - a)) / (norm or 1.0)
    return float(error) if np.isfinite(error) else np.inf


def whole(subject: Subject, pair: LayerPair, values: Arrays) -> Part:
    """A layer as it was walked.

    Args:
        subject: The culprit.
        pair: Its layer, or a part of it.
        values: What it reads, by the reference's names.
    """
    plan = subject.prepared.plan
    names = {**plan.back, **plan.sources([pair])}
    return _part(subject, pair.reference, pair.candidate, values, names, {})


def ends(subject: Subject, pair: LayerPair, values: Arrays, most: int) -> Iterable[Part]:
    """The last nodes of a layer, one of them and more: what they read from those before is given.

    Both sides are given what the reference has there. Of a candidate's graph that is another one, only tensors that
    correspond to the reference's can be given, and its constants.

    Args:
        subject, pair, values: See `whole`.
        most: How many nodes to take at most.
    """
    reference, candidate = subject.reference, subject.candidate
    mine = _inner(_runner_of(subject), reference.model, pair.reference, values)
    known = {**values, **mine}
    constants = _constants(subject, pair, values)
    for count in range(1, min(most, len(pair.reference.nodes)) + 1):
        one, before = _end(reference.model, pair.reference, count)
        if subject.prepared.same:
            yield _part(subject, one, one, known, {name: name for name in known}, mine)
            continue
        matched = subject.prepared.matched
        names = {other: n for n, other in matched.items() if n in values or (n in before and n in mine)}
        names |= {other: n for n, other in subject.prepared.plan.tensors.items() if n in values}
        given = {*names, *constants} - {*pair.candidate.outputs}
        other = backward(candidate.model.index, pair.candidate.outputs, given)
        yield _part(subject, one, other, known, names, mine, constants)


def _constants(subject: Subject, pair: LayerPair, values: Arrays) -> dict[str, np.ndarray]:
    """What the candidate's nodes of a layer make of weights alone."""
    if subject.prepared.same:
        return {}
    model = subject.candidate.model
    static = static_tensors(model.index)
    made = {n for p in pair.candidate.nodes for n in model.index.nodes[p].output if n in static}
    if not made:
        return {}
    fed = subject.for_candidate(pair.candidate.inputs, values)
    return _inner(subject.candidate.runner, model, pair.candidate, fed, made)


def inner_values(subject: Subject, values: Arrays) -> dict[str, np.ndarray]:
    """Every tensor inside the layer, as the reference computes it."""
    return _inner(_runner_of(subject), subject.reference.model, subject.pair.reference, values)


def _end(model: Model, part: Slice, count: int) -> tuple[Slice, set[str]]:
    """The last nodes of a slice, constants not counted, and the tensors that the others make."""
    index = model.index
    nodes = [p for p in part.nodes if index.nodes[p].op_type != "Constant"]
    before = {name for p in nodes[:-count] for name in index.nodes[p].output if name}
    return backward(index, part.outputs, {*part.inputs, *before} - {*part.outputs}), before


def _inner(
    runner: Runner, model: Model, part: Slice, values: Arrays, only: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Every tensor that the nodes of a slice make, or some of them."""
    feed = {name: values[name] for name in part.inputs}
    index = model.index
    names = [n for p in part.nodes for n in index.nodes[p].output if n and n in index.specs]
    names = [n for n in names if only is None or n in only]
    cut = slice_model(model, part, specs_of(feed))
    with runner.session(cut, fetch=names, workload=Workload(samples=lambda: iter([feed]))) as session:
        return session.infer(feed, names)


def _runner_of(subject: Subject) -> Runner:
    """What runs pieces of the reference's graph: ONNX Runtime where the reference runs none."""
    runner = subject.reference.runner
    return runner if runner.capabilities.pieces else OnnxrtRunner(low_memory=True)


def _part(
    subject: Subject,
    one: Slice,
    other: Slice,
    values: Arrays,
    names: Mapping[str, str],
    made: Arrays,
    constants: Arrays | None = None,
) -> Part:
    """Both slices as models.

    Args:
        subject: The culprit.
        one, other: The nodes in the reference's graph and in the candidate's.
        values: What can be fed, by the reference's names.
        names: Tensors of the candidate -> the reference's names of what they are fed.
        made: What nodes of the layer before these make: if it is constant, it is written into the models.
        constants: The same of the candidate's graph, where that is another one.
    """
    own = made if subject.prepared.same else (constants or {})
    feed = {n: values[n] for n in one.inputs}
    fed = [n for n in other.inputs if n not in own or n in names]
    specs = subject.candidate.model.index.specs
    theirs = {n: cast(values[names.get(n, n)], specs.get(n)) for n in fed}
    theirs |= {n: own[n] for n in other.inputs if n not in theirs}
    reference = _model(subject.reference.model, one, feed, made)
    candidate = _model(subject.candidate.model, other, theirs, own)
    kept = [spec.name for spec in candidate.inputs]
    renamed = Interface(
        {names[n]: n for n in kept if names.get(n, n) != n},
        {n: o for n, o in zip(one.outputs, other.outputs, strict=True) if n != o},
    )
    inputs = {spec.name: feed[spec.name] for spec in reference.inputs}
    inputs |= {names.get(n, n): theirs[n] for n in kept if names.get(n, n) not in inputs}
    candidate = _taking(adapted(candidate, renamed) if renamed else candidate, inputs)
    pieces = subject.reference.runner.capabilities.pieces
    expected = _run(subject.reference.runner, reference, inputs) if pieces else {n: values[n] for n in one.outputs}
    found = _run(subject.candidate.runner, candidate, inputs)
    return Part(reference if pieces else None, candidate, inputs, expected, found)


def _model(model: Model, part: Slice, feed: Arrays, made: Mapping[str, np.ndarray]) -> Model:
    """A slice as a model that holds everything; what is constant or no number with a fraction is written into it."""
    cut = slice_model(model, part, specs_of(feed, fixed=True)).contained()
    static = static_tensors(model.index)
    fixed = [n for n in part.inputs if n in made and (n in static or not is_float(feed[n].dtype))]
    proto = onnx.ModelProto()
    proto.CopyFrom(cut.proto)
    inputs = [i for i in proto.graph.input if i.name not in fixed]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(numpy_helper.from_array(feed[n], n) for n in fixed)
    constants = [n for n in proto.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]
    for node in constants:
        value = onnx.TensorProto()
        value.CopyFrom(node.attribute[0].t)
        value.name = node.output[0]
        proto.graph.initializer.append(value)
        proto.graph.node.remove(node)
    return cut.derive(proto)


def _taking(model: Model, inputs: Arrays) -> Model:
    """A model that takes floats as they are given, with a Cast where its graph has them in another type."""
    other = [s for s in model.inputs if is_float(s.dtype) and inputs[s.name].dtype != s.dtype]
    if not other:
        return model
    inner = adapted(model, Interface({f"{spec.name}/given": spec.name for spec in other}))
    proto = inner.copied()
    for spec in other:
        given, cast_to = f"{spec.name}/given", dtype_to_onnx(spec.dtype)
        (info,) = (i for i in proto.graph.input if i.name == given)
        proto.graph.input.remove(info)
        proto.graph.input.append(value_info(TensorSpec(spec.name, inputs[spec.name].dtype, spec.shape)))
        proto.graph.node.insert(
            0, onnx.helper.make_node("Cast", [spec.name], [given], name=f"{given}/Cast", to=cast_to)
        )
    return model.derive(proto)


def _run(runner: Runner, model: Model, inputs: Arrays) -> dict[str, np.ndarray]:
    feed = {spec.name: inputs[spec.name] for spec in model.inputs}
    with runner.session(model, workload=Workload(samples=lambda: iter([feed]))) as session:
        return session.infer(feed)


def _count(graph: onnx.GraphProto) -> int:
    nodes: Sequence[onnx.NodeProto] = [n for n in graph.node if n.op_type != "Constant"]
    return len(nodes) + sum(_count(body) for node in nodes for body in subgraphs(node))
