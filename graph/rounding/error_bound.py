"""How far rounding can move a layer's output at most: the same layer on absolute values, times what roundings allow.

For a sum of K products of operands with unit roundoffs u_a and u_b, accumulated with u_acc and rounded to u_out,

    |ŷ - y| <= ((1 + u_a)(1 + u_b)(1 + gamma_K) - 1) (|A||B|) + u_out |ŷ| + subnormal term,
    gamma_K = K u_acc / (1 - K u_acc)

whatever the order of the sum (N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1).
Both sides err, so both sides' coefficients are added. A fused group is bounded node by node in the same way: every
tensor t of it has a magnitude m >= \\|t\\|, made by the layer run on absolute values, and its error is at most c m + e.
Linear nodes carry m through their own operator, activations that bring no two values further apart let errors pass,
functions scale them by their Lipschitz constant. An operator without such a rule has no bound.

The bound holds for sums as IEEE arithmetic does them. Winograd's convolution and tensor cores need not obey it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import numpy_helper

from ..cutting.slices import SEPARATOR, Slice, exploded_name
from ..formats import FP16, FP32, NumberFormat
from ..index import GraphIndex, attribute
from ..operators import MAGNITUDES, SHAPES, facts_of
from ..specs import TensorSpec

# fmt: off
_PASSES = frozenset({"Relu", "Abs", "Neg"})
"""Operators after which values are no larger and no further apart."""

_FUNCTIONS: Mapping[str, tuple[float, float, float]] = {
    "Sigmoid": (0.25, 0.5, 1.0), "Tanh": (1.0, 0.0, 1.0), "Erf": (2 / math.sqrt(math.pi), 0.0, 1.0),
    "Softsign": (1.0, 0.0, 1.0), "Softplus": (1.0, math.log(2), math.inf), "Gelu": (1.13, 0.0, math.inf),
    "HardSwish": (1.5, 0.0, math.inf), "Mish": (1.1, 0.0, math.inf), "Sin": (1.0, 0.0, 1.0), "Cos": (1.0, 1.0, 1.0),
}
"""Lipschitz constant, |f(0)| and greatest magnitude."""

_WIDENED = ("float32", "float16", "bfloat16")
"""Types that are FP32 in the graph that bounds are added to (see `graph.rounding.noise_probe.widen`)."""

_LIBRARY = 64.0
"""Units roundoff of FP32 that a library's function may be off by, relative to its greatest magnitude: more than any
that is in use, since a bound must not accuse."""
# fmt: on


@dataclass(frozen=True)
class Precision:
    """What both sides of a comparison may round, as unit roundoffs; where both do, their sum.

    Attributes:
        source: Of what a layer is given, and of its weights.
        operand: Of the operands of products, beyond that.
        node: Of what a node returns.
        adding: Of one addition, on either side.
        normal: The smallest normal number of what a layer is given: below it the error is absolute.
        tiny: The smallest subnormal numbers of results, and of sums.
        largest: Of operands that are scaled by their range: that range by tensor. None: not scaled.
        full: The format's number that the range is scaled to.
        integer: Whether operands are scaled integers.
        proven: Whether both sides are known to add as IEEE arithmetic does.
    """

    source: float
    operand: float
    node: float
    adding: tuple[float, float]
    normal: float
    tiny: tuple[float, float]
    largest: Mapping[str, float] | None = field(default=None, hash=False)
    full: float = 1.0
    integer: bool = False
    proven: bool = True

    def gamma(self, count: int) -> float:
        """What ``count`` roundings of sums on both sides come to; infinite where nothing can be said."""
        return sum(count * u / (1 - count * u) if count * u < 0.5 else math.inf for u in self.adding)

    def adding_in(self, fmt: NumberFormat) -> Precision:
        """The same with a candidate that adds in a narrower format."""
        return replace(self, adding=(self.adding[0], fmt.u), tiny=(self.tiny[0], fmt.smallest_subnormal))


def precision(
    reference: NumberFormat,
    candidate: NumberFormat,
    accumulator: NumberFormat = FP32,
    *,
    largest: Mapping[str, float] | None = None,
    proven: bool = True,
) -> Precision | None:
    """The roundings of two sides that compute layers in these formats, the reference adding in FP32.

    Args:
        reference, candidate: Formats of operands and results.
        accumulator: The format in which the candidate adds.
        largest: Ranges that the operands of scaled formats (INT8, FP8) are scaled by, by tensor.
        proven: Whether both are known to add as IEEE arithmetic does.

    Returns:
        None where a scaled format's ranges are not known.
    """
    adding = (FP32.u, accumulator.u)
    tiny = FP32.smallest_subnormal + accumulator.smallest_subnormal
    coarse = [f for f in (reference, candidate) if f.is_integer or f.u > FP32.u]
    fine = 2 * FP32.u
    scaled = [f for f in coarse if f.is_integer or f.name in ("e4m3", "e5m2")]
    if scaled:
        if len(coarse) > 1 or largest is None:
            return None
        # what is not a product's operand is kept in FP16 in practice
        fmt = scaled[0]
        return Precision(
            source=FP16.u,
            operand=0.0 if fmt.is_integer else fmt.u,
            node=fine + FP16.u,
            adding=adding,
            normal=FP16.smallest_normal if fmt.is_integer else fmt.smallest_normal,
            tiny=(FP16.smallest_subnormal, tiny),
            largest=largest,
            full=fmt.max,
            integer=fmt.is_integer,
            proven=proven,
        )
    stored = sum(f.u for f in coarse if f.dtype != "float32")
    return Precision(
        source=stored,
        operand=sum(f.u for f in coarse) - stored,
        node=fine + sum(f.u for f in coarse),
        adding=adding,
        normal=max((f.smallest_normal for f in coarse), default=0.0),
        tiny=(sum(f.smallest_subnormal for f in (reference, candidate)), tiny),
        proven=proven,
    )


@dataclass(frozen=True)
class Form:
    """The bound of a tensor's error: ``relative * magnitude + extra``.

    Attributes:
        magnitude: The tensor that holds it.
        relative: Its factor.
        extra: The tensor that holds what is added, if anything is.
        terms: Roundings on the way, of which the magnitude itself has as many.
    """

    magnitude: str
    relative: float
    extra: str | None
    terms: int

    def tensors(self) -> tuple[str, ...]:
        """The tensors that it is made of."""
        return (self.magnitude,) if self.extra is None else (self.magnitude, self.extra)

    def value(
        self, made: Mapping[str, np.ndarray], result: np.ndarray, precision: Precision, step: float = 0.0
    ) -> np.ndarray:
        """The largest error that rounding explains, float64, of the result's shape.

        Args:
            made: The tensors that the form is made of.
            result: What the candidate returned.
            precision: What was rounded.
            step: An absolute error of results that no other term covers.
        """
        slack = 1 + 2 * self.terms * FP32.u
        with np.errstate(all="ignore"):
            total = (self.relative * slack) * made[self.magnitude].astype(np.float64)
            if self.extra is not None:
                total = total + slack * made[self.extra]
            total = total + precision.node * np.abs(result.astype(np.float64))
        return np.asarray(total + (step + precision.tiny[0] + self.terms * precision.tiny[1]))


def add_bounds(
    graph: onnx.GraphProto,
    index: GraphIndex,
    parts: Sequence[tuple[int, Slice]],
    specs: Mapping[str, TensorSpec],
    precision: Precision,
) -> dict[tuple[int, str], Form]:
    """Adds to an exploded model (see `explode`) what the bounds of its outputs are made of, as further outputs.

    Args:
        graph: The exploded model's graph, in FP32 (see `graph.rounding.noise_probe.perturbed`); it is changed.
        index: The whole graph.
        parts: The slices that the model was made of.
        specs: Types and shapes of the tensors that are fed, as measured.
        precision: What is rounded.

    Returns:
        By number of the slice and its output; outputs without a bound are missing.
    """
    result: dict[tuple[int, str], Form] = {}
    writer = _Writer(graph, index, specs, precision)
    for number, part in parts:
        result.update({(number, name): form for name, form in writer.bound(number, part).items()})
    listed = {o.name for o in graph.output}
    for name in dict.fromkeys(t for form in result.values() for t in form.tensors()):
        if name not in listed:
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return result


class _Writer:
    def __init__(
        self, graph: onnx.GraphProto, index: GraphIndex, specs: Mapping[str, TensorSpec], precision: Precision
    ) -> None:
        self.graph = graph
        self.index = index
        self.specs = specs
        self.p = precision
        self.opset = index.opset.get("", 1)
        self.count = 0
        self.scalars: dict[float, str] = {}
        self.sources: dict[str, Form | None] = {}
        self.number = 0
        self.part = Slice((), (), ())
        self.forms: dict[str, Form] = {}
        self.pending: list[onnx.NodeProto] = []

    # -- a slice ------------------------------------------------------------------------------------------------

    def bound(self, number: int, part: Slice) -> dict[str, Form]:
        """The forms of a slice's outputs, as far as they have one."""
        self.number, self.part, self.forms, self.pending = number, part, {}, []
        for position in part.nodes:
            node = self.index.nodes[position]
            before = len(self.pending)
            made = self._node(node)
            if made is None:
                del self.pending[before:]
                continue
            outputs = [name for name in node.output if name]
            self.forms.update(dict(zip(outputs, made, strict=False)))
        found = {n: f for n in part.outputs if (f := self.forms.get(n)) is not None and math.isfinite(f.relative)}
        if found:
            self.graph.node.extend(self.pending)
        return found

    def _node(self, node: onnx.NodeProto) -> list[Form] | None:
        """The forms of a node's outputs; None where there is no rule."""
        op = node.op_type
        if node.domain not in ("", "ai.onnx", "com.microsoft") or any(a.HasField("g") for a in node.attribute):
            return None
        rule: Callable[[onnx.NodeProto], list[Form] | Form | None] | None = getattr(self, f"_on_{op.lower()}", None)
        if op in MAGNITUDES:
            rule = self._move
        elif op in _PASSES:
            rule = self._pass
        elif op in _FUNCTIONS:
            rule = self._function
        if rule is None:
            return None
        made = rule(node)
        return [made] if isinstance(made, Form) else made

    # -- tensors ------------------------------------------------------------------------------------------------

    def form(self, name: str) -> Form | None:
        """The form of what a node reads; None where it has none."""
        if name in self.forms:
            return self.forms[name]
        if name in self.index.initializers or name in self.part.inputs:
            if name not in self.sources:
                self.sources[name] = self._source(name) if self._floating(name) else None
            return self.sources[name]
        value = self.constant(name)
        if value is not None and value.dtype.name in _WIDENED:
            if name not in self.sources:
                self.sources[name] = self._source(self._initializer(value.astype(np.float32)))
            return self.sources[name]
        return None

    def _floating(self, name: str) -> bool:
        spec = self.specs.get(name) or self.index.specs.get(name)
        return spec is not None and spec.dtype.name in _WIDENED

    def _source(self, tensor: str) -> Form:
        """The form of what is given. It may serve many slices, so it stands before all of them."""
        waiting, self.pending = self.pending, []
        magnitude = self.emit("Abs", [tensor])
        if self.p.source:
            # below the smallest normal number a rounding is at most u of that; too small weights become a subnormal
            floor = 2 * (FP16.smallest_normal if self.p.largest is not None else self.p.normal)
            magnitude = self.emit("Max", [magnitude, self.scalar(floor)])
        self.graph.node.extend(self.pending)
        self.pending = waiting
        return Form(magnitude, self.p.source, None, 0)

    def operand(self, name: str) -> Form | None:
        """The form of a product's operand, as the candidate rounds it when it reads it."""
        form = self.form(name)
        if form is None or self.p.largest is None:
            return form if form is None else replace(form, relative=_both(form.relative, self.p.operand))
        largest = self.p.largest.get(name)
        if largest is None:
            weight = self.constant(name)
            if weight is None or not weight.size:
                return None
            largest = float(np.abs(weight.astype(np.float32)).max())
        if not math.isfinite(largest):
            return None
        beyond = self.emit("Sub", [form.magnitude, self.scalar(largest)])
        if self.p.integer:
            off = self.emit("Max", [beyond, self.scalar(0.51 * largest / self.p.full)])
            return replace(form, extra=self._sum(form.extra, off))
        floor = self.scalar(2 * self.p.normal * largest / self.p.full)
        off = self.emit("Max", [beyond, self.scalar(0.0)])
        magnitude = self.emit("Max", [form.magnitude, floor])
        return Form(magnitude, _both(form.relative, self.p.operand), self._sum(form.extra, off), form.terms)

    def constant(self, name: str) -> np.ndarray | None:
        """A value that is the same for every input."""
        value = self.index.weight(name)
        return value if value is not None else self.index.constant(name)

    def raw(self, name: str) -> str | None:
        """A tensor that is no float, as the exploded model holds it: sizes, indices, axes."""
        if not name or name in self.index.initializers or name in self.part.inputs:
            return name
        return exploded_name(name, self.number) if self._clean(name) else None

    def _clean(self, name: str) -> bool:
        """Whether a tensor depends on no float's value: on shapes, constants and integers that are given."""
        if name in self.index.initializers:
            return True
        if name in self.part.inputs:
            return not self._floating(name)
        position = self.index.producer.get(name)
        if position is None or position not in self.part.nodes:
            return False
        node = self.index.nodes[position]
        if node.op_type in SHAPES | {"Constant"}:
            return True
        return bool(node.input) and all(self._clean(n) for n in self.index.reads[position])

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, where every dimension is known."""
        weight = self.index.initializers.get(name)
        if weight is not None:
            return tuple(weight.dims)
        spec = self.specs.get(name) or self.index.specs.get(name)
        if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
            return None
        return tuple(d for d in spec.shape if isinstance(d, int))

    # -- writing ------------------------------------------------------------------------------------------------

    def _fresh(self) -> str:
        self.count += 1
        return f"{SEPARATOR}bound{SEPARATOR}{self.count}"

    def emit(self, op: str, inputs: Sequence[str], **attributes: object) -> str:
        name = self._fresh()
        self.pending.append(onnx.helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def again(self, node: onnx.NodeProto, inputs: Sequence[str]) -> list[str]:
        """The same node on other inputs. Returns its outputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        copy.output[:] = [self._fresh() if name else "" for name in node.output]
        copy.name = copy.output[0]
        self.pending.append(copy)
        return list(copy.output)

    def scalar(self, value: float) -> str:
        if value not in self.scalars:
            self.scalars[value] = self._initializer(np.float32(value))
        return self.scalars[value]

    def _initializer(self, value: np.ndarray | np.float32) -> str:
        name = self._fresh()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def _sum(self, a: str | None, b: str | None) -> str | None:
        if a is None or b is None:
            return a or b
        return self.emit("Add", [a, b])

    def _scaled(self, name: str | None, factor: float) -> str | None:
        return name if name is None or factor == 1 else self.emit("Mul", [name, self.scalar(factor)])

    def _whole(self, form: Form) -> str:
        """The whole bound of an error as one tensor."""
        part = self._scaled(form.magnitude, form.relative)
        assert part is not None
        return self._sum(part, form.extra) or part

    # -- rules --------------------------------------------------------------------------------------------------

    def _move(self, node: onnx.NodeProto) -> list[Form] | None:
        data = facts_of(node).data
        count = len(node.input) if data is None else len(data)
        forms = [self.form(name) for name in node.input[:count]]
        rest = [self.raw(name) for name in node.input[count:]]
        if any(f is None for f in forms) or any(r is None for r in rest):
            return None
        known = [f for f in forms if f is not None]
        others = [r for r in rest if r is not None]
        magnitudes = self.again(node, [*(f.magnitude for f in known), *others])
        extras: list[str | None] = [None] * len(magnitudes)
        if any(f.extra for f in known):
            zeros = [f.extra or self.emit("Sub", [f.magnitude, f.magnitude]) for f in known]
            extras = list(self.again(node, [*zeros, *others]))
        relative, terms = max(f.relative for f in known), max(f.terms for f in known)
        made = [Form(m, relative, e, terms) for m, e in zip(magnitudes, extras, strict=True) if m]
        return made[:1] if node.op_type in ("MaxPool", "Dropout") else made  # the other outputs are no floats

    def _pass(self, node: onnx.NodeProto) -> Form | None:
        return self.form(node.input[0])

    def _on_leakyrelu(self, node: onnx.NodeProto) -> Form | None:
        alpha = attribute(node, "alpha", 0.01)
        return self._sloped(node, abs(float(alpha)))  # type: ignore[arg-type]

    def _on_prelu(self, node: onnx.NodeProto) -> Form | None:
        slope = self.constant(node.input[1])
        return None if slope is None or not slope.size else self._sloped(node, float(np.abs(slope).max()))

    def _sloped(self, node: onnx.NodeProto, slope: float) -> Form | None:
        form = self.form(node.input[0])
        if form is None or not slope <= 1:
            return None
        return replace(form, relative=self._rounded(_both(form.relative, self.p.source)), terms=form.terms + 1)

    def _on_clip(self, node: onnx.NodeProto) -> Form | None:
        low, high = attribute(node, "min", -math.inf), attribute(node, "max", math.inf)
        ends = [float(low), float(high)]  # type: ignore[arg-type]
        for slot in (1, 2):
            if len(node.input) > slot and node.input[slot]:
                value = self.constant(node.input[slot])
                if value is None or value.size != 1:
                    return None
                ends[slot - 1] = float(value.reshape(-1)[0])
        form = self.form(node.input[0])
        if form is None or not ends[0] <= 0 <= ends[1]:
            return None
        # the ends may be rounded too
        end = max((abs(e) for e in ends if math.isfinite(e)), default=0.0)
        if not self.p.source or not end:
            return form
        off = self.emit("Add", [self.emit("Sub", [form.magnitude, form.magnitude]), self.scalar(self.p.source * end)])
        return replace(form, extra=self._sum(form.extra, off))

    def _on_cast(self, node: onnx.NodeProto) -> Form | None:
        narrow = {onnx.TensorProto.FLOAT: 0.0, onnx.TensorProto.FLOAT16: 1.0, onnx.TensorProto.BFLOAT16: 1.0}
        form = self.form(node.input[0])
        if form is None or attribute(node, "to") not in narrow:
            return None
        return replace(form, relative=self._rounded(form.relative), terms=form.terms + 1)

    def _on_dequantizelinear(self, node: onnx.NodeProto) -> Form | None:
        inputs = [self.raw(name) for name in node.input]
        if any(i is None for i in inputs):
            return None
        value = self.again(node, [i or "" for i in inputs])[0]
        return Form(self.emit("Abs", [value]), _both(self.p.source, 4 * FP32.u), None, 2)

    def _on_add(self, node: onnx.NodeProto) -> Form | None:
        forms = [self.form(name) for name in node.input]
        known = [f for f in forms if f is not None]
        if len(known) < len(forms) or not known:
            return None
        total = known[0]
        for other in known[1:]:
            magnitude = self.emit("Add", [total.magnitude, other.magnitude])
            extra = None
            if total.extra or other.extra:
                zero = self.emit("Sub", [magnitude, magnitude])  # takes the shape of the sum
                extra = self._sum(self._sum(zero, total.extra), other.extra)
            relative = self._rounded(max(total.relative, other.relative))
            total = Form(magnitude, relative, self._scaled(extra, 1 + self.p.node), max(total.terms, other.terms) + 1)
        return total

    _on_sub = _on_sum = _on_add

    def _on_mul(self, node: onnx.NodeProto) -> Form | None:
        return self._product(node, 1, self.form(node.input[0]), self.form(node.input[1]), "Mul")

    def _on_div(self, node: onnx.NodeProto) -> Form | None:
        form, divisor = self.form(node.input[0]), self.constant(node.input[1])
        if form is None or divisor is None or divisor.dtype.kind != "f" or not divisor.size:
            return None
        least = float(np.abs(divisor.astype(np.float32)).min())
        if not least or least < 2 * self.p.normal:
            return None
        inverse = self._initializer(1 / np.abs(divisor.astype(np.float32)))
        relative = self._rounded(_both(_both(form.relative, 2 * self.p.source), 4 * FP32.u))
        extra = form.extra and self.emit("Mul", [form.extra, inverse])
        magnitude = self.emit("Mul", [form.magnitude, inverse])
        return Form(magnitude, relative, self._scaled(extra, 1 + relative), form.terms + 3)

    def _on_pow(self, node: onnx.NodeProto) -> Form | None:
        power = self.constant(node.input[1])
        if power is None or power.size != 1 or float(power.reshape(-1)[0]) != 2:
            return None
        form = self.form(node.input[0])
        return self._product(onnx.helper.make_node("Mul", ["a", "a"], ["b"]), 4, form, form, "Mul")

    def _on_matmul(self, node: onnx.NodeProto) -> Form | None:
        return self._contraction(node)

    _on_conv = _on_convtranspose = _on_gemm = _on_matmul

    def _on_einsum(self, node: onnx.NodeProto) -> Form | None:
        return self._contraction(node) if len(node.input) == 2 else None

    def _contraction(self, node: onnx.NodeProto) -> Form | None:
        count = products(node, self.shape)
        if count is None:
            return None
        made = self._product(node, count, self.operand(node.input[0]), self.operand(node.input[1]), node.op_type)
        if made is None or len(node.input) < 3 or not node.input[2]:
            return made
        bias = self.form(node.input[2])
        if bias is None:
            return None
        magnitude = bias.magnitude
        if node.op_type == "Gemm":
            magnitude = self._scaled(magnitude, abs(float(attribute(node, "beta", 1.0)))) or magnitude  # type: ignore[arg-type]
        else:  # one for each channel, of as many axes as the result
            rank = self._rank(node)
            if rank is None:
                return None
            shape = self._integers([1, -1, *[1] * (rank - 2)])
            magnitude = self.emit("Reshape", [magnitude, shape])
        total = self.emit("Add", [made.magnitude, magnitude])
        relative = self._rounded(max(made.relative, _both(bias.relative, self.p.gamma(1))))
        return Form(total, relative, made.extra, made.terms + 1)

    def _rank(self, node: onnx.NodeProto) -> int | None:
        shape = self.shape(node.input[1])
        return None if shape is None else len(shape)

    def _integers(self, values: Sequence[int]) -> str:
        name = self._fresh()
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def _product(self, node: onnx.NodeProto, count: int, a: Form | None, b: Form | None, op: str) -> Form | None:
        """What is linear in each of two operands: sums of ``count`` products."""
        if a is None or b is None:
            return None

        def run(x: str, y: str) -> str:
            bare = onnx.NodeProto()
            bare.CopyFrom(node)
            if op == "Gemm":
                for each in bare.attribute:
                    if each.name == "alpha":
                        each.f = abs(each.f)
            return self.again(bare, [x, y])[0]

        magnitude = run(a.magnitude, b.magnitude)
        sums = self.p.gamma(count)
        relative = self._rounded(_both(_both(a.relative, b.relative), sums))
        extra = None
        # (m_a + e_a)(m_b + e_b) - m_a m_b, with the relative parts around it
        if a.extra is not None:
            extra = run(a.extra, b.magnitude if b.extra is None else self.emit("Add", [b.magnitude, b.extra]))
        if b.extra is not None:
            extra = self._sum(extra, run(a.magnitude, b.extra))
        return Form(magnitude, relative, self._scaled(extra, 1 + relative), a.terms + b.terms + count)

    def _on_batchnormalization(self, node: onnx.NodeProto) -> Form | None:
        x = self.form(node.input[0])
        variance = self.constant(node.input[4])
        if x is None or attribute(node, "training_mode", 0) or len([o for o in node.output if o]) > 1:
            return None
        if variance is None or not variance.size or float(variance.min()) < 2 * self.p.normal:
            return None
        if any(n not in self.index.initializers for n in node.input[1:]):
            return None
        scale, bias, mean = (self.emit("Abs", [n]) for n in node.input[1:4])
        away = self.emit("Neg", [mean])
        magnitude = self.again(node, [x.magnitude, scale, bias, away, node.input[4]])[0]
        # the parameters are rounded, folded into a weight and a bias, and rounded again
        relative = x.relative
        for _ in range(3):
            relative = self._rounded(_both(_both(relative, self.p.source), 2 * FP32.u))
        extra = None
        if x.extra is not None:
            zero = self.emit("Sub", [bias, bias])
            extra = self._scaled(self.again(node, [x.extra, scale, zero, zero, node.input[4]])[0], 1 + relative)
        return Form(magnitude, relative, extra, x.terms + 8)

    def _on_averagepool(self, node: onnx.NodeProto) -> Form | None:
        kernel = attribute(node, "kernel_shape", [])
        return self._summed(node, math.prod(kernel))  # type: ignore[call-overload]

    def _on_globalaveragepool(self, node: onnx.NodeProto) -> Form | None:
        shape = self.shape(node.input[0])
        return None if shape is None else self._summed(node, math.prod(shape[2:]))

    def _on_reducemean(self, node: onnx.NodeProto) -> Form | None:
        shape = self.shape(node.input[0])
        return None if shape is None else self._summed(node, math.prod(shape))

    _on_reducesum = _on_reducemean

    def _summed(self, node: onnx.NodeProto, count: int) -> Form | None:
        """A sum or a mean over at most ``count`` elements."""
        form = self.form(node.input[0])
        rest = [self.raw(name) for name in node.input[1:]]
        if form is None or any(r is None for r in rest):
            return None
        others = [r for r in rest if r is not None]
        relative = self._rounded(_both(form.relative, self.p.gamma(count + 2)))
        extra = form.extra and self.again(node, [form.extra, *others])[0]
        magnitude = self.again(node, [form.magnitude, *others])[0]
        return Form(magnitude, relative, self._scaled(extra, 1 + relative), form.terms + count + 2)

    def _function(self, node: onnx.NodeProto) -> Form | None:
        form = self.form(node.input[0])
        if form is None:
            return None
        slope, start, most = _FUNCTIONS[node.op_type]
        magnitude = self._scaled(form.magnitude, slope) or form.magnitude
        if start:
            magnitude = self.emit("Add", [magnitude, self.scalar(start)])
        if math.isfinite(most):
            magnitude = self.emit("Min", [magnitude, self.scalar(most)])
        off = self._scaled(self._whole(form), slope)
        # a library's error is relative to the function's greatest value, or to its argument
        level = self.emit("Max", [magnitude, self.scalar(most)]) if math.isfinite(most) else magnitude
        extra = self._sum(off, self._scaled(level, _LIBRARY * FP32.u))
        return Form(magnitude, self._rounded(0.0), extra, form.terms + 3)

    def _on_softmax(self, node: onnx.NodeProto) -> Form | None:
        """Of what the layer is given, since it takes values and not magnitudes.

        Inputs that move by at most d multiply a share by at most exp(2 d). Subtracting the greatest input rounds once
        more, by at most the roundoff of twice the greatest magnitude; exponential, sum and quotient are relative.
        """
        name = node.input[0]
        form, shape = self.form(name), self.shape(name)
        axis = attribute(node, "axis", -1 if self.opset >= 13 else 1)
        if form is None or shape is None or name not in self.part.inputs or not isinstance(axis, int):
            return None
        axis %= len(shape)
        if self.opset < 13 and axis != len(shape) - 1:  # over several axes at once
            return None
        value = self.again(node, [name])[0]
        exponent = self._sum(self._whole(form), self._scaled(form.magnitude, 4 * self.p.node))
        assert exponent is not None
        if self.opset >= 18:
            most = self.emit("ReduceMax", [exponent, self._integers([axis])], keepdims=1)
        else:
            most = self.emit("ReduceMax", [exponent], axes=[axis], keepdims=1)
        grown = self.emit("Exp", [self.emit("Mul", [most, self.scalar(2.0)])])
        terms = shape[axis] + 2
        others = self.p.gamma(terms) + 4 * self.p.node + _LIBRARY * FP32.u - 1.0
        extra = self.emit("Mul", [value, self.emit("Add", [grown, self.scalar(others)])])
        return Form(value, self._rounded(0.0), extra, terms)

    def _rounded(self, relative: float) -> float:
        """After a node's result is rounded."""
        return _both(relative, self.p.node)


