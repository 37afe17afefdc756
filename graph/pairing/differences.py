"""What differs between two matched nodes without running them: operators, attributes, weights."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ..index import GraphIndex
from ..nodes import attribute_int
from ..operators import QUANTIZERS, domain_of, operator
from . import reshaped
from .absent_inputs import InputAbsent, absent_inputs
from .broadcasts import RunsOtherwise, runs_otherwise
from .changes import (
    AttributeChange,
    ComputedOnce,
    InputsExchanged,
    OperatorChange,
    OpName,
    OtherInput,
    OtherInputs,
    OtherOutput,
    ReadTwice,
    WeightsAbsent,
)
from .constant_steps import OtherSteps, other_steps
from .constants import Operand, along_axes, constant_value, in_levels_of, integers_step, noun_of
from .normal_form import PADDED_WITH, NormalForm, padding_value, schema_defaults, spelled
from .origin import origin
from .settings import GIVEN_BY
from .turned import TRANSPOSES, turned
from .weight_changes import (
    WeightChange,
    beyond_steps,
    both_steps,
    same_bytes,
    stored_scaled,
    weight_change,
    within_steps,
)
from .weight_patterns import StoredScaled, Twin


class DifferenceKind(str, enum.Enum):
    """What of a node differs."""

    OPERATOR = "op"
    ATTRIBUTE = "attribute"
    WEIGHTS = "weights"
    INPUTS = "inputs"


Change = (
    OperatorChange
    | AttributeChange
    | WeightsAbsent
    | WeightChange
    | RunsOtherwise
    | OtherSteps
    | InputsExchanged
    | OtherInput
    | OtherInputs
    | ComputedOnce
    | ReadTwice
    | OtherOutput
    | InputAbsent
)


INPUT_CHANGES = InputsExchanged, OtherInput, OtherInputs, ReadTwice, ComputedOnce, OtherOutput, InputAbsent
"""What differs in what nodes read."""


@dataclass(frozen=True)
class Difference:
    """What differs between a node of the reference and the node of the candidate that it is matched with.

    Attributes:
        node: Position in the reference.
        candidate_node: Position in the candidate.
        change: What differs, and how.
        name: Attribute, name of the weight input in the operator's schema (``w``, ``b``, ``scale``), or of the body.
        inside: Operator of the node whose attribute differs, where that is one in the body of these nodes (If, Loop,
            Scan); empty for weights and operators of a body; None where these nodes themselves differ.
        origin: Of weights that are computed from constants, the node that is first to compute something else: its
            position in the reference.
        candidate_origin: The same node's position in the candidate, where the candidate alone has it.
        read_as: What the reference's operator calls the weight, where that operator is a sum and a normalization.
    """

    node: int
    candidate_node: int
    change: Change
    name: str = ""
    inside: str | None = None
    origin: int | None = None
    candidate_origin: int | None = None
    read_as: str = ""

    @property
    def kind(self) -> DifferenceKind:
        """What of the node differs."""
        if isinstance(self.change, OperatorChange):
            return DifferenceKind.OPERATOR
        if isinstance(self.change, INPUT_CHANGES):
            return DifferenceKind.INPUTS
        return DifferenceKind.ATTRIBUTE if isinstance(self.change, AttributeChange) else DifferenceKind.WEIGHTS

    @property
    def expected_by_format(self) -> str | None:
        """The number format that the candidate stores this weight in, where rounding to it explains the whole
        difference; None otherwise."""
        return self.change.explained_by_format if isinstance(self.change, WeightChange) else None

    @property
    def cut_off(self) -> bool:
        """Whether weights are beyond the range of the format that the candidate rounded them to."""
        return isinstance(self.change, WeightChange) and self.change.cut > 0

    @property
    def stored_scaled(self) -> StoredScaled | None:
        """The factors between weights and what is stored of them in steps, where these are the whole difference."""
        return self.change.stored_scaled if isinstance(self.change, WeightChange) else None

    @property
    def clamped(self) -> bool:
        """Whether weights beyond a limit were set to it, which is the whole difference."""
        return isinstance(self.change, WeightChange) and self.change.clamped

    @property
    def of_one_value(self) -> bool:
        """Whether a single number is another one, which rounding does not explain: a scale, say."""
        return isinstance(self.change, WeightChange) and self.change.size == 1 and self.change.rounded_to is None

    @property
    def detail(self) -> str:
        """A phrase with the values: ``epsilon 1e-05 against 0.01``."""
        if self.inside is None:
            return str(self.change)
        of = f"{self.inside} " if self.inside and isinstance(self.change, AttributeChange) else ""
        return f"in its body: {of}{self.change}"


def node_differences(
    reference: GraphIndex, n: int, a: NormalForm, candidate: GraphIndex, m: int, b: NormalForm
) -> list[Difference]:
    """What differs between two nodes, each given with its graph, position and normal form."""
    if a.family != b.family:
        names = ((a.op, reference.names[n]),), ((b.op, candidate.names[m]),)
        return [Difference(n, m, OperatorChange(*names))]
    found: list[Difference] = []
    if a.op == b.op:
        twin = turned(reference, n, candidate, m)
        if twin:
            b = replace(b, settings={**b.settings, TRANSPOSES: a.settings.get(TRANSPOSES)})
        found.extend(setting_differences(reference, n, a, candidate, m, b))
        found.extend(_weights(reference, n, a, candidate, m, b, twin))
        absent = absent_inputs(reference, n, a, candidate, m, b)
        found.extend(Difference(n, m, change, change.slot) for change in absent)
        found.extend(_bodies(reference.nodes[n], candidate.nodes[m], n, m))
    elif {a.op, b.op} == {"Upsample", "Resize"}:  # one operator by two names
        found.extend(setting_differences(reference, n, a, candidate, m, b))
    return found


def op_names(index: GraphIndex, nodes: Iterable[int]) -> tuple[OpName, ...]:
    """Operator and name of some nodes of a graph."""
    return tuple((index.nodes[p].op_type, index.names[p]) for p in nodes)


def _default(index: GraphIndex, position: int, name: str) -> Any:
    """What a node that does not give a setting has: the default of the newest opset."""
    node = index.nodes[position]
    if name == PADDED_WITH:
        return padding_value(node.op_type)
    return schema_defaults(node.op_type, onnx.defs.onnx_opset_version(), domain_of(node)).get(name)


def setting_differences(
    reference: GraphIndex, n: int, a: NormalForm, candidate: GraphIndex, m: int, b: NormalForm
) -> Iterator[Difference]:
    """What differs in the attributes of two nodes, and in inputs that were attributes once; see `node_differences`."""
    if a.op == b.op and reshaped.compares(a.op):
        change = reshaped.change(reference, n, a, candidate, m, b)
        yield from () if change is None else (Difference(n, m, change, change.name),)
        return
    opset = reference.opset.get(reference.nodes[n].domain, 0) != candidate.opset.get(candidate.nodes[m].domain, 0)
    for name in sorted(a.settings.keys() | b.settings.keys()):
        if name in a.weights or name in b.weights or name.endswith(GIVEN_BY):
            continue  # computed on one side: not known without running
        x = a.settings.get(name, _default(reference, n, name))
        y = b.settings.get(name, _default(candidate, m, name))
        if name in ("axis", "axes"):
            x, y = (_positive(v, reference, n, candidate, m) for v in (x, y))
        if same_setting(x, y):
            continue
        if opset and (x is None or y is None) and name != "axes" and a.op != "Clip":
            continue  # one of the opsets does not have it
        if name == "to" and a.op == "Cast":
            continue
        if name == "scales" and None in (x, y) and "output shape" in a.settings and "output shape" in b.settings:
            continue  # not known on one side
        if (name == "seed" and x is None) or (name == "ratio" and None in (x, y)):
            continue  # nothing says which values are to be drawn; of a Dropout that draws none
        given = [form.settings.get(f"{name}{GIVEN_BY}", "") for form in (a, b)]
        together = a.together or b.together
        of = f"{', '.join(together[:-1])} and {together[-1]} together" if together else ""
        told = spelled(reference, n, name)
        yield Difference(n, m, AttributeChange(told, x, y, of, (given[0], given[1])), name)


def _positive(value: Any, reference: GraphIndex, n: int, candidate: GraphIndex, m: int) -> Any:
    """Axes counted from the front, where the rank is known on either side."""
    for index, position in ((reference, n), (candidate, m)):
        spec = index.specs.get(index.nodes[position].input[0])
        if spec is not None and spec.shape:
            if isinstance(value, int) and value < 0:
                return value + len(spec.shape)
            if isinstance(value, list) and all(isinstance(v, int) for v in value):
                return [v + len(spec.shape) if v < 0 else v for v in value]
    return value


def same_setting(x: Any, y: Any) -> bool:
    """Whether two values of an attribute mean the same; numbers may differ by a rounding to FP32."""
    if isinstance(x, (list, tuple)) and isinstance(y, (list, tuple)):
        return len(x) == len(y) and all(same_setting(i, j) for i, j in zip(x, y, strict=True))
    if isinstance(x, (int, float)) and isinstance(y, (int, float)):
        return x == y or (x != x and y != y) or abs(x - y) <= 2.0**-23 * max(abs(x), abs(y)) < math.inf
    if isinstance(x, onnx.TensorProto) and isinstance(y, onnx.TensorProto):
        return bool(np.array_equal(onnx.numpy_helper.to_array(x), onnx.numpy_helper.to_array(y)))
    return type(x) is type(y) and x == y


def _weights(
    reference: GraphIndex, n: int, a: NormalForm, candidate: GraphIndex, m: int, b: NormalForm, twin: str
) -> Iterator[Difference]:
    """What differs in the weights of two nodes; see `node_differences`. ``twin``: see `turned`."""
    for slot in sorted(a.weights.keys() | b.weights.keys()):
        if slot in a.settings or slot in b.settings:
            continue
        names = a.weights.get(slot), b.weights.get(slot)
        if names[0] and names[1] and same_bytes(reference, names[0], candidate, names[1]):
            continue
        turns = names[1] is not None and names[1] == twin
        otherwise = None if turns else _dequantized_otherwise(reference, names[0], candidate, names[1])
        if otherwise is not None:
            yield Difference(n, m, otherwise, slot)
            continue
        x, y = (None if k is None else constant_value(i, k) for i, k in zip((reference, candidate), names, strict=True))
        if (names[0] is not None and x is None) or (names[1] is not None and y is None):
            continue  # computed from shapes, or by an operator that is not known here
        if x is None or y is None:
            present = x if y is None else y
            assert present is not None
            if slot == "const" or np.any(present):  # a bias of zeros is no bias
                value = present.reshape(-1)[:1].tolist()[0] if present.size == 1 else None
                own = (reference, n, names[0]) if y is None else (candidate, m, names[1])
                noun = noun_of(own[0], own[1], own[2] or "", present)
                yield Difference(n, m, WeightsAbsent(slot, present.size, value, y is None, noun), slot)
            continue
        mine, theirs = a.weights[slot], b.weights[slot]
        twins = [(s, a.weights[s]) for s in sorted(a.weights) if s != slot and s not in a.settings]
        other = Operand(candidate, m, slot, theirs, y.T if turns else y, turns)
        yield from _changed(Operand(reference, n, slot, mine, x), other, twins)


def _changed(mine: Operand, theirs: Operand, others: Sequence[tuple[str, str]]) -> Iterator[Difference]:
    """How a weight of two nodes differs. ``others``: slots and names of the reference's other weights."""
    n, m, slot = mine.node, theirs.node, mine.slot
    reference, candidate, y = mine.index, theirs.index, theirs.value
    x = in_levels_of(reference, n, mine.value, y.dtype)
    runs = runs_otherwise(mine, theirs)
    if runs is not None:
        yield Difference(n, m, runs, slot)
    change = weight_change(x, y)
    if change is None or (runs is not None and change.shape != change.candidate_shape):
        return
    change = replace(change, noun=noun_of(reference, n, mine.name, x))
    step, own = theirs.step, mine.step
    both = None if step is None or own is None else both_steps(own, step)
    if both is not None and within_steps(x, y, both):
        yield Difference(n, m, replace(change, quantized=True), slot)
        return
    if step is None and integers_step(candidate, theirs.name, x) is not None:
        yield Difference(n, m, replace(change, quantized=True), slot)
        return
    if step is not None and own is None:
        if within_steps(x, y, step):
            yield Difference(n, m, replace(change, quantized=True), slot)
            return
        otherwise = _scaled_otherwise(theirs, x)
        if otherwise is not None:
            yield Difference(n, m, otherwise, slot)
            return
        scaled = stored_scaled(x, y, step)
        told = scaled or beyond_steps(x, y, step)
        change = change if told is None else replace(change, patterns=(told,))
    if not change.explained_by_format:
        steps = other_steps(reference, mine.name, candidate, theirs.name)
        if steps is not None:
            places = (None, steps.position) if steps.in_candidate else (steps.position, None)
            yield Difference(n, m, steps, slot, origin=places[0], candidate_origin=places[1])
            return
        twin = next((s for s, name in others if _equal_rounded(constant_value(reference, name), y)), None)
        change = change if twin is None else replace(change, patterns=(*change.patterns, Twin(twin)))
    yield Difference(n, m, change, slot, origin=origin(reference, mine.name, candidate, theirs.name))


