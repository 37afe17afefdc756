"""How large the terms are that an output was made of: what its elements may err by, where they themselves are small.

A value after a clamp, a difference of near equals, the far end of an activation: each is smaller than what it was made
of, and carries that one's error. `terms` finds what an output was made of by walking the graph backwards, through
whatever moves, clamps, adds or scales values, to the products and other layers behind; `Terms.sizes` takes their values
in the reference and gives, for each element of the output, its error to first order where theirs is theirs:

- of a sum of products with constant weights, the root of the sum of the squares of its terms (their roundings are as
  good as independent), plus the RMS of its channel, or of the tensor if that is less; what is rounded here alone, bias
  and result, counts as much less as t is less for one layer;
- of any other tensor where the walk ends, its magnitude or its `Scale`, whichever is larger; where nothing was rounded
  on the way to it (an input, a mask), its magnitude;
- of y = f(x, ...), that of x times |df/dx|, and the root of the sum of squares over several operands and y itself,
  which is rounded here alone.

Small whole numbers are exact in every format, and no terms: 1 - mask is 0 without error where the mask is 1.

`tolerance` holds the rule that it belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from ...graph.index import GraphIndex
from ...graph.nodes import attribute_float, attribute_int, attribute_ints
from ...graph.operators import FUSED_GELUS, STANDARD_DOMAINS, WITHIN_CHANNELS
from ...graph.specs import is_float
from .ties import FLAT, REARRANGING, _move
from .tolerance import CHAIN, Scale, depths

DEPTH = 24
"""Most nodes that the walk goes back through."""
SUMS = 2
"""Most sums of two varying tensors among them: a residual stream would lead to the inputs of the network."""

# fmt: off
CONTRACTING: Mapping[str, float] = {
    "Relu": 1, "Clip": 1, "Abs": 1, "Neg": 1, "Identity": 1, "Dropout": 1, "Cast": 1, "CastLike": 1, "Softsign": 1,
    "ThresholdedRelu": 1, "Softplus": 1, "Elu": 1, "Celu": 1, "Selu": 1.76, "Gelu": 1.13, "FastGelu": 1.13,
    "QuickGelu": 1.13, "HardSwish": 1.5, "Mish": 1.1, "Swish": 1.1,
}
"""Operators of one operand that bring two values no further apart than by this factor."""

ONES = frozenset({"Sigmoid", "Softplus", "Elu", "Celu", "Selu"})
"""Functions that kernels compute by adding to a constant about 1, in FP32 or better."""

HERE = 2
"""Roundings of one layer: of its weights and of its result."""

WHOLE = 256
"""Whole numbers up to here are exact in every format that a tolerance follows from (BF16 has 8 bits)."""

# fmt: on


@dataclass(frozen=True)
class _Step:
    """A tensor on the way back.

    Attributes:
        name: The tensor.
        rule: Gives the sizes of its elements.
        node: The node that makes it, where the walk goes on.
        parents: What it is made of.
        needs: Tensors whose values the rule reads.
    """

    name: str
    rule: Callable[[_Values, _Step], np.ndarray]
    node: onnx.NodeProto = field(default_factory=onnx.NodeProto)
    parents: tuple[_Step, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Terms:
    """What an output was made of.

    Attributes:
        output: The output.
        tensors: What `sizes` wants to know the reference's values of.
    """

    output: str
    tensors: tuple[str, ...]
    index: GraphIndex = field(repr=False, compare=False)
    last: _Step = field(repr=False, compare=False)

    def sizes(
        self, reference: np.ndarray, values: Mapping[str, np.ndarray], share: Callable[[float, float], float]
    ) -> np.ndarray | None:
        """The size of the terms of each element, as an array that broadcasts to the output's shape.

        Args:
            reference: The output in the reference.
            values: The values of `tensors` in the same sample. What is missing counts as zero: constants remain.
            share: `Tolerance.share`: what was rounded here alone errs by less than what went through all layers.

        Returns:
            None where the values do not fit the graph.
        """
        known = _Values(self.index, {**values, self.output: reference}, share, self.output)
        try:
            with np.errstate(all="ignore"):
                found = known.size(self.last)
        except Exception:  # values that do not fit the graph, an operator that the reference evaluator lacks
            return None
        found = np.where(np.isfinite(found), found, 0.0)
        if found.shape == reference.shape:  # t |r| is allowed anyway: errors as large as both together, in squares
            magnitude = known.magnitude(self.output)
            found = np.where(np.isfinite(magnitude), np.hypot(found, magnitude) - magnitude, 0.0)
        fits = found.ndim == reference.ndim and all(
            n in (1, m) for n, m in zip(found.shape, reference.shape, strict=True)
        )
        return found if fits else None


def terms(index: GraphIndex, output: str) -> Terms | None:
    """What ``output`` was made of; None where its own values say as much."""
    planner = _Planner(index)
    last = planner.step(output, DEPTH, SUMS)
    if last.rule in (_leaf, _exact, _fixed):
        return None
    needs: dict[str, None] = {}
    seen: set[int] = set()

    def collect(step: _Step) -> None:
        if id(step) in seen:
            return
        seen.add(id(step))
        needs.update(dict.fromkeys(n for n in step.needs if not _is_constant(index, n)))
        for parent in step.parents:
            collect(parent)

    collect(last)
    needs.pop(output, None)
    return Terms(output, tuple(needs), index, last)


# -- the way back -------------------------------------------------------------------------------------------------


class _Planner:
    """Finds the rule of each tensor."""

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._depths = depths(index)
        self._known: dict[str, _Step] = {}

    def step(self, name: str, depth: int, sums: int) -> _Step:
        """The step of a tensor, ``depth`` nodes and ``sums`` sums before the walk has to end."""
        if name not in self._known:
            self._known[name] = self._step(name, depth, sums)
        return self._known[name]

    def _step(self, name: str, depth: int, sums: int) -> _Step:
        index = self._index
        if _is_constant(index, name):
            return _Step(name, _fixed)
        position = index.producer.get(name)
        spec = index.specs.get(name)
        end = _Step(name, _exact if self._depths.get(name, 0) == 0 else _leaf, needs=(name,))
        if position is None or depth <= 0 or (spec is not None and not is_float(spec.dtype)):
            return end
        node = index.nodes[position]
        if node.domain not in STANDARD_DOMAINS and node.op_type not in FUSED_GELUS:
            return end
        if name != node.output[0] and node.op_type != "Split":
            return end
        planned = self._rule(node)
        if planned is None:
            return end
        rule, operands, needs = planned
        varying = [o for o in operands if not _is_constant(index, o)]
        left = sums - (rule is _sum and len(varying) > 1)
        if left < 0:
            return end
        return _Step(name, rule, node, tuple(self.step(o, depth - 1, left) for o in operands), needs)

    def _rule(
        self, node: onnx.NodeProto
    ) -> tuple[Callable[[_Values, _Step], np.ndarray], tuple[str, ...], tuple[str, ...]] | None:
        """Rule, operands that the walk goes on to, and tensors whose values are read."""
        op, first, own = node.op_type, tuple(node.input[:1]), tuple(node.output[:1])
        every = tuple(i for i in node.input if i)
        constant = [not i or _is_constant(self._index, i) for i in node.input]
        if op in CONTRACTING:
            return _contract, first, ()
        if op in DERIVATIVES:
            return _function, first, (*own, *(first if op == "Erf" else ()))
        if op in ("Softmax", "LogSoftmax"):
            return _softmax, first, (*own, *(first if op == "LogSoftmax" else ()))
        if op in ("Add", "Sub", "Sum"):
            return _sum, every, own
        if op == "Mul" or (op == "Div" and constant[1]):
            return (_multiply if op == "Mul" else _divide), every, every if op == "Mul" else ()
        if op == "Where":
            return _where, every[1:], first
        if op in ("Max", "Min"):
            return _choose, every, (*own, *every)
        if op == "BatchNormalization" and all(constant[1:5]) and len(node.output) == 1:
            return _batch_normalize, first, ()
        if op in ("LayerNormalization", "InstanceNormalization") and all(constant[1:]):
            return _normalize, first, first
        if op in ("Conv", "ConvTranspose", "Gemm", "MatMul") and _is_product(self._index, node):
            return _product, (), (*own, *first)
        if op in WITHIN_CHANNELS:
            return _pool, first, ()
        if op in FLAT or op in ("Transpose", "Concat"):
            return _rearrange, every if op == "Concat" else first, self._shapeless(*node.output, *node.input)
        if op in REARRANGING and all(constant[1:]):
            return _rearrange, first, self._shapeless(*node.output, *node.input)
        return None

    def _shapeless(self, *names: str) -> tuple[str, ...]:
        """Those tensors of which the graph does not tell the shape."""
        specs = {name: self._index.specs.get(name) for name in names if name}
        return tuple(
            name
            for name, spec in specs.items()
            if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape)
        )


def _is_constant(index: GraphIndex, name: str) -> bool:
    return name in index.initializers or index.constant(name) is not None


def _constant(index: GraphIndex, name: str) -> np.ndarray | None:
    value = index.weight(name)
    return index.constant(name) if value is None else value


def _is_product(index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Whether rows of a constant weight make the channels."""
    if not all(_is_constant(index, i) for i in node.input[1:] if i):
        return False
    if node.op_type == "MatMul":
        weight = _constant(index, node.input[1])
        return weight is not None and weight.ndim == 2
    return node.op_type != "Gemm" or not attribute_int(node, "transA", 0)


