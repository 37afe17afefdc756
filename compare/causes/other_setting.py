"""Another setting of an operator that one side has in place of several: how many heads a fused attention has, its
scale, whether it is causal, which of what it reads are the keys, in which order its weights are packed. Another number
in operators in place of others.

Looks at: what that side makes with other settings, and other numbers: those that the other side's sizes and numbers
imply. Proves: where that is what the other side makes, that this setting alone is wrong.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...graph.contrib_ops import others_like, settings
from ...graph.cutting.slices import with_inputs, with_operator, with_setting
from ...graph.operators import (
    ACTIVATIONS,
    AFFINE_STEPS,
    CONTRIB_DOMAIN,
    PRODUCTS,
    SEVERAL_STEPS,
    domain_of,
    operator,
)
from ...graph.pairing.constants import constant_value
from ...graph.pairing.normal_form import slots
from ...graph.pairing.view import multiplier
from ...graph.specs import is_float
from ..report.model import Cause
from .case import LayerCase
from .diagnosis import Diagnosis
from .differences import replaced
from .inverted_condition import explains
from .packed_parts import PROJECTIONS, packed_constants
from .undoing import with_constants

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from ...graph.model import Model
    from ...graph.specs import Arrays
    from ..report.model import Fact

MOST = 32
"""Most settings that are tried in a layer."""
LARGE = 1 << 24
"""Weights of a layer above which only a few are."""
FEW = 8
"""How many then."""
PACKED = len(PROJECTIONS)
REFERENCE, CANDIDATE = 0, 1
"""The sides, by the places of their graphs."""
CONSTANT = "the constant"
"""What a number is called that a node reads and that is no attribute."""
CLOSE = 1e-4
"""Relative difference up to which two numbers are one."""


Trial: TypeAlias = "tuple[Callable[[Model], Model | None], Diagnosis]"
"""How one side's piece is altered, and what to say if it makes what the other side does then."""


@dataclass(frozen=True)
class OtherSetting:
    """A setting with which one side makes what the other one does.

    Attributes:
        node: Operator and name of the node.
        name: The setting.
        found: What it is.
        right: What it has to be in the candidate; what the candidate computes with, where the node is the reference's.
        in_reference: Whether the node is the reference's.
    """

    node: str
    name: str
    found: str
    right: str
    in_reference: bool = False

    @property
    def text(self) -> str:
        """See `Fact`."""
        return _with(f"{self.name} of {self.node} is {self.found}", self.right, self.in_reference)

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.in_reference:
            return f"compute with {self.name} {self.found} in the second file, as {self.node} of the first does"
        return f"set {self.name} of {self.node} to {self.right}"


@dataclass(frozen=True)
class OtherOperator:
    """An operator that computes about the same, with which one side makes what the other one does.

    Attributes:
        node: Operator and name of the node.
        right: The operator that it would have to be.
        in_reference: Whether the node is the reference's.
    """

    node: str
    right: str
    in_reference: bool = False

    @property
    def text(self) -> str:
        """See `Fact`."""
        if self.in_reference:
            return f"with {self.right} in place of {self.node} the first file would make what the second does"
        return f"with {self.right} in place of {self.node} it makes what the first file does"

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.in_reference:
            return f"compute what {self.node} of the first file does in the second"
        return f"put {self.right} in place of {self.node}"


@dataclass(frozen=True)
class ReadsOtherwise:
    """Two inputs of an operator that the other side, which has others in place of it, takes for each other.

    Attributes:
        node: Operator and name of the node.
        names: The inputs, as in the operator's schema.
        tensors: What the node reads there.
        in_reference: Whether the node is the reference's.
    """

    node: str
    names: tuple[str, str]
    tensors: tuple[str, str]
    in_reference: bool = False

    @property
    def text(self) -> str:
        """See `Fact`."""
        return _with(f"{self.node} reads {self._given(self.tensors)}", "these two exchanged", self.in_reference)

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.in_reference:
            return f"take {self._given(self.tensors)} in the second file, as {self.node} of the first does"
        return f"let {self.node} read {self._given(self.tensors[::-1])}"

    def _given(self, tensors: tuple[str, str]) -> str:
        return " and ".join(f"'{tensor}' as {name}" for name, tensor in zip(self.names, tensors, strict=True))


