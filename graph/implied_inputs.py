"""What a graph implies about the values of its inputs.

Bounds are carried backwards, from the nodes that demand something of a tensor (an index must lie inside its table, a
logarithm takes positive numbers, a mask is compared with 0 and 1) through the nodes that only move or shift it, to the
inputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from .implied_demands import MASK, Bound, Lookup, own_demands
from .implied_shapes import Shape, concrete_specs
from .index import GraphIndex
from .nodes import attribute_float, attribute_tensor, subgraphs
from .operators import WITHIN_RANGE, is_data, operator
from .specs import TensorSpec, is_float


@dataclass(frozen=True)
class Range:
    """Values that the graph implies for one input.

    Attributes:
        lo: Smallest value; -inf where the graph sets no lower end.
        hi: Where ``integer``, the value after the largest, else the largest; inf where there is none.
        integer: Whether the values are whole numbers: all integers and bools, and masks held in floats.
        reason: Why, for the report: ``indexes 'embedding' of 30522 rows``.
        strict: Whether a value outside is an error, not just one that makes no sense.
        value: The one value that fits, for an input that is a shape; None elsewhere.
        mask: Whether 1 keeps an element and 0 drops it. Dropping all of them can divide zero by zero.
        legal: What is left without hints, which are guesses: values outside of it are errors, or make results that are
            not numbers. None if nothing is left.
    """

    lo: float
    hi: float
    integer: bool
    reason: str
    strict: bool = True
    value: tuple[int, ...] | None = None
    mask: bool = False
    legal: Range | None = None

    @property
    def bounded(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.lo) and math.isfinite(self.hi)

    def __str__(self) -> str:
        if self.value is not None:
            return f"{list(self.value)}"
        return f"[{self.lo:g}, {self.hi:g}{')' if self.integer else ']'}"


_LARGE = 1e3
"""A factor from which on ``(1 - x) * factor`` is an attention mask; exporters write 1e4, 1e9 or the least float."""
_MOST = 32
"""Most demands that are kept for one tensor."""


def input_ranges(index: GraphIndex, shapes: Mapping[str, Shape] | None = None) -> dict[str, Range | None]:
    """What the graph implies about each input; None where it implies nothing.

    Args:
        index: The graph.
        shapes: The shapes that its inputs will have. Tables with unknown numbers of rows get known with them.

    Returns:
        One entry for each input, in their order. Strings have none.
    """
    specs = concrete_specs(index, shapes) if shapes else index.specs
    walk = _Walk(index, specs)
    walk.visit(index.nodes)
    result: dict[str, Range | None] = {}
    for name in index.inputs:
        spec = specs.get(name) or index.specs.get(name)
        result[name] = None if spec is None or spec.dtype.kind == "O" else _combine(spec, walk.demands.get(name, ()))
    return result


def _combine(spec: TensorSpec, demands: Sequence[Bound]) -> Range | None:
    """All that is demanded of an input as one range."""
    found, firm = _range(spec, demands), [d for d in demands if not d.hint]
    return None if found is None else replace(found, legal=_range(spec, firm) if firm else None)


def _range(spec: TensorSpec, demands: Iterable[Bound]) -> Range | None:
    """Some demands as one range."""
    integer = not is_float(spec.dtype)
    demands = [d for d in demands if not d.negated]
    if not integer:  # a float that is compared with 0 is most often no mask
        demands = [d for d in demands if not d.mask or d.additive]
    for demand in demands:
        if demand.value is not None:
            return Range(demand.lo, demand.hi + 1, True, demand.reason, value=demand.value)
    if any(d.strict and math.isfinite(d.hi) for d in demands):  # token ids are compared with 0 to find the padding
        demands = [d for d in demands if not d.mask]
    if not demands and re.search(r"(?:^|[_./:-])mask", spec.name, re.IGNORECASE) and spec.dtype.kind in "iub":
        demands = [replace(MASK, reason="a mask, by its name")]
    if not demands and spec.dtype.kind == "b":
        return Range(0, 2, True, "bool")
    mask = bool(demands) and all(d.mask for d in demands)
    integer = integer or mask
    lo, hi, strict, reasons = -math.inf, math.inf, False, []
    for demand in sorted(demands, key=lambda d: not d.strict):  # what is an error outside goes first
        low, high = max(lo, demand.lo), min(hi, demand.hi)
        if integer:
            low, high = _whole(low, math.ceil), _whole(high, math.floor)
        if low > high or (low, high) == (lo, hi):
            continue  # a hint that contradicts an earlier demand, or adds nothing
        lo, hi, strict = low, high, strict or demand.strict
        reasons.append(demand.reason)
    if not reasons:
        return None
    return Range(lo, hi + integer, integer, "; ".join(dict.fromkeys(reasons)), strict, mask=mask)


def _whole(value: float, rounding: Callable[[float], int]) -> float:
    return rounding(value) if math.isfinite(value) else value


class _Walk:
    """Demands by tensor name, collected from the last node to the first. Names are unique across subgraphs."""

    def __init__(self, index: GraphIndex, specs: Mapping[str, TensorSpec]) -> None:
        self.lookup = Lookup(index, specs)
        self.demands: dict[str, tuple[Bound, ...]] = {}

    def visit(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for node in reversed(nodes):
            for body in subgraphs(node):
                self._visit_body(node, body)
            moved = node.output if node.op_type == "Split" else node.output[:1]  # others are positions, masks, counts
            arrived = [bound for name in moved if name for bound in self.demands.get(name, ())]
            for slot, name in enumerate(node.input):
                if name:
                    for bound in self._demanded(node, slot, arrived):
                        self.demand(name, bound)

    def _visit_body(self, node: onnx.NodeProto, body: onnx.GraphProto) -> None:
        for tensor in body.initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL and np.prod(tensor.dims) < 1 << 16:
                self.lookup.inner[tensor.name] = onnx.numpy_helper.to_array(tensor)
        for inside in body.node:
            if inside.op_type == "Constant" and (value := attribute_tensor(inside, "value")) is not None:
                self.lookup.inner[inside.output[0]] = onnx.numpy_helper.to_array(value)
        if node.op_type == "If":
            for inside_name, outside in zip((o.name for o in body.output), node.output, strict=False):
                for bound in self.demands.get(outside, ()):
                    self.demand(inside_name, bound)
        self.visit(list(body.node))
        if node.op_type == "Loop":  # what the body demands of a loop-carried value holds for its first one
            for inside_info, outside in zip(list(body.input)[2:], node.input[2:], strict=False):
                for bound in self.demands.get(inside_info.name, ()):
                    self.demand(outside, bound)

    def demand(self, name: str, bound: Bound) -> None:
        have = self.demands.get(name, ())
        if bound not in have and len(have) < _MOST and (math.isfinite(bound.lo) or math.isfinite(bound.hi)):
            self.demands[name] = (*have, bound)

    # -- what a node asks of one of its inputs ------------------------------------------------------------------------

    def _demanded(self, node: onnx.NodeProto, slot: int, arrived: Sequence[Bound]) -> Iterator[Bound]:
        """Demands on input ``slot``, given those that ``arrived`` at the node's outputs."""
        yield from own_demands(self.lookup, node, slot)
        op = node.op_type
        if operator(node) in WITHIN_RANGE and is_data(node, slot):
            for bound in arrived:
                if bound.value is None or op in ("Identity", "Cast"):
                    yield from self._through_limit(node, slot, bound)
        elif op in ("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Mod", "Sum"):
            for bound in arrived:
                if bound.value is None:
                    yield from self._through_arithmetic(node, slot, bound)
                else:  # a shape put together from this: at least keep it small and positive
                    yield Bound(1, 4, "part of a shape", strict=False)
        if op == "Concat" and any(bound.value is not None for bound in arrived):
            yield Bound(1, 4, "part of a shape", strict=False)
        factor = self.lookup.constant(node, 1 - slot) if op == "Mul" else None
        if factor is not None and np.abs(factor.astype(float)).min() >= _LARGE:
            yield Bound(0, 1, "an attention mask", strict=False, negated=True, mask=True, additive=True)

    def _through_limit(self, node: onnx.NodeProto, slot: int, bound: Bound) -> Iterator[Bound]:
        """A demand seen through a node that moves elements, and perhaps limits them first."""
        low, high = -math.inf, math.inf
        if node.op_type == "Relu":
            low = 0.0
        elif node.op_type == "Clip":
            ends = [self.lookup.constant(node, 1), self.lookup.constant(node, 2)]
            low = attribute_float(node, "min", low) if ends[0] is None else ends[0].item()
            high = attribute_float(node, "max", high) if ends[1] is None else ends[1].item()
        elif node.op_type in ("Max", "Min"):
            others = [self.lookup.constant(node, i) for i in range(len(node.input)) if i != slot]
            if len(others) == 1 and others[0] is not None:
                if node.op_type == "Max":
                    low = float(others[0].min())
                else:
                    high = float(others[0].max())
            elif node.op_type == "Max":
                bound = replace(bound, lo=-math.inf)  # another one may be the larger: only the upper end binds all
            else:
                bound = replace(bound, hi=math.inf)
        yield replace(
            bound, lo=-math.inf if low >= bound.lo else bound.lo, hi=math.inf if high <= bound.hi else bound.hi
        )

    def _through_arithmetic(self, node: onnx.NodeProto, slot: int, bound: Bound) -> Iterator[Bound]:
        op = node.op_type
        if op == "Neg":
            yield replace(bound, lo=-bound.hi, hi=-bound.lo, negated=False)
            return
        if op == "Abs":
            yield replace(bound, lo=-bound.hi, hi=bound.hi, negated=False)
            return
        other = self.lookup.constant(node, 1 - slot) if len(node.input) == 2 else None
        if other is None:
            return
        least, most = float(other.min()), float(other.max())
        lo, hi, negated = bound.lo, bound.hi, False
        if op in ("Add", "Sum"):
            lo, hi = lo - least, hi - most
        elif op == "Sub" and slot == 0:
            lo, hi = lo + most, hi + least
        elif op == "Sub":
            if bound.negated:
                if not least == most == 1:
                    return
                lo, hi = 0, 1
            else:
                lo, hi = most - hi, least - lo
        elif bound.mask and op in ("Mod", "Div"):
            return  # any number is odd or even
        elif op == "Mod" and slot == 0:
            if lo <= 0 and hi >= most - 1:
                return  # always met
            negated = bound.negated
        elif least == most and least != 0 and (op == "Mul" or slot == 0):
            integer = other.dtype.kind in "iu"
            ends = (lo / least, hi / least) if op == "Mul" else (lo * least, (hi + integer) * least - integer)
            lo, hi = min(ends), max(ends)
        else:
            return
        if lo <= hi:
            yield replace(bound, lo=lo, hi=hi, negated=negated)