# -- sizes --------------------------------------------------------------------------------------------------------


class _Values:
    """What is known of one sample, and the sizes that follow."""

    def __init__(
        self,
        index: GraphIndex,
        values: Mapping[str, np.ndarray],
        share: Callable[[float, float], float],
        output: str,
    ) -> None:
        self.index = index
        self.share = share
        self.one = share(0, 2)
        """Of a term 1 that is added in FP32 or better, however coarse the format in play."""
        self.here = share(HERE, 0)
        """Of what one layer rounds."""
        self._output = output
        self._values = values
        self._sizes: dict[str, np.ndarray] = {}

    def size(self, step: _Step) -> np.ndarray:
        """Sizes of a tensor's terms, of the tensor's rank."""
        if step.name not in self._sizes:
            self._sizes[step.name] = step.rule(self, step)
        return self._sizes[step.name]

    def parents(self, step: _Step) -> list[np.ndarray]:
        """Sizes of what a step is made of."""
        return [self.size(p) for p in step.parents]

    def get(self, name: str) -> np.ndarray | None:
        """A constant, or a tensor's value in the reference; None where nobody told it."""
        value = self._values.get(name)
        value = _constant(self.index, name) if value is None else value
        return None if value is None else np.asarray(value)

    def magnitude(self, name: str) -> np.ndarray:
        """|value|, in FP64; zero where it is not known."""
        value = self.get(name)
        if value is None:
            return np.zeros((1,) * self.rank(name))
        return np.abs(value.astype(np.complex128 if value.dtype.kind == "c" else np.float64))

    def own(self, name: str) -> np.ndarray:
        """Error of a result that is rounded here; of the output zero: the tolerance counts |r| itself."""
        value = self.magnitude(name)
        return np.zeros_like(value) if name == self._output else self.here * value

    def rank(self, name: str) -> int:
        """Number of a tensor's dimensions."""
        value, spec = self.get(name), self.index.specs.get(name)
        if value is not None:
            return value.ndim
        if spec is None or spec.shape is None:
            raise ValueError(f"the rank of {name} is not known")
        return len(spec.shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        value = self.get(name)
        if value is not None:
            return value.shape
        spec = self.index.specs.get(name)
        if spec is None or spec.shape is None or not all(isinstance(d, int) for d in spec.shape):
            raise ValueError(f"the shape of {name} is not known")
        return tuple(int(d) for d in spec.shape)  # type: ignore[arg-type]


def _hypot(parts: list[np.ndarray]) -> np.ndarray:
    total = parts[0] ** 2
    for part in parts[1:]:
        total = total + part**2
    return np.sqrt(total)


def _fixed(known: _Values, step: _Step) -> np.ndarray:
    return _exact(known, step)


def _exact(known: _Values, step: _Step) -> np.ndarray:
    value = known.magnitude(step.name)
    return np.where(_whole(value), 0.0, known.here * value)


def _whole(value: np.ndarray) -> np.ndarray:
    return (value <= WHOLE) & (value == np.rint(value))


def _leaf(known: _Values, step: _Step) -> np.ndarray:
    value = known.get(step.name)
    if value is None:
        return known.magnitude(step.name)
    return np.maximum(known.magnitude(step.name), Scale(value).block(0, value.size).reshape(value.shape))


def _contract(known: _Values, step: _Step) -> np.ndarray:
    op = step.node.op_type
    (size,) = known.parents(step)
    steepest = CONTRACTING[op]
    if op in ("Elu", "Celu"):
        steepest = max(1.0, attribute_float(step.node, "alpha", 1.0))
    return _hypot([steepest * size, np.asarray(known.one if op in ONES else 0.0)])


def _function(known: _Values, step: _Step) -> np.ndarray:
    (size,) = known.parents(step)
    slope = DERIVATIVES[step.node.op_type](step.node, known)
    one = np.asarray(known.one if step.node.op_type in ONES else 0.0)
    return _hypot([slope * size, known.own(step.name), one])


def _own(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.NodeProto, _Values], np.ndarray]:
    """A derivative that the function's own value gives."""
    return lambda node, known: function(known.magnitude(node.output[0]))