def _dequantized_otherwise(
    reference: GraphIndex, name: str | None, candidate: GraphIndex, other: str | None
) -> AttributeChange | None:
    """Weights of several scales that the two graphs lay along different axes, or blocks of another length."""
    nodes = []
    for index, made in ((reference, name), (candidate, other)):
        node = index.nodes[p] if made is not None and (p := index.producer.get(made)) is not None else None
        if node is None or operator(node) not in QUANTIZERS or not _has_scales(index, node):
            return None
        nodes.append((index, node))
    (_, mine), (others, theirs) = nodes
    for attribute, default in (("axis", 1), ("block_size", 0)):
        values = [attribute_int(node, attribute, default) for node in (mine, theirs)]
        ranks = [len(s.shape or ()) if (s := i.specs.get(n.input[0])) is not None else 0 for i, n in nodes]
        if attribute == "axis":
            values = [v + rank if v < 0 else v for v, rank in zip(values, ranks, strict=True)]
        if values[0] != values[1]:
            of = f"{theirs.op_type} {others.names[others.producer[theirs.output[0]]]} of the weights"
            return AttributeChange(attribute, values[0], values[1], of)
    return None


def _scaled_otherwise(stored: Operand, wanted: np.ndarray) -> AttributeChange | None:
    """Scales that lie along one axis of stored weights, and would give those that are wanted along another one."""
    index = stored.index
    for axis, (made, step) in along_axes(index, stored.name).items():
        if within_steps(wanted.T if stored.turned else wanted, made, step):
            position = index.producer[stored.name]
            node = index.nodes[position]
            own = attribute_int(node, "axis", 1) % made.ndim
            return AttributeChange("axis", axis, own, f"{node.op_type} {index.names[position]} of the weights")
    return None