@dataclass(frozen=True)
class OtherOrder:
    """Constants that several projections are packed into in another order.

    Attributes:
        node: Operator and name of the candidate's node.
        names: What the constants are called, as in the operator's schema.
        order: The place in the candidate of each part that the reference has: first, second, third.
        taken: How they are to be packed, where that is no order of three parts.
    """

    node: str
    names: tuple[str, ...]
    order: tuple[int, ...]
    taken: str = ""

    @property
    def text(self) -> str:
        """See `Fact`."""
        verb = "are" if self._several else "is"
        return f"{self._what} {verb} packed in another order: with {self._right} it makes what the first file does"

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"pack {self._what} with {self._right}"

    @property
    def _several(self) -> bool:
        return len(self.names) > 1 or self.names[0] == "weights"

    @property
    def _what(self) -> str:
        return f"{' and '.join(self.names)} of {self.node}"

    @property
    def _right(self) -> str:
        its = "their" if self._several else "its"
        return self.taken or f"{its} parts in the order {', '.join(str(place + 1) for place in self.order)}"


def _with(found: str, right: str, in_reference: bool) -> str:
    """What a side has, and with what else it makes what the other one does."""
    if in_reference:
        return f"{found} in the first file: with {right} it would make what the second file does"
    return f"{found}: with {right} it makes what the first file does"


def find(case: LayerCase) -> Diagnosis | None:
    """A setting of the candidate, the order of what it reads or of packed weights, with which the layer is right."""
    return _first(case, _settings(case, CANDIDATE), case.right_with)


def in_reference(case: LayerCase) -> Diagnosis | None:
    """A setting of the reference, or the order of what it reads, with which it makes what the candidate does. That has
    other operators instead: one that it merely lacks, a setting can make useless."""
    if not replaced(case):
        return None

    def same(alter: Callable[[Model], Model | None]) -> bool:
        made = case.reference_altered(alter) if case.y.shape == case.c.shape else None
        return explains(case.c, case.y, made)

    return _first(case, _settings(case, REFERENCE), same)


def of_number(case: LayerCase) -> Diagnosis | None:
    """Another number that one of the candidate's nodes has to scale or shift by for the layer to be right."""
    return _first(case, _numbers_inside(case), case.right_with) if replaced(case) else None


def _first(
    case: LayerCase, tried: Iterable[Trial], right: Callable[[Callable[[Model], Model | None]], bool]
) -> Diagnosis | None:
    if case.graphs[0] is case.graphs[1] or case.formats.quantized:
        return None
    return next((told for alter, told in itertools.islice(tried, _most(case)) if right(alter)), None)


def _most(case: LayerCase) -> int:
    """How many settings are tried: fewer where the layer has large weights, which each run loads anew."""
    index = case.graphs[1]
    weights = {n for p in case.pair.candidate.nodes for n in index.nodes[p].input if n in index.initializers}
    return MOST if sum(math.prod(index.initializers[n].dims) for n in weights) <= LARGE else FEW


def _nodes(case: LayerCase, side: int) -> tuple[int, ...]:
    return (case.pair.reference, case.pair.candidate)[side].nodes


def _settings(case: LayerCase, side: int) -> Iterator[Trial]:
    """Other settings of one side's operators, other orders of what they read, and of weights that the candidate's
    have packed."""
    index, reference = case.graphs[side], side == REFERENCE
    known = {operator(case.graphs[1 - side].nodes[p]) for p in _nodes(case, 1 - side)}
    for place, position in enumerate(_nodes(case, side)):
        node = index.nodes[position]
        if operator(node) in known or not _does_several(node):
            continue
        told = f"{node.op_type} {index.names[position]}"
        at = (position, None) if reference else (None, position)
        for name, found, right in _others(case, side, node):
            fact = OtherSetting(told, name, _shown(found), _shown(right), reference)
            cause = Cause.SCALE if name == Cause.SCALE.value else Cause.ATTRIBUTE
            yield partial(with_setting, node=place, name=name, value=right), _placed(cause, fact, at)
        for op in others_like(node):
            like = OtherOperator(told, op, reference)
            yield partial(with_operator, node=place, op=op), _placed(Cause.WRONG_OP, like, at)
        names = slots(node, index.opset.get(domain_of(node), 1))
        for one, other in _alike(case, side, node):
            read = node.input[one], node.input[other]
            order = ReadsOtherwise(told, (names[one], names[other]), read, reference)
            others = {one: read[1], other: read[0]}
            yield partial(with_inputs, node=place, others=others), _placed(Cause.WRONG_OP, order, at)
        for constants, packing in () if reference else _repacked(index, node, told):
            yield partial(with_constants, others=constants), _placed(Cause.WEIGHTS, packing, at)