def _leak(node: onnx.NodeProto, known: _Values) -> np.ndarray:
    alpha = abs(attribute_float(node, "alpha", 0.01))
    value = known.get(node.output[0])
    return np.asarray(max(alpha, 1.0)) if value is None else np.where(value < 0, alpha, 1.0)


DERIVATIVES: Mapping[str, Callable[[onnx.NodeProto, _Values], np.ndarray]] = {
    "Sigmoid": _own(lambda y: y * (1 - y)),
    "Tanh": _own(lambda y: 1 - y * y),
    "Exp": _own(lambda y: y),
    "Erf": lambda node, known: 2 / math.sqrt(math.pi) * np.exp(-(known.magnitude(node.input[0]) ** 2)),
    "HardSigmoid": lambda node, known: np.asarray(attribute_float(node, "alpha", 0.2)),
    "LeakyRelu": _leak,
}
"""|df/dx|."""


def _softmax(known: _Values, step: _Step) -> np.ndarray:
    (size,) = known.parents(step)
    node = step.node
    rank = size.ndim
    if known.index.opset.get("", 13) >= 13:
        axes: tuple[int, ...] = (attribute_int(node, "axis", -1) % rank,)
    else:  # over all axes from this one on
        axes = tuple(range(attribute_int(node, "axis", 1) % rank, rank))
    y = known.get(step.name)
    if y is None:
        raise ValueError(step.name)
    # dy_i = y_i (dx_i - sum_j y_j dx_j): what is masked out has no share, however large it is.
    log = node.op_type == "LogSoftmax"
    share = np.exp(y.astype(np.float64)) if log else y.astype(np.float64)
    others = np.where(share > 0, (share * size) ** 2, 0.0).sum(axis=axes, keepdims=True)
    own = np.where(share > 0, size**2 * (1 - 2 * share), size**2 if log else 0.0)
    size = np.sqrt(np.maximum(own + others, 0.0))
    if not log:
        return size * share
    # Made of x and the logarithm of a sum, which are rounded as FP32 is, however large they are.
    magnitude = np.where(share > 0, known.magnitude(node.input[0]), 0.0).max(axis=axes, keepdims=True)
    return np.hypot(size, known.one * np.maximum(magnitude, 1.0))