def _has_scales(index: GraphIndex, node: onnx.NodeProto) -> bool:
    scale = index.constant(node.input[1])
    return scale is not None and scale.size > 1


def _equal(x: np.ndarray | None, y: np.ndarray) -> bool:
    return x is not None and x.shape == y.shape and bool(np.array_equal(x, y))


def _equal_rounded(x: np.ndarray | None, y: np.ndarray) -> bool:
    """Whether weights are equal, up to rounding to a narrow format."""
    if x is None or x.shape != y.shape:
        return False
    change = weight_change(x, y)
    return change is None or change.rounded


def _bodies(a: onnx.NodeProto, b: onnx.NodeProto, n: int, m: int) -> Iterator[Difference]:
    """Attributes and constants inside If, Loop and Scan, where the bodies have the same operators in the same order."""
    theirs = {i.name: i.g for i in b.attribute if i.type == onnx.AttributeProto.GRAPH}
    mine = {i.name: i.g for i in a.attribute if i.type == onnx.AttributeProto.GRAPH}
    for body in sorted(mine.keys() & theirs.keys()):
        left, right = mine[body], theirs[body]
        less, more = _surplus(left, right), _surplus(right, left)
        if less or more:
            yield Difference(n, m, OperatorChange(less, more), body, inside="")
        if [x.op_type for x in left.node] != [x.op_type for x in right.node]:
            continue  # in another order: which node is which is not known
        for x, y in zip(left.node, right.node, strict=True):
            yield from _inner(x, y, n, m)
            yield from _bodies(x, y, n, m)
        weights = {t.name: t for t in left.initializer}
        for tensor in right.initializer:
            if tensor.name in weights:
                yield from _constants(weights[tensor.name], tensor, n, m, tensor.name)