def _placed(cause: Cause, fact: Fact, at: tuple[int | None, int | None]) -> Diagnosis:
    """A diagnosis at a node of the reference or of the candidate."""
    return Diagnosis(cause, (fact,), at[0], candidate_node=at[1])


def _alike(case: LayerCase, side: int, node: onnx.NodeProto) -> Iterator[tuple[int, int]]:
    """Two places where a node of one side reads tensors of one shape that it computes from."""
    inner = _inner(case, side)
    names = [name if side == REFERENCE else case.origins.get(name, name) for name in node.input]
    read = [case.values.get(name, inner.get(own)) for name, own in zip(names, node.input, strict=True)]
    for one, other in itertools.combinations(range(len(read)), 2):
        mine, theirs = read[one], read[other]
        if mine is not None and theirs is not None and mine.shape == theirs.shape and names[one] != names[other]:
            yield one, other


def _numbers_inside(case: LayerCase) -> Iterator[Trial]:
    """Other numbers that the candidate's nodes scale or shift by: those that the reference's nodes do, one more where
    it divides by how many there are, and none."""
    index, nodes = case.graphs[0], case.pair.reference.nodes
    given = [a.f for p in nodes for a in index.nodes[p].attribute if a.type == a.FLOAT]
    numbers = [*given, *(value for p in nodes for _, value in _scalars(index, p))]
    index, nodes = case.graphs[1], case.pair.candidate.nodes
    for position, name, found in ((p, *scalar) for p in nodes for scalar in _scalars(index, p)):
        node, known = index.nodes[position], constant_value(index, name)
        scales = operator(node) in ("Mul", "Div")
        others = [*numbers, *(1 / number for number in numbers if number and scales)]
        others += [found + 1] if found > 1 and found.is_integer() else []
        for number in dict.fromkeys(number for number in [*others, float(scales)] if not _one(number, found)):
            fact = OtherSetting(f"{node.op_type} {index.names[position]}", CONSTANT, _number(found), _number(number))
            constants = {name: np.full_like(known, number)}
            cause = Cause.SCALE if scales else Cause.WEIGHTS
            yield partial(with_constants, others=constants), Diagnosis(cause, (fact,))


def _scalars(index: GraphIndex, position: int) -> Iterator[tuple[str, float]]:
    """The single numbers that a node scales or shifts by: their names and values."""
    node = index.nodes[position]
    for name in node.input if operator(node) in AFFINE_STEPS else ():
        known = constant_value(index, name) if name else None
        if known is not None and known.size == 1 and is_float(known.dtype):
            yield name, float(known.reshape(-1)[0])


def _does_several(node: onnx.NodeProto) -> bool:
    """Whether an operator does what others write with several, or is a function with a parameter."""
    fused = node.domain == CONTRIB_DOMAIN and operator(node) not in PRODUCTS
    return fused or operator(node) in SEVERAL_STEPS | ACTIVATIONS


