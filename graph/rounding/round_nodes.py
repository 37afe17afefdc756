"""Nodes that round float32 tensors to a number format: Cast pairs, or arithmetic that rounds.

ONNX Runtime keeps Cast pairs for FP16 and BF16. TF32 has no type, and FP8 none before opset 19; their grids are reached
by arithmetic that every opset has.
"""

from __future__ import annotations

import math

from onnx import TensorProto

from ..formats import NumberFormat
from ..writer import GraphWriter
from .round_array import SCALED

MAGIC = 1.5 * 2.0**23
"""Added to and taken from |q| < 2^22 in FP32, rounds q to an integer, ties to even."""


def write_rounding(
    writer: GraphWriter,
    number: NumberFormat,
    name: str,
    output: str | None = None,
    *,
    scale: str | None = None,
    weights: bool = False,
    guard: bool = False,
) -> str:
    """Writes the nodes that round a float32 tensor.

    Args:
        writer: Where they are written.
        number: The format.
        name: The tensor.
        output: Name of the result.
        scale: Name of a float32 scalar, for formats that are scaled by a tensor's range; INT8 needs it.
        weights: Clamp what is too large and lift what is too small, as TensorRT does it with weights (`round_array`).
        guard: Keep the Cast away from what reads the result (see `Scope.guarded`).

    Returns:
        The name of the result.
    """
    weights = weights and writer.opset >= 9  # there is no Sign before
    if number.is_integer:
        assert scale is not None
        q = writer.clip(writer.emit("Div", [name, scale]), 127.0, -128.0)
        return writer.emit("Mul", [_integer(writer, q), scale], output)
    scaled = number.name in SCALED
    inner = writer.emit("Div", [name, scale]) if scale else name
    if scaled or weights:
        inner = writer.clip(inner, number.max)
    last = None if weights or scale else output
    if number.name == "fp16" or (number.name == "bf16" and writer.opset >= 13):
        narrowed = writer.cast(inner, TensorProto.FLOAT16 if number.name == "fp16" else TensorProto.BFLOAT16)
        if guard:  # Max of one tensor is itself
            rounded = writer.emit("Max", [writer.cast(narrowed, TensorProto.FLOAT)], last)
        else:
            rounded = writer.cast(narrowed, TensorProto.FLOAT, last)
    elif number.name == "tf32":
        rounded = _veltkamp(writer, inner, last)
    else:
        rounded = _to_grid(writer, number, inner, last)
    if weights:
        least = writer.at_least(writer.emit("Abs", [rounded]), number.smallest_subnormal)
        infinities = not scaled and writer.opset >= 10
        rounded = writer.emit("Mul", [least, writer.emit("Sign", [inner])], None if scale or infinities else output)
        if infinities:  # a mask's -inf is meant
            return writer.emit("Where", [writer.emit("IsInf", [name]), name, rounded], output)
    return writer.emit("Mul", [rounded, scale], output) if scale else rounded


def _integer(writer: GraphWriter, name: str) -> str:
    """Rounds |q| < 2^22 to integers, ties to even."""
    return writer.emit("Sub", [writer.emit("Add", [name, writer.scalar(MAGIC)]), writer.scalar(MAGIC)])


def _veltkamp(writer: GraphWriter, name: str, output: str | None) -> str:
    """The 11 leading bits by Veltkamp's splitting (Dekker 1971): hi = c x - (c x - x), c = 2^13 + 1.

    Correctly rounded for |x| < 2^114; ties go either way. What is larger, infinite or NaN passes through."""
    inside = writer.clip(name, 2.0**113)
    product = writer.emit("Mul", [inside, writer.scalar(2.0**13 + 1)])
    high = writer.emit("Sub", [product, writer.emit("Sub", [product, inside])])
    return writer.emit("Add", [high, writer.emit("Sub", [name, inside])], output)


def _to_grid(writer: GraphWriter, number: NumberFormat, name: str, output: str | None) -> str:
    """Rounds to the format's grid by arithmetic that every opset has: y = rint(x / step) step, step = ulp of x.

    The binade's 2^e is t = 3/4 |x| rounded to one bit by Veltkamp's splitting: for |x| so near 2^(e+1) that it
    rounds up, x rounds there in either binade. BF16 beyond 2^100 passes through."""
    scaled = number.name in SCALED
    precision = round(-math.log2(number.u))
    inside = name if scaled else writer.clip(name, 2.0**100)
    t = writer.emit("Mul", [writer.emit("Abs", [inside]), writer.scalar(0.750001)])
    large = writer.emit("Mul", [t, writer.scalar(2.0**23 + 1)])
    power = writer.emit("Sub", [large, writer.emit("Sub", [large, t])])
    power = writer.at_least(power, number.smallest_normal)
    step = writer.emit("Mul", [power, writer.scalar(2.0 ** (1 - precision))])
    integer = _integer(writer, writer.emit("Div", [inside, step]))
    if scaled:
        return writer.emit("Mul", [integer, step], output)
    return writer.emit("Add", [writer.emit("Mul", [integer, step]), writer.emit("Sub", [name, inside])], output)
