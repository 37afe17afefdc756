"""The bound of an operator's results from the bounds of what it reads: one rule for each, and a table of them.

See `error_bound` for what a bound is. A rule returns None where it cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx

from ..formats import FP32
from ..nodes import attribute_float, attribute_int, attribute_ints
from ..operators import MAGNITUDES, facts_of
from .bound_writer import BoundWriter, both
from .roundoff import ErrorBound
from .term_count import product_count

Rule: TypeAlias = Callable[[BoundWriter, onnx.NodeProto], ErrorBound | list[ErrorBound] | None]

_FUNCTIONS: Mapping[str, tuple[float, float, float]] = {
    "Sigmoid": (0.25, 0.5, 1.0),
    "Tanh": (1.0, 0.0, 1.0),
    "Erf": (2 / math.sqrt(math.pi), 0.0, 1.0),
    "Softsign": (1.0, 0.0, 1.0),
    "Softplus": (1.0, math.log(2), math.inf),
    "Gelu": (1.13, 0.0, math.inf),
    "HardSwish": (1.5, 0.0, math.inf),
    "Mish": (1.1, 0.0, math.inf),
    "Sin": (1.0, 0.0, 1.0),
    "Cos": (1.0, 1.0, 1.0),
}
"""Lipschitz constant, |f(0)| and greatest magnitude."""

_LIBRARY = 64.0
"""Units roundoff of FP32 that a library's function may be off by, relative to its greatest magnitude: more than any
that is in use, since a bound must not accuse."""


# -- values that pass ----------------------------------------------------------------------------------------------


def _move(w: BoundWriter, node: onnx.NodeProto) -> list[ErrorBound] | None:
    """Data movement and the greatest of some elements: the operator itself on magnitudes, and on what is added."""
    data = facts_of(node).data
    count = len(node.input) if data is None else len(data)
    bounds = [w.bound(name) for name in node.input[:count]]
    rest = [w.raw(name) for name in node.input[count:]]
    known, others = [b for b in bounds if b is not None], [r for r in rest if r is not None]
    if len(known) < len(bounds) or len(others) < len(rest):
        return None
    magnitudes = w.repeat(node, [*(b.magnitude for b in known), *others])
    extras: list[str | None] = [None] * len(magnitudes)
    if any(b.extra for b in known):
        extras = list(w.repeat(node, [*(b.extra or w.zeros_like(b.magnitude) for b in known), *others]))
    relative, roundings = max(b.relative for b in known), max(b.roundings for b in known)
    made = [ErrorBound(m, relative, e, roundings) for m, e in zip(magnitudes, extras, strict=True) if m]
    return made[:1] if node.op_type in ("MaxPool", "Dropout") else made  # the other outputs are no floats


def _pass(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    """Values are no larger and no further apart afterwards."""
    return w.bound(node.input[0])


def _leaky_relu(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    return _sloped(w, node, abs(attribute_float(node, "alpha", 0.01)))


def _prelu(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    slope = w.value(node.input[1])
    return None if slope is None or not slope.size else _sloped(w, node, float(np.abs(slope).max()))


def _sloped(w: BoundWriter, node: onnx.NodeProto, slope: float) -> ErrorBound | None:
    bound = w.bound(node.input[0])
    if bound is None or not slope <= 1:
        return None
    relative = w.rounded(both(bound.relative, w.roundoff.source))
    return replace(bound, relative=relative, roundings=bound.roundings + 1)


def _clip(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    ends = [attribute_float(node, "min", -math.inf), attribute_float(node, "max", math.inf)]
    for slot in (1, 2):
        if len(node.input) > slot and node.input[slot]:
            value = w.value(node.input[slot])
            if value is None or value.size != 1:
                return None
            ends[slot - 1] = float(value.reshape(-1)[0])
    bound = w.bound(node.input[0])
    if bound is None or not ends[0] <= 0 <= ends[1]:
        return None
    # the ends may be rounded too
    end = max((abs(e) for e in ends if math.isfinite(e)), default=0.0)
    if not w.roundoff.source or not end:
        return bound
    off = w.emit("Add", [w.zeros_like(bound.magnitude), w.scalar(w.roundoff.source * end)])
    return replace(bound, extra=w.sum(bound.extra, off))


def _cast(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    bound = w.bound(node.input[0])
    if bound is None or attribute_int(node, "to") not in floats:
        return None
    return replace(bound, relative=w.rounded(bound.relative), roundings=bound.roundings + 1)


def _dequantize(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    inputs = [w.raw(name) for name in node.input]
    if any(i is None for i in inputs):
        return None
    value = w.repeat(node, [i or "" for i in inputs])[0]
    return ErrorBound(w.emit("Abs", [value]), both(w.roundoff.source, 4 * FP32.u), None, 2)


# -- sums and products ---------------------------------------------------------------------------------------------


def _add(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    bounds = [w.bound(name) for name in node.input]
    known = [b for b in bounds if b is not None]
    if len(known) < len(bounds) or not known:
        return None
    total = known[0]
    for other in known[1:]:
        magnitude = w.emit("Add", [total.magnitude, other.magnitude])
        extra = None
        if total.extra or other.extra:  # of the shape of the sum
            extra = w.scaled(w.sum(w.sum(w.zeros_like(magnitude), total.extra), other.extra), 1 + w.roundoff.node)
        relative = w.rounded(max(total.relative, other.relative))
        total = ErrorBound(magnitude, relative, extra, max(total.roundings, other.roundings) + 1)
    return total


def _multiply(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    return _product(w, node, 1, w.bound(node.input[0]), w.bound(node.input[1]))


def _square(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    """Pow, where the exponent is 2."""
    power = w.value(node.input[1])
    if power is None or power.size != 1 or float(power.reshape(-1)[0]) != 2:
        return None
    bound = w.bound(node.input[0])
    return _product(w, onnx.helper.make_node("Mul", ["a", "a"], ["b"]), 4, bound, bound)


def _divide(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    """By a constant."""
    bound, divisor = w.bound(node.input[0]), w.value(node.input[1])
    if bound is None or divisor is None or divisor.dtype.kind != "f" or not divisor.size:
        return None
    sizes = np.abs(divisor.astype(np.float32))
    least = float(sizes.min())
    if not least or least < 2 * w.roundoff.normal:
        return None
    inverse = w.floats(1 / sizes)
    relative = w.rounded(both(both(bound.relative, 2 * w.roundoff.source), 4 * FP32.u))
    extra = bound.extra and w.emit("Mul", [bound.extra, inverse])
    magnitude = w.emit("Mul", [bound.magnitude, inverse])
    return ErrorBound(magnitude, relative, w.scaled(extra, 1 + relative), bound.roundings + 3)


def _contract(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    """Convolutions and matrix products."""
    count = product_count(node, w.shape)
    if count is None:
        return None
    made = _product(w, node, count, w.operand(node.input[0]), w.operand(node.input[1]))
    if made is None or len(node.input) < 3 or not node.input[2]:
        return made
    bias = w.bound(node.input[2])
    if bias is None:
        return None
    magnitude = bias.magnitude
    if node.op_type == "Gemm":
        magnitude = w.times(magnitude, abs(attribute_float(node, "beta", 1.0)))
    else:  # one for each channel, of as many axes as the result
        weight = w.shape(node.input[1])
        if weight is None:
            return None
        magnitude = w.emit("Reshape", [magnitude, w.ints(1, -1, *[1] * (len(weight) - 2))])
    total = w.emit("Add", [made.magnitude, magnitude])
    relative = w.rounded(max(made.relative, both(bias.relative, w.roundoff.gamma(1))))
    return ErrorBound(total, relative, made.extra, made.roundings + 1)


def _einsum(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    return _contract(w, node) if len(node.input) == 2 else None


def _product(
    w: BoundWriter, node: onnx.NodeProto, count: int, a: ErrorBound | None, b: ErrorBound | None
) -> ErrorBound | None:
    """What is linear in each of two operands: sums of ``count`` products."""
    if a is None or b is None:
        return None
    bare = onnx.NodeProto()
    bare.CopyFrom(node)
    for each in bare.attribute:
        if each.name == "alpha":  # of a Gemm
            each.f = abs(each.f)

    def run(x: str, y: str) -> str:
        return w.repeat(bare, [x, y])[0]

    magnitude = run(a.magnitude, b.magnitude)
    relative = w.rounded(both(both(a.relative, b.relative), w.roundoff.gamma(count)))
    extra = None
    # (m_a + e_a)(m_b + e_b) - m_a m_b, with the relative parts around it
    if a.extra is not None:
        extra = run(a.extra, b.magnitude if b.extra is None else w.emit("Add", [b.magnitude, b.extra]))
    if b.extra is not None:
        extra = w.sum(extra, run(a.magnitude, b.extra))
    return ErrorBound(magnitude, relative, w.scaled(extra, 1 + relative), a.roundings + b.roundings + count)


def _batch_normalize(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    x = w.bound(node.input[0])
    variance = w.value(node.input[4])
    if x is None or attribute_int(node, "training_mode", 0) or len([o for o in node.output if o]) > 1:
        return None
    if variance is None or not variance.size or float(variance.min()) < 2 * w.roundoff.normal:
        return None
    if any(n not in w.index.initializers for n in node.input[1:]):
        return None
    scale, bias, mean = (w.emit("Abs", [n]) for n in node.input[1:4])
    away = w.emit("Neg", [mean])
    magnitude = w.repeat(node, [x.magnitude, scale, bias, away, node.input[4]])[0]
    # the parameters are rounded, folded into a weight and a bias, and rounded again
    relative = x.relative
    for _ in range(3):
        relative = w.rounded(both(both(relative, w.roundoff.source), 2 * FP32.u))
    extra = None
    if x.extra is not None:
        zero = w.zeros_like(bias)
        extra = w.scaled(w.repeat(node, [x.extra, scale, zero, zero, node.input[4]])[0], 1 + relative)
    return ErrorBound(magnitude, relative, extra, x.roundings + 8)


def _average_pool(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    return _summed(w, node, math.prod(attribute_ints(node, "kernel_shape", [])))


def _global_average_pool(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    shape = w.shape(node.input[0])
    return None if shape is None else _summed(w, node, math.prod(shape[2:]))


def _reduce(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    shape = w.shape(node.input[0])
    return None if shape is None else _summed(w, node, math.prod(shape))


def _summed(w: BoundWriter, node: onnx.NodeProto, count: int) -> ErrorBound | None:
    """A sum or a mean over at most ``count`` elements."""
    bound = w.bound(node.input[0])
    rest = [w.raw(name) for name in node.input[1:]]
    others = [r for r in rest if r is not None]
    if bound is None or len(others) < len(rest):
        return None
    relative = w.rounded(both(bound.relative, w.roundoff.gamma(count + 2)))
    extra = bound.extra and w.repeat(node, [bound.extra, *others])[0]
    magnitude = w.repeat(node, [bound.magnitude, *others])[0]
    return ErrorBound(magnitude, relative, w.scaled(extra, 1 + relative), bound.roundings + count + 2)


# -- functions -----------------------------------------------------------------------------------------------------


def _function(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    bound = w.bound(node.input[0])
    if bound is None:
        return None
    slope, start, most = _FUNCTIONS[node.op_type]
    magnitude = w.times(bound.magnitude, slope)
    if start:
        magnitude = w.emit("Add", [magnitude, w.scalar(start)])
    if math.isfinite(most):
        magnitude = w.emit("Min", [magnitude, w.scalar(most)])
    off = w.times(w.whole(bound), slope)
    # a library's error is relative to the function's greatest value, or to its argument
    level = w.at_least(magnitude, most) if math.isfinite(most) else magnitude
    extra = w.sum(off, w.times(level, _LIBRARY * FP32.u))
    return ErrorBound(magnitude, w.rounded(0.0), extra, bound.roundings + 3)


def _softmax(w: BoundWriter, node: onnx.NodeProto) -> ErrorBound | None:
    """Of what the layer is given, since it takes values and not magnitudes.

    Inputs that move by at most d multiply a share by at most exp(2 d). Subtracting the greatest input rounds once
    more, by at most the roundoff of twice the greatest magnitude; exponential, sum and quotient are relative. Kernels
    of some CPUs give zero where the exponential is below FP32's smallest normal number.
    """
    name, roundoff = node.input[0], w.roundoff
    bound, shape = w.bound(name), w.shape(name)
    if bound is None or shape is None or not w.is_given(name):
        return None
    axis = attribute_int(node, "axis", -1 if w.opset >= 13 else 1) % len(shape)
    if w.opset < 13 and axis != len(shape) - 1:  # over several axes at once
        return None
    value = w.repeat(node, [name])[0]
    exponent = w.emit("Add", [w.whole(bound), w.times(bound.magnitude, 4 * roundoff.node)])
    most = w.reduce("ReduceMax", exponent, [axis])
    grown = w.emit("Exp", [w.emit("Mul", [most, w.scalar(2.0)])])
    count = shape[axis] + 2
    others = roundoff.gamma(count) + 4 * roundoff.node + _LIBRARY * FP32.u - 1.0
    extra = w.emit("Mul", [value, w.emit("Add", [grown, w.scalar(others)])])
    extra = w.emit("Add", [extra, w.scalar(FP32.smallest_normal)])
    return ErrorBound(value, w.rounded(0.0), extra, count)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(MAGNITUDES, _move),
    **dict.fromkeys(_FUNCTIONS, _function),
    **dict.fromkeys(("Relu", "Abs", "Neg"), _pass),
    **dict.fromkeys(("Add", "Sub", "Sum"), _add),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _contract),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalize,
    "Cast": _cast,
    "Clip": _clip,
    "DequantizeLinear": _dequantize,
    "Div": _divide,
    "Einsum": _einsum,
    "GlobalAveragePool": _global_average_pool,
    "LeakyRelu": _leaky_relu,
    "Mul": _multiply,
    "PRelu": _prelu,
    "Pow": _square,
    "Softmax": _softmax,
}
"""The rule of each operator that has one."""