def _sum(known: _Values, step: _Step) -> np.ndarray:
    operands, whole = _hypot(known.parents(step)), _whole(known.magnitude(step.name))
    return np.hypot(operands, np.where((operands == 0) & whole, 0.0, known.own(step.name)))  # 1 - mask


def _multiply(known: _Values, step: _Step) -> np.ndarray:
    one, other = known.parents(step)
    values = [known.magnitude(p.name) for p in step.parents]
    return _hypot([one * values[1], other * values[0]])


def _divide(known: _Values, step: _Step) -> np.ndarray:
    return known.size(step.parents[0]) / known.magnitude(step.parents[1].name)


def _where(known: _Values, step: _Step) -> np.ndarray:
    """Of that which was chosen: what was masked out may be as large as it likes."""
    condition = known.get(step.node.input[0])
    if condition is None:
        raise ValueError(step.name)
    return np.where(condition, *known.parents(step))


def _choose(known: _Values, step: _Step) -> np.ndarray:
    """As `_where`, by value. Of a constant that clamps: what it clamped."""
    sizes, y = known.parents(step), known.get(step.name)
    varying = [p.rule is not _fixed for p in step.parents]
    result = np.zeros((1,) * known.rank(step.name))
    for size, parent, varies in zip(sizes, step.parents, varying, strict=True):
        value = known.get(parent.name)
        chosen = sum(varying) == 1 or (y is not None and value is not None and value == y)
        result = np.maximum(result, np.where(chosen & varies, size, 0.0))
    return result


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector along one axis."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _batch_normalize(known: _Values, step: _Step) -> np.ndarray:
    (size,) = known.parents(step)
    gamma, beta, mean, variance = (known.magnitude(i) for i in step.node.input[1:5])
    gain = gamma / np.sqrt(variance + attribute_float(step.node, "epsilon", 1e-5))
    rank = size.ndim
    return _hypot([_along(gain, 1, rank) * size, _along(known.here * np.hypot(gain * mean, beta), 1, rank)])


