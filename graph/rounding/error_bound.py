"""How far rounding can move a layer's output at most: the same layer on absolute values, times what roundings allow.

For a sum of K products of operands with unit roundoffs u_a and u_b, accumulated with u_acc and rounded to u_out,

    |ŷ - y| <= ((1 + u_a)(1 + u_b)(1 + gamma_K) - 1) (|A||B|) + u_out |ŷ| + subnormal term,
    gamma_K = K u_acc / (1 - K u_acc)

whatever the order of the sum (N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1).
Both sides err, so both sides' coefficients are added. A fused group is bounded node by node in the same way: every
tensor t of it has a magnitude m >= \\|t\\|, made by the layer run on absolute values, and its error is at most c m + e.
Linear nodes carry m through their own operator, activations that bring no two values further apart let errors pass,
functions scale them by their Lipschitz constant (`bound_rules`). An operator without such a rule has no bound.

The bound holds for sums as IEEE arithmetic does them. Winograd's convolution and tensor cores need not obey it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx

from ..cutting.slices import Slice
from ..index import GraphIndex
from ..nodes import subgraphs
from ..operators import operator
from ..specs import TensorSpec
from .bound_rules import RULES
from .bound_writer import BoundWriter
from .roundoff import ErrorBound, RoundoffModel


def add_bounds(
    graph: onnx.GraphProto,
    index: GraphIndex,
    parts: Sequence[tuple[int, Slice]],
    specs: Mapping[str, TensorSpec],
    roundoff: RoundoffModel,
) -> dict[tuple[int, str], ErrorBound]:
    """Adds to an exploded model (see `explode`) what the bounds of its outputs are made of, as further outputs.

    Args:
        graph: The exploded model's graph, in FP32 (see `graph.rounding.noise_probe.perturbed`); it is changed.
        index: The whole graph.
        parts: The slices that the model was made of.
        specs: Types and shapes of the tensors that are fed, as measured.
        roundoff: What is rounded.

    Returns:
        By number of the slice and its output; outputs without a bound are missing.
    """
    result: dict[tuple[int, str], ErrorBound] = {}
    writer = BoundWriter(graph, index, specs, roundoff)
    for number, part in parts:
        result.update({(number, name): bound for name, bound in _bounds_of(writer, number, part).items()})
    graph.initializer.extend(writer.initializers)
    listed = {o.name for o in graph.output}
    for name in dict.fromkeys(t for bound in result.values() for t in bound.tensors()):
        if name not in listed:
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return result


def _bounds_of(writer: BoundWriter, number: int, part: Slice) -> dict[str, ErrorBound]:
    """The bounds of a slice's outputs, as far as they have one."""
    writer.start(number, part)
    for position in part.nodes:
        node = writer.index.nodes[position]
        rule = RULES.get(operator(node))
        before = len(writer.nodes)
        made = None if rule is None or any(True for _ in subgraphs(node)) else rule(writer, node)
        if made is None:
            del writer.nodes[before:]
            continue
        bounds = [made] if isinstance(made, ErrorBound) else made
        writer.bounds.update(zip((name for name in node.output if name), bounds, strict=False))
    found = {name: bound for name in part.outputs if (bound := writer.bounds.get(name)) is not None}
    found = {name: bound for name, bound in found.items() if math.isfinite(bound.relative)}
    if found:
        writer.graph.node.extend(writer.nodes)
    return found