def _others(case: LayerCase, side: int, node: onnx.NodeProto) -> Iterator[tuple[str, int | float, int | float]]:
    """Settings of a node of one side, what they are, and what the other side implies that they may be: switches
    first."""
    found = settings(node, case.graphs[side].opset.get(domain_of(node), 1))
    whole = {name: value for name, value in found.items() if isinstance(value, int)}
    for name, value in whole.items():
        if value in (0, 1):
            yield name, value, 1 - value
    numbers = _numbers(case, 1 - side) if len(whole) < len(found) else []
    if operator(node) in ACTIVATIONS:  # an Elu with 0 is a Relu, which is another operator
        numbers = [number for number in numbers if number]
    for name in (name for name in found if name not in whole):
        yield from ((name, found[name], number) for number in numbers if not _one(number, found[name]))
    given = {a.name for a in node.attribute}
    sizes = _sizes(case, 1 - side) if given & set(whole) else []
    for name in (name for name, value in whole.items() if name in given and value > 1):
        yield from ((name, whole[name], size) for size in sizes if size != whole[name])


def _inner(case: LayerCase, side: int) -> Arrays:
    return case.inner if side == REFERENCE else case.candidate_inner


def _numbers(case: LayerCase, side: int) -> list[float]:
    """Numbers that one side multiplies by in a layer, one or all or one twice, and those that it has as settings; and
    0, which leaves a scale to the operator."""
    index, nodes = case.graphs[side], _nodes(case, side)
    factors = [f for p in nodes if (f := multiplier(index, p, lambda n: constant_value(index, n) is not None))]
    single = [float(v.reshape(-1)[0]) for v in _inner(case, side).values() if v.size == 1]
    factors += [f for value in single if value for f in (value, 1 / value)]
    given = [a.f for p in nodes for a in index.nodes[p].attribute if a.type == a.FLOAT]
    found = [*factors, float(np.prod(factors)), *(f * f for f in factors), *given, 0.0]
    return [value for i, value in enumerate(found) if not any(_one(value, other) for other in found[:i])]


def _sizes(case: LayerCase, side: int) -> list[int]:
    """Sizes of tensors inside one side's layer, and the whole numbers that it has as settings."""
    index, nodes = case.graphs[side], _nodes(case, side)
    given = [a.i for p in nodes for a in index.nodes[p].attribute if a.type == a.INT]
    shapes = sorted((value.shape for value in _inner(case, side).values()), key=len, reverse=True)
    return [size for size in dict.fromkeys([*given, *itertools.chain.from_iterable(shapes)]) if size > 0]


def _one(value: float, other: float) -> bool:
    return abs(value - other) <= CLOSE * abs(other)


def _shown(value: int | float) -> str:
    """A setting as text: a scale or a limit of zero is none."""
    return "none" if value == 0 and isinstance(value, float) else _number(value)


def _number(value: int | float) -> str:
    return f"{value:.7g}"


def _repacked(index: GraphIndex, node: onnx.NodeProto, told: str) -> Iterator[tuple[dict[str, np.ndarray], OtherOrder]]:
    """Constants of a node that queries, keys and values are packed into, in other orders: those of one, then all."""
    packed = {slot: (name, value) for slot, name, value in packed_constants(index, node)}
    heads = int(settings(node, 1).get("num_heads", 0))
    for chosen in dict.fromkeys([*((slot,) for slot in packed), tuple(packed)]):
        if not chosen:
            continue
        constants = dict(packed[slot] for slot in chosen)
        for order in itertools.permutations(range(PACKED)):
            if order != tuple(range(PACKED)):
                yield {n: _ordered(value, order) for n, value in constants.items()}, OtherOrder(told, chosen, order)
        for by_heads, text in ((True, "each projection as a whole"), (False, "those of each head side by side")):
            if all(value.shape[-1] % (PACKED * heads) == 0 for value in constants.values()):
                others = {n: _turned(value, heads, by_heads) for n, value in constants.items()}
                yield others, OtherOrder(told, chosen, (), text)


def _ordered(value: np.ndarray, order: Iterable[int]) -> np.ndarray:
    parts = np.split(value, PACKED, axis=-1)
    return np.concatenate([parts[place] for place in order], axis=-1)


def _turned(value: np.ndarray, heads: int, by_heads: bool) -> np.ndarray:
    """Packed constants as they are where the parts of each head lie side by side: taken so, or brought into that."""
    outer, inner = (heads, PACKED) if by_heads else (PACKED, heads)
    return np.swapaxes(value.reshape(*value.shape[:-1], outer, inner, -1), -2, -3).reshape(value.shape).copy()