def _normalize(known: _Values, step: _Step) -> np.ndarray:
    """Of gamma (x - mean) / sigma + beta; a mean that is large against sigma is a term of x."""
    (size,) = known.parents(step)
    node, x = step.node, known.get(step.node.input[0])
    constants = [known.magnitude(i) for i in node.input[1:3] if i]
    if x is None:
        raise ValueError(step.name)
    if node.op_type == "LayerNormalization":
        axes = tuple(range(attribute_int(node, "axis", -1) % x.ndim, x.ndim))
    else:
        axes = tuple(range(2, x.ndim))
        constants = [_along(c, 1, x.ndim) for c in constants]
    variance = x.astype(np.float64).var(axis=axes, keepdims=True)
    sigma = np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    relative = np.sqrt(np.square(size).mean(axis=axes, keepdims=True)) / sigma
    return _hypot([constants[0] * np.hypot(known.here, relative), *(known.here * c for c in constants[1:])])


def _mean_square(x: np.ndarray, axis: int) -> np.ndarray:
    """By index of one axis, over finite values."""
    squares = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64) ** 2
    finite = np.isfinite(squares)
    return np.asarray(np.where(finite, squares, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1))


def _product(known: _Values, step: _Step) -> np.ndarray:
    """Of each channel, the root of the sum of the squares of its terms, of its bias and of its values."""
    node = step.node
    op, weight = node.op_type, _constant(known.index, node.input[1])
    assert weight is not None
    axis = 1 if op in ("Conv", "ConvTranspose") else -1
    squares, groups = _squares(node, weight)
    x, y = known.get(node.input[0]), known.get(step.name)
    total = np.zeros(squares.shape[1])
    if x is not None:
        means = _mean_square(x, axis)
        inputs, channels = len(means) // groups, squares.shape[1] // groups
        for g in range(groups):
            columns = slice(g * channels, (g + 1) * channels)
            total[columns] = means[g * inputs : (g + 1) * inputs] @ squares[:, columns]
    bias: Any = known.magnitude(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    if op == "Gemm":
        total = total * attribute_float(node, "alpha", 1.0) ** 2
        bias = bias * abs(attribute_float(node, "beta", 1.0))
    here = known.share(HERE, min(weight.size / squares.shape[1], CHAIN)) ** 2
    if y is not None:
        values = _mean_square(y, axis)
        total = (np.sqrt(total) + np.sqrt(np.minimum(values, values.mean()))) ** 2 + here * values
    if op == "Gemm":
        return np.asarray(np.sqrt(total + here * np.atleast_2d(bias) ** 2))
    return _along(np.sqrt(total + here * bias**2), axis, known.rank(step.name))


def _squares(node: onnx.NodeProto, weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Sums of squared weights over the window, inputs of a group x all outputs; and the number of groups."""
    op = node.op_type
    squares = weight.astype(np.float32) ** 2
    if op in ("Conv", "ConvTranspose"):
        groups = attribute_int(node, "group", 1)
        squares = squares.reshape(*squares.shape[:2], -1).sum(axis=2, dtype=np.float64)
        if op == "Conv":
            return squares.T, groups
        # An input reaches an output through one tap in so many as the stride skips.
        steps = attribute_ints(node, "strides", [1])
        per_group = np.split(squares / math.prod(steps), groups)
        return np.concatenate(per_group, axis=1), groups
    transposed = op == "Gemm" and attribute_int(node, "transB", 0)
    return (squares.T if transposed else squares).astype(np.float64), 1


def _pool(known: _Values, step: _Step) -> np.ndarray:
    """Of what varies within a channel the median, so that one outlier does not excuse the rest."""
    (size,) = known.parents(step)
    return np.asarray(np.median(size, axis=tuple(range(2, size.ndim)), keepdims=True)) if size.ndim > 2 else size


def _rearrange(known: _Values, step: _Step) -> np.ndarray:
    """What moves elements moves their sizes."""
    node, sizes = step.node, known.parents(step)
    if all(s.size == 1 for s in sizes) and len({float(s.reshape(())) for s in sizes}) == 1:
        return sizes[0].reshape((1,) * known.rank(step.name))
    if node.op_type == "Transpose":
        order = attribute_ints(node, "perm")
        return np.transpose(sizes[0], order)
    whole = [np.broadcast_to(s, known.shape(p.name)) for s, p in zip(sizes, step.parents, strict=True)]
    if node.op_type in FLAT:
        return _slim(whole[0].reshape(known.shape(step.name)))
    if node.op_type == "Concat":
        return _slim(np.concatenate(whole, axis=attribute_int(node, "axis", 0)))
    return _slim(_move(known.index, node, step.name, [np.array(w) for w in whole]))


def _slim(sizes: np.ndarray) -> np.ndarray:
    """Without the axes along which nothing changes."""
    for axis in range(sizes.ndim):
        first = sizes.take([0], axis=axis) if sizes.shape[axis] else sizes
        if sizes.shape[axis] > 1 and (sizes == first).all():
            sizes = first
    return sizes