def _surplus(graph: onnx.GraphProto, other: onnx.GraphProto) -> tuple[OpName, ...]:
    """Operators that one body has more of than the other."""
    counts = Counter(node.op_type for node in graph.node) - Counter(node.op_type for node in other.node)
    counts.pop("Identity", None)
    return tuple((op, "") for op in sorted(counts.elements()))


def _inner(x: onnx.NodeProto, y: onnx.NodeProto, n: int, m: int) -> Iterator[Difference]:
    """What differs in the attributes of two nodes inside the bodies of ``n`` and ``m``."""
    theirs = {i.name: i for i in y.attribute}
    for i in x.attribute:
        j = theirs.get(i.name)
        if j is None or i.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            continue
        p, q = onnx.helper.get_attribute_value(i), onnx.helper.get_attribute_value(j)
        if isinstance(p, onnx.TensorProto) and isinstance(q, onnx.TensorProto):
            yield from _constants(p, q, n, m, x.output[0])
        elif not same_setting(p, q):
            yield Difference(n, m, AttributeChange(i.name, p, q), i.name, inside=x.op_type)


def _constants(x: onnx.TensorProto, y: onnx.TensorProto, n: int, m: int, name: str) -> Iterator[Difference]:
    change = weight_change(onnx.numpy_helper.to_array(x), onnx.numpy_helper.to_array(y))
    if change is not None:
        yield Difference(n, m, change, name, inside="")
