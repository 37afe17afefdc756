"""Another setting of an operator that the candidate has in place of several: how many heads a fused attention has, its
scale, whether it is causal, in which order its weights are packed. Another number in operators in place of others.

Looks at: what the candidate makes with other settings, and other numbers: those that the reference's sizes and numbers
imply. Proves: where that is what the reference makes, that this setting alone is wrong.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...graph.contrib_ops import settings
from ...graph.cutting.slices import with_setting
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
from .undoing import with_constants

if TYPE_CHECKING:
    import onnx

    from ...graph.index import GraphIndex
    from ...graph.model import Model

MOST = 32
"""Most settings that are tried in a layer."""
LARGE = 1 << 24
"""Weights of a layer above which only a few are."""
FEW = 8
"""How many then."""
PACKED = 3
"""How many projections an attention reads as one: queries, keys, values."""
CONSTANT = "the constant"
"""What a number is called that a node reads and that is no attribute."""
CLOSE = 1e-4
"""Relative difference up to which two numbers are one."""


Trial: TypeAlias = "tuple[Callable[[Model], Model | None], Diagnosis]"
"""How the candidate's piece is altered, and what to say if the layer is right so."""


@dataclass(frozen=True)
class OtherSetting:
    """A setting with which the candidate makes what the reference does.

    Attributes:
        node: Operator and name of the candidate's node.
        name: The setting.
        found: What it is.
        right: What it has to be.
    """

    node: str
    name: str
    found: str
    right: str

    @property
    def text(self) -> str:
        """See `Fact`."""
        return f"{self.name} of {self.node} is {self.found}: with {self.right} it makes what the first file does"

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"set {self.name} of {self.node} to {self.right}"


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


def find(case: LayerCase) -> Diagnosis | None:
    """A setting, or an order of packed weights, with which the layer is right."""
    return _first(case, _settings(case))


def of_number(case: LayerCase) -> Diagnosis | None:
    """Another number that one of the candidate's nodes has to scale or shift by for the layer to be right."""
    return _first(case, _numbers_inside(case))


def _first(case: LayerCase, tried: Iterable[Trial]) -> Diagnosis | None:
    if case.graphs[0] is case.graphs[1] or not replaced(case) or case.formats.quantized:
        return None
    return next((told for alter, told in itertools.islice(tried, _most(case)) if case.right_with(alter)), None)


def _most(case: LayerCase) -> int:
    """How many settings are tried: fewer where the layer has large weights, which each run loads anew."""
    index = case.graphs[1]
    weights = {n for p in case.pair.candidate.nodes for n in index.nodes[p].input if n in index.initializers}
    return MOST if sum(math.prod(index.initializers[n].dims) for n in weights) <= LARGE else FEW


def _settings(case: LayerCase) -> Iterator[Trial]:
    """Other settings of the candidate's operators, and orders of their weights."""
    index, nodes = case.graphs[1], case.pair.candidate.nodes
    known = {operator(case.graphs[0].nodes[p]) for p in case.pair.reference.nodes}
    for place, position in enumerate(nodes):
        node = index.nodes[position]
        if operator(node) in known or not _does_several(node):
            continue
        told = f"{node.op_type} {index.names[position]}"
        for name, found, right in _others(case, node):
            fact = OtherSetting(told, name, _shown(found), _shown(right))
            cause = Cause.SCALE if name == Cause.SCALE.value else Cause.ATTRIBUTE
            yield partial(with_setting, node=place, name=name, value=right), Diagnosis(cause, (fact,))
        for constants, order in _repacked(index, node, told):
            yield partial(with_constants, others=constants), Diagnosis(Cause.WEIGHTS, (order,))


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


def _others(case: LayerCase, node: onnx.NodeProto) -> Iterator[tuple[str, int | float, int | float]]:
    """Settings of a node, what they are, and what the reference implies that they may be: switches first."""
    found = settings(node, case.graphs[1].opset.get(domain_of(node), 1))
    whole = {name: value for name, value in found.items() if isinstance(value, int)}
    for name, value in whole.items():
        if value in (0, 1):
            yield name, value, 1 - value
    numbers = _numbers(case) if len(whole) < len(found) else []
    for name in (name for name in found if name not in whole):
        yield from ((name, found[name], number) for number in numbers if not _one(number, found[name]))
    given = {a.name for a in node.attribute}
    sizes = _sizes(case) if given & set(whole) else []
    for name in (name for name, value in whole.items() if name in given and value > 1):
        yield from ((name, whole[name], size) for size in sizes if size != whole[name])


def _numbers(case: LayerCase) -> list[float]:
    """Numbers that the reference multiplies by in a layer, one or all or one twice, and those that it has as settings;
    and 0, which leaves a scale to the operator."""
    index, nodes = case.graphs[0], case.pair.reference.nodes
    factors = [f for p in nodes if (f := multiplier(index, p, lambda n: constant_value(index, n) is not None))]
    single = [float(v.reshape(-1)[0]) for v in case.inner.values() if v.size == 1]
    factors += [f for value in single if value for f in (value, 1 / value)]
    given = [a.f for p in nodes for a in index.nodes[p].attribute if a.type == a.FLOAT]
    found = [*factors, float(np.prod(factors)), *(f * f for f in factors), *given, 0.0]
    return [value for i, value in enumerate(found) if not any(_one(value, other) for other in found[:i])]


def _sizes(case: LayerCase) -> list[int]:
    """Sizes of tensors inside the reference's layer, and the whole numbers that it has as settings."""
    index, nodes = case.graphs[0], case.pair.reference.nodes
    given = [a.i for p in nodes for a in index.nodes[p].attribute if a.type == a.INT]
    shapes = sorted((value.shape for value in case.inner.values()), key=len, reverse=True)
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
    heads = settings(node, 1).get("num_heads", 0)
    if not heads:
        return
    read = dict(zip(slots(node, index.opset.get(domain_of(node), 1)), node.input, strict=True))
    known = {slot: constant_value(index, name) for slot, name in read.items() if name}
    packed = {slot: value for slot, value in known.items() if value is not None and _is_packed(value)}
    for chosen in dict.fromkeys([*((slot,) for slot in packed), tuple(packed)]):
        if not chosen:
            continue
        for order in itertools.permutations(range(PACKED)):
            if order != tuple(range(PACKED)):
                others = {read[slot]: _ordered(packed[slot], order) for slot in chosen}
                yield others, OtherOrder(told, chosen, order)
        for by_heads, text in ((True, "each projection as a whole"), (False, "those of each head side by side")):
            if all(packed[slot].shape[-1] % (PACKED * int(heads)) == 0 for slot in chosen):
                others = {read[slot]: _turned(packed[slot], int(heads), by_heads) for slot in chosen}
                yield others, OtherOrder(told, chosen, (), text)


def _is_packed(value: np.ndarray) -> bool:
    return value.ndim in (1, 2) and value.shape[-1] >= PACKED and value.shape[-1] % PACKED == 0


def _ordered(value: np.ndarray, order: Iterable[int]) -> np.ndarray:
    parts = np.split(value, PACKED, axis=-1)
    return np.concatenate([parts[place] for place in order], axis=-1)


def _turned(value: np.ndarray, heads: int, by_heads: bool) -> np.ndarray:
    """Packed constants as they are where the parts of each head lie side by side: taken so, or brought into that."""
    outer, inner = (heads, PACKED) if by_heads else (PACKED, heads)
    return np.swapaxes(value.reshape(*value.shape[:-1], outer, inner, -1), -2, -3).reshape(value.shape).copy()