def _both(a: float, b: float) -> float:
    """(1 + a)(1 + b) - 1, without losing what is small."""
    return a + b + a * b


def products(node: onnx.NodeProto, shape_of: Callable[[str], tuple[int, ...] | None]) -> int | None:
    """How many products a contraction adds up, its bias included; None where the shapes do not tell."""
    if len(node.input) < 2:
        return None
    first, second = (shape_of(name) for name in node.input[:2])
    op = node.op_type
    if op == "Conv" and second:
        return math.prod(second[1:]) + 1
    if op == "ConvTranspose" and second:
        group = int(attribute(node, "group", 1))  # type: ignore[call-overload]
        return second[0] // group * math.prod(second[2:]) + 1
    if op == "Gemm" and second and len(second) == 2:
        return second[1 if attribute(node, "transB", 0) else 0] + 3
    if op == "MatMul" and (first or second):
        if first:
            return first[-1]
        assert second is not None
        return second[-2] if len(second) > 1 else second[0]
    if op == "Einsum" and first and second:
        return _einsum(str(attribute(node, "equation", "")), first, second)
    return None


def _einsum(equation: str, first: tuple[int, ...], second: tuple[int, ...]) -> int | None:
    """The product of the sizes that are summed over."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    labels = left.split(",")
    if not arrow or "." in equation or len(labels) != 2:
        return None
    sizes: dict[str, int] = {}
    for names, shape in zip(labels, (first, second), strict=True):
        if len(names) != len(shape):
            return None
        sizes.update(zip(names, shape, strict=True))
    return math.prod(size for name, size in sizes.items() if name not in right)
